"""Is a defect removed well enough for its photo to pass as a good part? Measured, since a bad twin teaches bad edits."""

from __future__ import annotations

import cv2
import numpy as np

from mcp_servers.mask_gen.local import find_mask
from mcp_servers.mask_gen.local.shape import ellipse, lab_of
from mcp_servers.vision.pixels import percentile
from mcp_servers.vision.scene import analyse
from mcp_servers.vision.types import Field, Image, Mask

COVERED = 0.25
"""Share of the true mask that mask_gen must find when it compares the two photos: the defect was there and is gone."""
SMOOTHER, ROUGHER = 0.4, 2.2
"""Fine detail of the filled surface over that of the surface around, outside of which it reads as a smear or a patch."""
BLOB = 9.0
"""How far (L*, a*, b*) the filled surface's shading may leave the range that the surface around it has."""
SEAM = 2.2
"""Steepness along the hole's border over what the surface has elsewhere, from which a seam shows."""


def measure_removal(anomaly: Image, normal: Image, mask: Mask, hole: Mask) -> dict[str, float]:
    """Figures of one removal; ``normal`` (H, W, 3) is ``anomaly`` with the ``hole`` (H, W) filled, around the ``mask``.

    covered: share of the mask that mask_gen finds. detail: fine detail in the hole over that around it. blob: how far
    the hole's shading leaves the range around it (dE). seam: gradient on the hole's border over that around it.
    """
    found = find_mask(normal, anomaly)
    part = analyse(normal).part
    near = max(6, round(0.08 * max(mask.shape)))
    around = (cv2.dilate(hole.astype(np.uint8), ellipse(near)) > 0) & ~hole & part
    inside = hole & part
    if np.count_nonzero(around) < 100 or not inside.any():
        around = part & ~hole if np.count_nonzero(part & ~hole) >= 100 else ~hole
        inside = inside if inside.any() else hole
    lab = lab_of(normal)
    light = lab[..., 0]
    fine = np.abs(light - cv2.GaussianBlur(light, (0, 0), 1.5))
    # an outline inside the hole or beside it is no texture
    calm = cv2.erode(part.astype(np.uint8), ellipse(4), borderValue=1) > 0
    core, rim = (side & calm if np.count_nonzero(side & calm) > 50 else side for side in (inside, around))
    detail = (percentile(fine[core], 60) + 0.15) / (percentile(fine[rim], 60) + 0.15)
    shade = cv2.GaussianBlur(lab, (0, 0), max(2.0, 0.012 * max(mask.shape)))
    border = (
        (cv2.dilate(hole.astype(np.uint8), ellipse(1)) > 0)
        & (cv2.erode(hole.astype(np.uint8), ellipse(1), borderValue=1) == 0)
        & calm
    )
    slope = np.abs(cv2.Laplacian(cv2.GaussianBlur(light, (0, 0), 0.8), cv2.CV_32F))
    seam = (float(slope[border].mean()) + 0.3) / (float(slope[rim].mean()) + 0.3) if border.any() else 1.0
    return {
        "covered": float((found.mask & mask).sum()) / float(mask.sum()),
        "detail": detail,
        "blob": _beyond(shade, core, rim),
        "seam": seam,
    }


def objection(anomaly: Image, normal: Image, mask: Mask, hole: Mask) -> str:
    """Why the good photo must not be used, "" where it may."""
    m = measure_removal(anomaly, normal, mask, hole)
    if m["covered"] < COVERED:
        return "not visible: the defect can hardly be told from the good surface"
    if m["detail"] < SMOOTHER:
        return "smeared: the filled surface has lost its texture"
    if m["detail"] > ROUGHER:
        return "rough: the filled surface is busier than its surroundings"
    if m["blob"] > BLOB:
        return "shaded: the filled surface has light or dark places that the good one has not"
    return "seam: the border of the filled place shows" if m["seam"] > SEAM else ""


def _beyond(shade: Field, inside: Mask, around: Mask) -> float:
    """How far the 4th and 96th percentile inside leave the range around, the largest over the channels."""
    out = 0.0
    for channel in range(3):
        values, usual = shade[..., channel][inside], shade[..., channel][around]
        low, high = percentile(usual, 2), percentile(usual, 98)
        out = max(out, low - percentile(values, 4), percentile(values, 96) - high)
    return out
