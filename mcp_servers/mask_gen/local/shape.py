"""From a field of differences to the outline of the visible defect: hysteresis and morphology."""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np

from mcp_servers.vision.pixels import percentile
from mcp_servers.vision.types import Field, Image, Mask


def lab_of(rgb: Image | Field) -> Field:
    """(H, W, 3) sRGB in 0-255 to CIE Lab float32: L in 0-100, a and b in about -128..127."""
    return np.asarray(cv2.cvtColor(rgb.astype(np.float32) / 255, cv2.COLOR_RGB2LAB))


def hysteresis(strong: Mask, weak: Mask) -> Mask:
    """The 8-connected pieces of ``weak`` that hold at least one pixel of ``strong``; both (H, W)."""
    count, labels = cv2.connectedComponents((weak | strong).astype(np.uint8), connectivity=8)
    keep = np.zeros(count, bool)
    keep[labels[strong]] = True
    keep[0] = False
    return np.asarray(keep[labels])


def ellipse(radius: int) -> Mask:
    """Disc-shaped kernel (2 radius + 1) squared, uint8, for cv2 morphology."""
    return np.asarray(cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1)))


def close_gaps(mask: Mask, radius: int) -> Mask:
    """Morphological closing that does not stick to the picture's border."""
    if radius < 1:
        return mask
    padded = cv2.copyMakeBorder(mask.astype(np.uint8), radius, radius, radius, radius, cv2.BORDER_CONSTANT)
    closed = cv2.morphologyEx(padded, cv2.MORPH_CLOSE, ellipse(radius))
    return np.asarray(closed[radius:-radius, radius:-radius] > 0)


def fill_holes(mask: Mask, largest: float) -> Mask:
    """Fill enclosed holes of at most ``largest`` pixels."""
    _, labels, stats, _ = cv2.connectedComponentsWithStats((~mask).astype(np.uint8), connectivity=4)
    height, width = mask.shape
    x, y, w, h, area = (stats[:, i] for i in range(5))
    enclosed = (x > 0) & (y > 0) & (x + w < width) & (y + h < height) & (area <= largest)
    enclosed[0] = False
    return np.asarray(mask | enclosed[labels])


def drop_specks(mask: Mask, strength: Field, least: float, relative: float = 0.03) -> Mask:
    """Drop pieces below ``least`` pixels or with less than ``relative`` of the weightiest piece's summed strength."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    if count < 2:
        return mask
    weight = np.bincount(labels.ravel(), weights=strength.ravel().astype(np.float64), minlength=count)
    keep = (stats[:, cv2.CC_STAT_AREA] >= least) & (weight >= relative * weight[1:].max())
    keep[0] = False
    return np.asarray(keep[labels])


def pieces(mask: Mask, reach: int) -> Iterator[tuple[tuple[slice, slice], Mask]]:
    """The pieces of a mask (H, W), parts nearer than ``2 reach`` px taken together.

    Each is a window of the picture, ``reach`` px wider than the piece, and the piece's mask in that window.
    """
    near = cv2.dilate(mask.astype(np.uint8), ellipse(reach)) if reach > 0 else mask.astype(np.uint8)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(near, connectivity=8)
    for label in range(1, count):
        x, y, width, height = (int(v) for v in stats[label, :4])
        window = (slice(y, y + height), slice(x, x + width))
        yield window, np.asarray(mask[window] & (labels[window] == label))


def visible(difference: Field, support: Mask, floor: float, sure: Mask | None = None) -> Mask:
    """The visible defect inside ``support``: hysteresis relative to each piece's own strength.

    difference: (H, W) colour difference (dE), locally averaged. Pixels above half the piece's strength (the 90th
    percentile of its ``sure`` pixels, where given) seed the mask; neighbours join from 22% of it. Both need about
    ``floor`` (dE). Gaps that are small against the piece are closed, enclosed holes filled, specks dropped.
    """
    out = np.zeros(support.shape, bool)
    reach = max(1, round(0.004 * max(support.shape)))
    for window, piece in pieces(support, reach):
        local = difference[window]
        certain = piece & sure[window] if sure is not None else piece
        strength = percentile(local[certain if certain.any() else piece], 90)
        if strength < floor:
            continue
        strong = piece & (local >= max(floor, 0.5 * strength))
        weak = piece & (local >= max(0.7 * floor, 0.22 * strength))
        out[window] |= hysteresis(strong, weak)
    return tidy(out, difference)


def tidy(mask: Mask, difference: Field) -> Mask:
    """Close small gaps, fill enclosed holes, drop specks, all relative to the mask's own size."""
    if not mask.any():
        return mask
    size = float(np.sqrt(np.count_nonzero(mask)))
    closed = close_gaps(mask, int(np.clip(round(0.06 * size), 1, 12)))
    filled = fill_holes(closed, 0.5 * np.count_nonzero(closed))
    return drop_specks(filled, difference, max(3.0, 1e-5 * mask.size))
