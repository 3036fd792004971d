"""The part in front of its ground, by the colours along the picture's border."""

from __future__ import annotations

import cv2
import numpy as np

from mcp_servers.vision.types import Field, Image, Mask

SMALL = 192
"""Longer side, in pixels, of the copy on which the part is looked for."""
COLOURS = 3
"""Colours that a ground may have."""


def part_in(normal: Image, anomaly: Image) -> tuple[Mask, bool]:
    """`part_of` the good photo, or of the edited one where that shows the same part and much more of it.

    A good photo that was made by painting over half of a part has lost that half; a spot never adds as much.
    """
    part, has_ground = part_of(normal)
    if has_ground:
        other, other_ground = part_of(anomaly)
        before, both = np.count_nonzero(part), np.count_nonzero(part & other)
        if other_ground and both > 0.9 * before and np.count_nonzero(other) > 1.15 * before:
            return other, True
    return part, has_ground


def part_of(photo: Image) -> tuple[Mask, bool]:
    """The part (H, W) and whether there is a ground around it; all True where there is none.

    A pixel is as likely ground as its colour is near one of `COLOURS` colours of the border, in units of what they vary
    by. Otsu's threshold parts the two; the ground must reach the border, and the part must hardly do so.
    """
    height, width = photo.shape[:2]
    scale = min(1.0, SMALL / max(height, width))
    size = (max(16, round(width * scale)), max(16, round(height * scale)))
    lab = cv2.cvtColor(cv2.resize(photo, size, interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2LAB).astype(np.float32)
    lab = cv2.GaussianBlur(lab, (0, 0), 1.0)
    frame = np.zeros(lab.shape[:2], bool)
    rim = max(2, round(0.03 * min(size)))
    frame[:rim], frame[-rim:], frame[:, :rim], frame[:, -rim:] = True, True, True, True
    away = _distance(lab, lab[frame])
    levels = np.asarray(np.clip(20 * away, 0, 255), np.uint8)
    threshold, _ = cv2.threshold(levels, 0, 255, cv2.THRESH_BINARY | cv2.THRESH_OTSU)
    front = np.asarray(levels > min(max(threshold, 60.0), 100.0), np.uint8)
    front = cv2.morphologyEx(front, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    front = cv2.morphologyEx(front, cv2.MORPH_CLOSE, np.ones((5, 5), np.uint8))
    part = _filled(front)
    everything = np.ones((height, width), bool)
    if not 0.04 <= part.mean() <= 0.9 or part[frame].mean() > 0.2:
        return everything, False
    if np.median(away[part]) < 3 * np.median(away[~part]):
        return everything, False
    whole = cv2.resize(part.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR) > 0.5
    return (np.asarray(whole), True) if whole.any() else (everything, False)


def _distance(lab: Field, border: Field) -> Field:
    """(H, W): distance to the nearest of the border's colours over its standard deviation (2 levels at least)."""
    start = (np.argsort(np.argsort(border[:, 0], kind="stable"), kind="stable") * COLOURS // len(border)).astype(
        np.int32
    )
    criteria = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_MAX_ITER, 20, 0.1)
    _, labels, centres = cv2.kmeans(border, COLOURS, start[:, None], criteria, 1, cv2.KMEANS_USE_INITIAL_LABELS)
    near = np.full(lab.shape[:2], np.inf, np.float32)
    for label, centre in enumerate(centres):
        own = border[labels.ravel() == label]
        if len(own) < 0.1 * len(border):
            continue
        spread = np.maximum(own.std(axis=0), 2.0)
        near = np.minimum(near, np.sqrt(np.square((lab - centre) / spread).mean(axis=2)))
    return np.asarray(near, np.float32)


def _filled(front: Mask) -> Mask:
    """The largest piece, with what it encloses."""
    contours, _ = cv2.findContours(front.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    out = np.zeros(front.shape, np.uint8)
    if contours:
        cv2.drawContours(out, [max(contours, key=cv2.contourArea)], -1, 1, cv2.FILLED)
    return np.asarray(out > 0)
