"""Is a defect removed well enough for its photo to pass as a good part? A bad twin would teach bad edits."""

from __future__ import annotations

import cv2
import numpy as np

from mcp_servers.mask_gen.local import find_mask
from mcp_servers.mask_gen.local.shape import ellipse, lab_of
from mcp_servers.vision.pixels import percentile
from mcp_servers.vision.scene import analyse
from mcp_servers.vision.types import Field, Image, Mask

LARGEST = 0.25
"""Share of a frame-filling surface that may be filled; a part with an outline may be filled as a whole."""
FLAT = 0.2
"""Lightness (L*) that is added to what is compared, so that flat surfaces do not make ratios of noise."""
COVERED = 0.25
"""Share of the true mask that mask_gen must find between the two photos: the defect was there and is gone."""
SMOOTHER, ROUGHER = 0.6, 1.5
"""Fine detail of the filled surface over the least and over the most that the part has elsewhere, outside of which it
reads as a smear or as a patch."""
BLOB = 9.0
"""How far (dE) the filled surface's shading may leave the range that the surface around it has."""
SEAM = 1.5
"""Kinks along the hole's border over the most that the part has elsewhere, from which a seam shows."""


def measure_removal(anomaly: Image, normal: Image, mask: Mask, hole: Mask) -> dict[str, float]:
    """Figures of one removal; ``normal`` (H, W, 3) is ``anomaly`` with the ``hole`` (H, W) filled, around the ``mask``.

    covered: share of the mask that mask_gen finds. smooth, rough: fine detail in the hole over the least and the most
    that places of its size have elsewhere on the part. blob: how far (dE) the hole's shading leaves the range around
    it. seam: kinks on the hole's border over the most elsewhere.
    """
    found = find_mask(normal, anomaly)
    part = analyse(normal).part
    calm = cv2.erode(part.astype(np.uint8), ellipse(4), borderValue=1) > 0  # an outline is no texture
    near = max(6, round(0.08 * max(mask.shape)))
    around = (cv2.dilate(hole.astype(np.uint8), ellipse(near)) > 0) & ~hole & part
    core = hole & (calm if (hole & calm).any() else True)
    lab = lab_of(normal)
    light = lab[..., 0]
    fine = np.abs(light - cv2.GaussianBlur(light, (0, 0), 1.5))
    kinks = np.abs(cv2.Laplacian(cv2.GaussianBlur(light, (0, 0), 0.8), cv2.CV_32F))
    border = cv2.dilate(hole.astype(np.uint8), ellipse(1)) != cv2.erode(
        hole.astype(np.uint8), ellipse(1), borderValue=1
    )
    border &= calm
    low, high = _elsewhere(fine, hole, calm)
    seam = float(kinks[border].mean()) if border.any() else 0.0
    detail = float(fine[core].mean())
    shade = cv2.GaussianBlur(lab, (0, 0), max(2.0, 0.012 * max(mask.shape)))
    return {
        "covered": float((found.mask & mask).sum()) / float(mask.sum()),
        "smooth": (detail + FLAT) / (low + FLAT),
        "rough": (detail + FLAT) / (high + FLAT),
        "blob": _beyond(shade, core, around) if np.count_nonzero(around) >= 100 else 0.0,
        "seam": (seam + FLAT) / (_elsewhere(kinks, hole, calm)[1] + FLAT),
    }


def objection(anomaly: Image, normal: Image, mask: Mask, hole: Mask) -> str:
    """Why the good photo must not be used, "" where it may."""
    if analyse(anomaly).kind == "texture" and hole.mean() > LARGEST:
        return "too large: so much surface would have to be made up"
    m = measure_removal(anomaly, normal, mask, hole)
    if m["covered"] < COVERED:
        return "not visible: the defect can hardly be told from the good surface"
    if m["smooth"] < SMOOTHER:
        return "smeared: the filled surface has lost its texture"
    if m["rough"] > ROUGHER:
        return "rough: the filled surface is busier than the part is anywhere"
    if m["blob"] > BLOB:
        return "shaded: the filled surface has light or dark places that its surroundings have not"
    return "seam: the border of the filled place shows" if m["seam"] > SEAM else ""


def _elsewhere(field: Field, hole: Mask, part: Mask) -> tuple[float, float]:
    """The 3rd and 99th percentile of a field's local mean on the part away from the hole, in windows like the hole.

    (0, infinity) where hardly any of it is left to compare with.
    """
    side = int(np.clip(np.sqrt(np.count_nonzero(hole)) / 2, 5, 0.15 * max(hole.shape)))
    away = (cv2.dilate(hole.astype(np.uint8), ellipse(side // 2 + 1)) == 0) & part
    if np.count_nonzero(away) < 200:
        return 0.0, float("inf")
    local = cv2.blur(field, (side, side))[away]
    return percentile(local, 3), percentile(local, 99)


def _beyond(shade: Field, inside: Mask, around: Mask) -> float:
    """How far the 4th and 96th percentile inside leave the range around, the largest over the channels."""
    out = 0.0
    for channel in range(3):
        values, usual = shade[..., channel][inside], shade[..., channel][around]
        low, high = percentile(usual, 2), percentile(usual, 98)
        out = max(out, low - percentile(values, 4), percentile(values, 96) - high)
    return out
