"""What changed outside the defect: the whole picture's colours, or other places that were left unnamed."""

from __future__ import annotations

import cv2
import numpy as np

from mcp_servers.mask_gen.local import MaskResult
from mcp_servers.mask_gen.local.register import tone
from mcp_servers.mask_gen.local.shape import ellipse, lab_of
from mcp_servers.vision.pixels import length, median
from mcp_servers.vision.types import Field, Image, Mask

WORK = 256
"""Longer side, in pixels, of the copies on which the rest of the picture is compared."""
SEEN = 6.0
"""Colour difference (dE), averaged over a patch, that a person sees without looking for it."""


def matched(normal: Image, anomaly: Image, found: MaskResult) -> Image:
    """The good photo in the edited one's colours, where the editor redrew the whole picture; else as it is."""
    if found.method == "exact":
        return normal
    return np.clip(np.rint(tone(normal, anomaly, away_from(found.mask))), 0, 255).astype(np.uint8)


def away_from(mask: Mask) -> Mask:
    """Pixels 3 px clear of the defect, or all where it leaves hardly any."""
    away = cv2.dilate(mask.astype(np.uint8), ellipse(3)) == 0
    return np.asarray(away if away.mean() > 0.02 else np.ones_like(away))


def measure_outside(normal: Image, toned: Image, anomaly: Image, found: MaskResult) -> dict[str, float]:
    """What is not the defect's: ``normal`` is the good photo, ``toned`` the same in the edited photo's colours.

    recolour: median colour difference (dE) outside the defect. elsewhere: share of the picture outside the defect that
    differs visibly, a patch at a time, once colours are matched. drift: displacement of the photo in percent of its
    longer side.
    """
    drift = 100 * float(np.hypot(*found.shift)) / max(found.mask.shape)
    if found.method == "exact":
        return {"recolour": 0.0, "elsewhere": 0.0, "drift": drift}
    before, same, after = (_small(photo) for photo in (normal, toned, anomaly))
    size = (after.shape[1], after.shape[0])
    mask = cv2.resize(found.mask.astype(np.float32), size, interpolation=cv2.INTER_AREA) > 0
    away = cv2.dilate(mask.astype(np.uint8), ellipse(6)) == 0
    if not away.any():
        return {"recolour": 0.0, "elsewhere": 0.0, "drift": drift}
    left = length(cv2.GaussianBlur(after - same, (0, 0), 3.0))
    return {
        "recolour": median(length(after - before)[away]),
        "elsewhere": float(np.mean((left > SEEN) & away)),
        "drift": drift,
    }


def _small(photo: Image) -> Field:
    """Lab of a copy of at most ``WORK`` px."""
    scale = min(1.0, WORK / max(photo.shape[:2]))
    size = (max(1, round(photo.shape[1] * scale)), max(1, round(photo.shape[0] * scale)))
    return lab_of(cv2.resize(photo, size, interpolation=cv2.INTER_AREA))
