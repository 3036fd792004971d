"""How the defect looks against its surroundings: visible, as sharp, as grainy, textured, softly bordered?

Everything is measured inside the defect and in a ring around it in the edited photo, so that a photo's own
blur, noise and texture are the yardstick.
"""

from __future__ import annotations

from math import erf, sqrt

import cv2
import numpy as np

from mcp_servers.mask_gen.local.shape import ellipse, lab_of
from mcp_servers.vision.pixels import length, median, percentile
from mcp_servers.vision.scene import Scene, grey
from mcp_servers.vision.types import Field, Image, Mask

WORK = 1024
"""Longer side, in pixels, above which the window around the defect is reduced."""
OPTICS = 0.4
"""Correlation of neighbouring pixels to assume where a photo is too smooth to measure it."""
QUIET = 0.6
"""Grey levels added to every band: below this, 8-bit rounding and JPEG decide, not the scene."""


def measure_look(normal: Image, anomaly: Image, mask: Mask, scene: Scene) -> dict[str, float]:
    """Appearance of the defect ``mask`` (H, W), not empty.

    delta_e: colour difference (dE, Lab) of the defect against the good photo, 90th percentile, fine texture
    averaged out. contrast: delta_e over the surface's own variation in the ring (surface_variation, dE).
    grain: variation below 1 px inside / in the ring. texture: variation below 3 px inside / in the calm places of
    the ring (near 0: painted flat).
    fineness: variation below 1 px over that from 1 to 3 px, inside; about 2 for white noise, whatever its strength.
    whiteness: fineness over that in the ring (near 0: blurred).
    coarseness: variation from 1.5 to 4 px over that from 0.4 to 1.5 px, inside / in the ring (high: smooth blobs);
    drawn towards 1 below 36 px of width, where the defect's own shape counts as its texture.
    clipped: share of the inside that is black or white, as on scans of two levels.
    colour_grain: variation of colour (a, b) below 1 px inside / in the ring; optics and demosaicing keep it low.
    resolved: share of the defect that is 2 px away from its outline; what is thin says little of its texture.
    correlation and correlation_around: see `correlation`. seam: see `seam`.
    """
    window = window_around(mask)
    n, a, m, part = normal[window], anomaly[window], mask[window], scene.part[window]
    scale = min(1.0, WORK / max(m.shape))
    if scale < 1:
        size = (max(1, round(m.shape[1] * scale)), max(1, round(m.shape[0] * scale)))
        n, a = (cv2.resize(p, size, interpolation=cv2.INTER_AREA) for p in (n, a))
        m, part = (cv2.resize(p.astype(np.float32), size, interpolation=cv2.INTER_AREA) >= 0.5 for p in (m, part))
    if not m.any():
        m = np.ones_like(m)
    inner = cv2.erode(m.astype(np.uint8), ellipse(2), borderValue=1) > 0
    core = inner if np.count_nonzero(inner) >= max(12, 0.15 * np.count_nonzero(m)) else m
    ring = ring_around(m, part)
    lab_n, lab_a, luma = lab_of(n), lab_of(a), grey(a)
    out = contrast(lab_n, lab_a, m, ring)
    out["resolved"] = np.count_nonzero(inner) / np.count_nonzero(m)
    fine_in, coarse_in = bands(luma, core)
    fine_out, coarse_out = bands(luma, ring)
    out["grain"] = (fine_in + QUIET / 2) / (fine_out + QUIET / 2)
    out["texture"] = (fine_in + coarse_in + QUIET) / (calm(luma, ring) + QUIET)
    out["correlation"], out["correlation_around"] = correlation(luma, core, ring)
    coarse = [medium(luma, where, 1.5, 4.0) / medium(luma, where, 0.4, 1.5) for where in (core, ring)]
    out["coarseness"] = (coarse[0] / coarse[1]) ** float(np.clip(np.sqrt(np.count_nonzero(core)) / 24 - 0.5, 0, 1))
    out["clipped"] = float(np.mean((luma[core] <= 3) | (luma[core] >= 252)))
    white_in, white_out = fine_in / (coarse_in + QUIET), fine_out / (coarse_out + QUIET)
    out["fineness"], out["whiteness"] = white_in, white_in / max(white_out, 0.6)
    colour_in, colour_out = (colour_grain(lab_a, where) for where in (core, ring))
    out["colour_grain"] = (colour_in + QUIET / 2) / (colour_out + QUIET / 2)
    change = length(own_change(lab_n, lab_a, ring))
    out["seam"] = seam(change, m, scene.blur * scale, own_steps(luma, ring))
    return out


