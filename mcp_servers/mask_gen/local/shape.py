"""From a field of differences to the outline of the visible defect: hysteresis and morphology."""

from __future__ import annotations

import cv2
import numpy as np

from mcp_servers.vision.scene import Field, Image, Mask


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


def group(mask: Mask, reach: int) -> tuple[int, np.ndarray[tuple[int, int], np.dtype[np.int32]]]:
    """Label the pixels of ``mask``, pieces nearer than ``2 reach`` px sharing a label; (count with 0, labels)."""
    near = cv2.dilate(mask.astype(np.uint8), ellipse(reach)) if reach > 0 else mask.astype(np.uint8)
    count, labels = cv2.connectedComponents(near, connectivity=8)
    return count, np.asarray(np.where(mask, labels, 0).astype(np.int32))


def visible(difference: Field, support: Mask, floor: float, masking: float = 0.0, sure: Mask | None = None) -> Mask:
    """The visible defect inside ``support``: hysteresis relative to each piece's own strength.

    difference: (H, W) colour difference (dE), locally averaged. Pixels above half the piece's strength (the 90th
    percentile of its ``sure`` pixels, where given) seed the mask; neighbours join from a quarter of it, or from
    ``masking`` (dE, what the texture hides) but at most 45% of it. Both need about ``floor`` (dE). Gaps that are
    small against the piece are closed, enclosed holes filled, specks dropped.
    """
    out = np.zeros(support.shape, bool)
    reach = max(1, round(0.004 * max(support.shape)))
    count, labels = group(support, reach)
    for label in range(1, count):
        piece = labels == label
        if not piece.any():
            continue
        core = piece & sure if sure is not None and (piece & sure).any() else piece
        strength = float(np.percentile(difference[core], 90))
        if strength < floor:
            continue
        low = float(np.clip(masking / strength, 0.22, 0.45))
        strong = piece & (difference >= max(floor, (low + 0.28) * strength))
        weak = piece & (difference >= max(0.7 * floor, low * strength))
        out |= hysteresis(strong, weak)
    return tidy(out, difference)


def tidy(mask: Mask, difference: Field) -> Mask:
    """Close small gaps, fill enclosed holes, drop specks, all relative to the mask's own size."""
    if not mask.any():
        return mask
    size = float(np.sqrt(np.count_nonzero(mask)))
    closed = close_gaps(mask, int(np.clip(round(0.06 * size), 1, 12)))
    filled = fill_holes(closed, 0.5 * np.count_nonzero(closed))
    return drop_specks(filled, difference, max(3.0, 1e-5 * mask.size))
