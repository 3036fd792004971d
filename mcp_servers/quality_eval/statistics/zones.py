"""The three zones that are compared: the region's core, a ring around it, and the rim between them."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from mcp_servers.vision.types import Image, Mask

SIDE = 640
"""Longer side, in pixels, above which the window around the region is reduced."""
FEW = 60
"""Pixels with whose weight a small core's figures are drawn towards those of the ring."""


@dataclass(frozen=True, slots=True)
class Zones:
    """A window of the edited photo around the region, and its zones, none of them empty; all (H, W).

    ``core``: the region 1 px clear of its outline where that leaves a third of it. ``trust``: 0 to 1, how far the
    core's own figures count.
    """

    photo: Image
    region: Mask
    core: Mask
    ring: Mask
    rim: Mask
    trust: float


def zones_of(photo: Image, region: Mask) -> Zones:
    """The zones of a region (H, W), not empty, of a photo (H, W, 3) uint8."""
    rows, columns = (np.flatnonzero(region.any(axis=axis)) for axis in (1, 0))
    margin = 16 + round(0.6 * np.sqrt(np.count_nonzero(region)))
    box = tuple(slice(max(0, int(line[0]) - margin), int(line[-1]) + 1 + margin) for line in (rows, columns))
    photo, region = photo[box], region[box]
    scale = min(1.0, SIDE / max(region.shape))
    if scale < 1:
        size = (max(1, round(region.shape[1] * scale)), max(1, round(region.shape[0] * scale)))
        shares = cv2.resize(region.astype(np.float32), size, interpolation=cv2.INTER_AREA)
        photo = np.asarray(cv2.resize(photo, size, interpolation=cv2.INTER_AREA), np.uint8)
        region = np.asarray(shares >= min(0.5, float(shares.max())))
    solid, three = region.astype(np.uint8), np.ones((3, 3), np.uint8)
    inner = cv2.erode(solid, three, borderValue=1) > 0
    core = inner if np.count_nonzero(inner) > 0.33 * np.count_nonzero(region) else region
    width = int(np.clip(0.4 * np.sqrt(np.count_nonzero(region)), 5, 30))
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * width + 7, 2 * width + 7))
    ring = (cv2.dilate(solid, disc) > 0) & (cv2.dilate(solid, np.ones((7, 7), np.uint8)) == 0)
    if np.count_nonzero(ring) < 30:
        ring = ~region if np.count_nonzero(~region) >= 30 else np.ones_like(region)
    rim = (cv2.dilate(solid, three) > 0) & (cv2.erode(solid, three, borderValue=1) == 0)
    count = float(np.count_nonzero(core))
    rim = rim if rim.any() else region  # a region that fills the window has no outline
    return Zones(photo, region, np.asarray(core), np.asarray(ring), np.asarray(rim), count / (count + FEW))


def log_ratio(inside: float, around: float, floor: float) -> float:
    """Natural logarithm of one amplitude over another, ``floor`` added to both."""
    return float(np.log((inside + floor) / (around + floor)))
