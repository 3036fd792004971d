"""Which kind of defect it is, as far as can be measured: line or patch, colour or damage, tint, material lost.

Each figure is evidence in one direction only. A good photo that was made by painting the defect over says nothing of
what the surface looked like before, so that "its own texture runs on" can be seen but never missed.
"""

from __future__ import annotations

import cv2
import numpy as np

from mcp_servers.mask_gen.local.shape import ellipse, fill_holes, lab_of
from mcp_servers.quality_eval.local.look import own_change, ring_around, window_around
from mcp_servers.quality_eval.local.place import shrink, thickness
from mcp_servers.vision.scene import Scene, grey
from mcp_servers.vision.types import Field, Image, Mask

WORK = 512
"""Longer side, in pixels, above which the window around the defect is reduced."""
GREY = 1.0
"""Chroma (Lab) that hardly a pixel of a photo exceeds where the camera sees no colour."""
SURFACE = 0.25
"""Variance (grey levels squared) added to every texture: below this, 8-bit rounding decides."""


def measure_kind(normal: Image, anomaly: Image, mask: Mask, scene: Scene) -> dict[str, float]:
    """Evidence of the kind of the defect ``mask`` (H, W), not empty.

    core_thickness: as `thickness`, of the defect's core: where its change is above half its strength, rings filled; a
    bundle of lines that one outline encloses has a thin core. kept: correlation (-1..1) of the texture before and
    after inside the core; near 1 the surface itself runs on and only its colour changed. lightened: mean change of
    L in the core. tint: chroma (dE) that shading of the surface cannot explain, in the core. warmth: how far its
    warmest quarter turned towards brown and orange, -1 (all of it to blue or green) to 1. foreign: chroma (dE) of the
    core in a photo without any colour, else 0. lost: share of the defect on the part that looks as the ground outside
    it does.
    """
    n, a, m, part = _window(normal, anomaly, mask, scene.part)
    ring = ring_around(m, part)
    lab = lab_of(a)
    change = cv2.GaussianBlur(own_change(lab_of(n), lab, ring), (0, 0), 1.0)
    core = core_of(np.linalg.norm(change, axis=2).astype(np.float32), m)
    mean = change[core].mean(axis=0)
    own = np.median(lab[ring][:, 1:], axis=0)
    colours = change[core][:, 1:]
    out = {"core_thickness": thickness(core), "kept": kept(grey(n), grey(a), core), "lightened": float(mean[0])}
    out["tint"] = float(np.hypot(*tinted(mean[1:], own)))
    warm = colours @ np.array([0.5, 0.87]) / (np.linalg.norm(colours, axis=1) + 4.0)
    out["warmth"] = float(np.percentile(warm, 75))
    out["foreign"] = 0.0
    if colourless(normal):
        out["foreign"] = float(np.percentile(np.linalg.norm(lab[core][:, 1:] - own, axis=1), 75))
    out["lost"] = lost(anomaly, mask, scene)
    return out


def _window(normal: Image, anomaly: Image, mask: Mask, part: Mask) -> tuple[Image, Image, Mask, Mask]:
    """Photos, defect and part around the defect, at most ``WORK`` px big; the defect is never empty."""
    window = window_around(mask)
    n, a, m, p = normal[window], anomaly[window], mask[window], part[window]
    scale = min(1.0, WORK / max(m.shape))
    if scale < 1:
        size = (max(1, round(m.shape[1] * scale)), max(1, round(m.shape[0] * scale)))
        n, a = (np.asarray(cv2.resize(x, size, interpolation=cv2.INTER_AREA), np.uint8) for x in (n, a))
        m, p = shrink(m, scale), shrink(p, scale)
    return n, a, m if m.any() else np.ones_like(m), p


def core_of(change: Field, mask: Mask) -> Mask:
    """Pixels of ``mask`` that changed (dE) by more than half the 90th percentile, and what they enclose."""
    core = mask & (change > 0.5 * float(np.percentile(change[mask], 90)))
    filled = fill_holes(core, 0.5 * np.count_nonzero(mask)) & mask
    return filled if filled.any() else mask


def kept(before: Field, after: Field, core: Mask) -> float:
    """Correlation of the texture below 2 px before and after, -1..1, over the core; 0 where there is none.

    Clear of the border by 4 px where the core is wide enough: its step is no texture.
    """
    inner = [cv2.erode(core.astype(np.uint8), ellipse(radius), borderValue=1) > 0 for radius in (4, 1)]
    where = next((area for area in inner if np.count_nonzero(area) >= 40), core)
    x, y = ((p - cv2.GaussianBlur(p, (0, 0), 2.0))[where] for p in (before, after))
    x, y = x - x.mean(), y - y.mean()
    return float(np.mean(x * y) / np.sqrt((np.mean(x * x) + SURFACE) * (np.mean(y * y) + SURFACE)))


def tinted(change: Field, own: Field) -> Field:
    """The part of a change of colour (a, b) that no shading of a surface of the colour ``own`` (a, b) gives.

    Shade and highlights scale the surface's own colour: up by a third, or down to none.
    """
    chroma = float(np.hypot(*own))
    if chroma < 2:
        return change
    along = own / chroma
    explained = float(np.clip(change @ along, -chroma, 0.33 * chroma))
    return np.asarray(change - explained * along)


def colourless(photo: Image) -> bool:
    """Whether a photo has no colour at all, as a monochrome camera's (99% of its pixels within `GREY`)."""
    small = cv2.resize(photo, (64, 64), interpolation=cv2.INTER_AREA)
    return float(np.percentile(np.linalg.norm(lab_of(small)[..., 1:], axis=2), 99)) < GREY


def lost(anomaly: Image, mask: Mask, scene: Scene) -> float:
    """Share of the defect on the part whose colour is that of the ground nearby and not the part's; 0 for textures."""
    if scene.kind == "texture":
        return 0.0
    scale = min(1.0, WORK / max(mask.shape))
    size = (max(1, round(mask.shape[1] * scale)), max(1, round(mask.shape[0] * scale)))
    lab = lab_of(cv2.resize(anomaly, size, interpolation=cv2.INTER_AREA))
    m, part = shrink(mask, scale), shrink(scene.part, scale)
    on = cv2.erode(part.astype(np.uint8), ellipse(1)).astype(bool) & m
    near = cv2.distanceTransform((~m).astype(np.uint8), cv2.DIST_L2, 5) <= 25
    ground = near & ~(cv2.dilate(part.astype(np.uint8), ellipse(3)) > 0) & ~m
    surface = near & part & ~m
    if not on.any() or np.count_nonzero(ground) < 30 or np.count_nonzero(surface) < 30:
        return 0.0
    to_ground, to_part = (np.linalg.norm(lab[on] - np.median(lab[w], axis=0), axis=1) for w in (ground, surface))
    return float(np.mean((to_ground < 0.5 * to_part) & (to_ground < 12)))
