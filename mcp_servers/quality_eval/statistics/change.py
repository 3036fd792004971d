"""Where two photos differ, and what differs besides: a plain difference, once shift and colours are made equal.

Nothing here decides what a defect is. The result is the changed region and four figures of the change.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from mcp_servers.vision.types import Field, Image, Mask

SMALL = 512
"""Longer side, in pixels, of the copies on which a shift is looked for."""
LEAST = 1.2
"""Grey levels, averaged over a few pixels, below which a difference is rounding."""
REDRAWN = 5.0
"""The same where the whole photo was drawn anew, in other colours or at another place."""
PART_OF_PEAK = 0.3
"""Share of the strongest difference from which a pixel belongs to the changed region."""
ROOM = 24 / 512
"""Surroundings of the region, in longer sides of the photo, in which a leftover is still the region's own."""


@dataclass(frozen=True, slots=True)
class Change:
    """What an edit changed.

    ``region`` (H, W) is empty where nothing, or nothing but colours and place, changed. ``peak``: strongest difference
    in grey levels. ``repainted``: mean difference (grey levels) of the colours that the whole photo took on.
    ``moved``: shift of the photo in percent of its longer side. ``leftover``: share of the photo away from the region's
    main piece that changed at least half as much as the region's own pixels must.
    """

    region: Mask
    peak: float
    repainted: float
    moved: float
    leftover: float


def compare(normal: Image, anomaly: Image) -> Change:
    """The change from ``normal`` to ``anomaly``, both (H, W, 3) uint8 of one size."""
    difference = _strength(normal, anomaly)
    moved = repainted = usual = 0.0
    least = LEAST
    if np.count_nonzero(difference) > 0.5 * difference.size:
        difference, repainted, moved = _redrawn(normal, anomaly)
        usual, least = float(np.median(difference)), REDRAWN
    peak = float(difference.max())
    if peak < least + 3 * usual:
        return Change(np.zeros(difference.shape, bool), peak, repainted, moved, 0.0)
    region = np.asarray(difference > max(least, PART_OF_PEAK * peak, 3 * usual))
    reach = 2 * max(2, round(ROOM * max(region.shape))) + 1
    near = cv2.dilate(_main_piece(region, difference).astype(np.uint8), np.ones((reach, reach), np.uint8)) > 0
    changed = difference > max(least, 0.5 * PART_OF_PEAK * peak, 3 * usual)
    return Change(region, peak, repainted, moved, float(np.mean(changed & ~near)))


def _redrawn(normal: Image, anomaly: Image) -> tuple[Field, float, float]:
    """Difference, `Change.repainted` and `Change.moved` where hardly a pixel stayed as it was."""
    toned = _in_colours_of(normal, anomaly)
    repainted = float(cv2.absdiff(toned, normal).mean())
    difference = _strength(toned, anomaly)
    shifted, moved = _under(toned, anomaly)
    if moved:
        again = _strength(_in_colours_of(shifted, anomaly), anomaly)
        if float(again.mean()) < 0.8 * float(difference.mean()):
            return again, repainted, moved
    return difference, repainted, 0.0


def _main_piece(region: Mask, difference: Field) -> Mask:
    """The connected piece of the region that changed most in all."""
    count, pieces = cv2.connectedComponents(region.astype(np.uint8), connectivity=8)
    weights = np.bincount(pieces[region], weights=difference[region], minlength=count)
    return np.asarray(pieces == 1 + int(weights[1:].argmax()))


def _strength(normal: Image, anomaly: Image) -> Field:
    """(H, W): largest difference of a channel in grey levels, averaged over a pixel's neighbours."""
    red, green, blue = cv2.split(cv2.absdiff(normal, anomaly))
    largest = np.asarray(cv2.max(cv2.max(red, green), blue), np.float32)
    return np.asarray(cv2.GaussianBlur(largest, (0, 0), max(0.8, max(largest.shape) / 640)), np.float32)


def _under(normal: Image, anomaly: Image) -> tuple[Image, float]:
    """The good photo moved to lie under the edited one (phase correlation), and by how much (percent)."""
    scale = min(1.0, SMALL / max(normal.shape[:2]))
    before, after = (
        np.asarray(
            cv2.cvtColor(cv2.resize(photo, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2GRAY),
            np.float32,
        )
        for photo in (normal, anomaly)
    )
    window = cv2.createHanningWindow((before.shape[1], before.shape[0]), cv2.CV_32F)
    (x, y), response = cv2.phaseCorrelate(before, after, window)
    length = float(np.hypot(x, y))
    if response < 0.1 or not 0.25 <= length <= 0.1 * max(before.shape):
        return normal, 0.0
    move = np.array([[1, 0, x / scale], [0, 1, y / scale]], np.float32)
    size = (normal.shape[1], normal.shape[0])
    moved = cv2.warpAffine(normal, move, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(moved, np.uint8), 100 * length / max(before.shape)


def _in_colours_of(normal: Image, anomaly: Image) -> Image:
    """The good photo in the edited one's colours: each level becomes the median of what the edit made of it."""
    curves = np.empty((1, 256, 3), np.uint8)
    for channel in range(3):
        joint = normal[..., channel].astype(np.int64) * 256 + anomaly[..., channel]
        counts = np.bincount(joint.ravel(), minlength=1 << 16).reshape(256, 256)
        known = np.flatnonzero(counts.any(axis=1))
        half = (counts[known].sum(axis=1, keepdims=True) + 1) // 2
        middle = (np.cumsum(counts[known], axis=1) >= half).argmax(axis=1)
        curves[0, :, channel] = np.rint(np.interp(np.arange(256), known, middle))
    return np.asarray(cv2.LUT(normal, curves), np.uint8)