def window_around(mask: Mask) -> tuple[slice, slice]:
    """The defect's box with a margin of half its size, at least 24 px."""
    ys, xs = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    margin = max(24, round(0.5 * max(ys[-1] - ys[0], xs[-1] - xs[0])))
    return (
        slice(max(0, int(ys[0]) - margin), int(ys[-1]) + margin + 1),
        slice(max(0, int(xs[0]) - margin), int(xs[-1]) + margin + 1),
    )


def ring_around(mask: Mask, part: Mask) -> Mask:
    """Surface around the defect: on the part where enough of it is there, 3 px clear of the defect."""
    size = float(np.sqrt(np.count_nonzero(mask)))
    reach = int(np.clip(round(0.6 * size), 8, 40))
    away = cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, 5)
    clear = away <= 3
    ring = (away <= reach) & ~clear
    surface = ring & (cv2.erode(part.astype(np.uint8), ellipse(3), borderValue=1) > 0)
    for candidate in (surface, ring, ~clear, ~mask):
        if np.count_nonzero(candidate) >= 50:
            return np.asarray(candidate)
    return np.ones_like(mask)


def bands(luma: Field, where: Mask) -> tuple[float, float]:
    """Mean absolute variation in grey levels of the pixels ``where``: below 1 px, and from 1 to 3 px.

    The averages that are subtracted see only pixels of the same region, so a region's border does not count as its
    texture; the strongest 10% are left out, so a few edges do not decide.
    """
    near, far = (mean_within(luma, where, sigma) for sigma in (0.8, 3.0))
    levels = []
    for band in (np.abs(luma - near)[where], np.abs(near - far)[where]):
        levels.append(float(band[band <= percentile(band, 90)].mean()))
    return levels[0], levels[1]


def medium(luma: Field, where: Mask, low: float, high: float) -> float:
    """Median variation, in grey levels, of the pixels ``where`` between the sigmas ``low`` and ``high`` (px)."""
    band = mean_within(luma, where, low) - mean_within(luma, where, high)
    return median(np.abs(band[where])) + QUIET / 2


def mean_within(luma: Field, where: Mask, sigma: float) -> Field:
    """Gaussian mean that sees only pixels ``where`` (normalised convolution)."""
    weight = where.astype(np.float32)
    total = cv2.GaussianBlur(luma * weight, (0, 0), sigma)
    return np.asarray(total / np.maximum(cv2.GaussianBlur(weight, (0, 0), sigma), 1e-3))


def colour_grain(lab: Field, where: Mask) -> float:
    """Median variation of a and b (Lab) below 1 px of the pixels ``where``."""
    fine = lab[..., 1:] - cv2.GaussianBlur(lab[..., 1:], (0, 0), 0.8)
    return median(np.abs(fine[where]))


def calm(luma: Field, where: Mask) -> float:
    """Variation below 3 px (as in `bands`, both together) in the calmest sixth of a region's 5 px neighbourhoods."""
    near, far = cv2.GaussianBlur(luma, (0, 0), 0.8), cv2.GaussianBlur(luma, (0, 0), 3.0)
    local = cv2.blur(np.abs(luma - near) + np.abs(near - far), (5, 5))
    return percentile(local[where], 15)


def correlation(luma: Field, core: Mask, ring: Mask) -> tuple[float, float]:
    """Correlation of neighbouring pixels, less their 2 px surroundings, inside and in the ring; -1..1.

    Optics smear every real surface, so neighbours resemble each other; computed white noise does not. Where there
    is hardly any variation (1 grey level) the value tends to `OPTICS`. A small defect says little: its value is
    drawn towards the ring's with the weight of 80 px.
    """
    values = []
    for where in (core, ring):
        weight = where.astype(np.float32)
        mean = cv2.GaussianBlur(luma * weight, (0, 0), 2.0) / np.maximum(cv2.GaussianBlur(weight, (0, 0), 2.0), 1e-3)
        x = (luma - mean) * weight
        both_across, both_down = where[:, 1:] & where[:, :-1], where[1:] & where[:-1]
        product = float((x[:, 1:] * x[:, :-1]).sum()) + float((x[1:] * x[:-1]).sum())
        square = 0.5 * float((x[:, 1:] ** 2 + x[:, :-1] ** 2)[both_across].sum())
        square += 0.5 * float((x[1:] ** 2 + x[:-1] ** 2)[both_down].sum())
        count = 2 * np.count_nonzero(where)
        values.append((product + OPTICS * count) / (square + count + 1e-6))
    size = np.count_nonzero(core)
    return (size * values[0] + 80 * values[1]) / (size + 80), values[1]


def contrast(normal: Field, anomaly: Field, mask: Mask, ring: Mask) -> dict[str, float]:
    """delta_e and contrast (see `measure_look`) from two Lab windows; what the ring changed by is no contrast."""
    change = length(cv2.GaussianBlur(own_change(normal, anomaly, ring), (0, 0), 1.0))
    delta_e = percentile(change[mask], 90)
    own = cv2.GaussianBlur(anomaly, (0, 0), 1.0)
    around = cv2.GaussianBlur(anomaly, (0, 0), 6.0)
    varies = length((own - around)[ring])
    surface = varies[varies <= percentile(varies, 85)]  # edges and neighbouring parts are not the surface
    variation = float(np.sqrt(np.mean(surface**2)))
    return {"delta_e": delta_e, "surface_variation": variation, "contrast": delta_e / (variation + 1.0)}


def own_change(normal: Field, anomaly: Field, ring: Mask) -> Field:
    """Edited less good photo (Lab), less the median of that in the ring: recolouring cancels."""
    change = anomaly - normal
    usual = [median(change[..., channel][ring]) for channel in range(3)]
    return np.asarray(change - np.array(usual, np.float32))


def own_steps(luma: Field, ring: Mask) -> float:
    """Median step (in L, 0-100) between pixels two apart in any direction: what the surface's own grain shows."""
    kernel = np.ones((3, 3), np.uint8)
    steps = cv2.dilate(cv2.dilate(luma, kernel) - cv2.erode(luma, kernel), kernel)
    return median(steps[ring]) / 2.55


def seam(change: Field, mask: Mask, blur: float, own: float) -> float:
    """How much harder the change's border is than the photo can resolve, -1..1; above 0.2 it looks cut out.

    change: (H, W) dE. Hardness is the largest step between pixels two apart across the outline, over the
    change's strength (median along the outline), less the surface's ``own`` steps (dE). A step seen through a
    Gaussian of the photo's ``blur`` (px) has hardness erf(1 / (blur sqrt 2)). Thin defects resolve nothing, give 0.
    """
    solid = mask.astype(np.uint8)
    if np.count_nonzero(cv2.erode(solid, ellipse(2), borderValue=1)) < 0.25 * np.count_nonzero(solid):
        return 0.0
    kernel = np.ones((3, 3), np.uint8)
    slope = cv2.dilate(change, kernel) - cv2.erode(change, kernel)
    line = (cv2.dilate(solid, kernel) > 0) & (cv2.erode(solid, kernel, borderValue=1) == 0)
    steps = cv2.dilate(np.where(line, slope, 0).astype(np.float32), kernel)[line]
    strength = percentile(change[mask], 75) + 1.0
    hardness = float(np.clip((float(np.median(steps)) - own) / strength, 0.0, 1.0))
    return hardness - erf(1 / (max(blur, 0.4) * sqrt(2)))
