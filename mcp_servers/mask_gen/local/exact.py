"""Most pixels identical: the difference itself is the evidence, only its soft rim has to be judged."""

from __future__ import annotations

import math

import cv2
import numpy as np

from mcp_servers.mask_gen.local.result import MaskResult, found, nothing
from mcp_servers.mask_gen.local.shape import close_gaps, drop_specks, ellipse, fill_holes, lab_of, pieces
from mcp_servers.vision.pixels import differs, length, percentile
from mcp_servers.vision.types import Field, Image, Mask

IDENTICAL = 0.35
"""Share of identical pixels from which a pair counts as "the same photo with an edit in it"."""
FLOOR = 1.2
"""Smallest locally averaged colour difference (dE) that a person would notice in a side-by-side look."""
FAINT = 0.5
"""Differences (dE) below this are the last trace of a fading rim, even of a strong defect."""
RIM = {1.0: 0.08, 7.0: 0.3}
"""Width (px) over which the change's rim fades in -> share of its strength from which a pixel is the defect.

Where nothing else changed, a hard rim is the editor's own outline; a wide soft one is cut where it starts to show.
"""
WIDEST = 12
"""Largest width of a rim, in pixels."""
REACH = 1.5
"""Distance, in widths of the rim, within which a pixel is held against the strongest change: a stroke across a dark and
a bright surface differs much on one of them and little on the other, and is one defect all the same."""
CLEAR = 2.5
"""Mean change of colour (dE over some 7 px) from which a change far from any stronger one is part of the defect."""
SPECK = 0.002
"""Pieces with less than this share of the weightiest piece's summed difference are dropped."""
WORK = 1536
"""Longer side, in pixels, above which the changed box is measured on a reduced copy."""


def same_photo(normal: Image, changed: Mask) -> bool:
    """Whether enough pixels are identical for the difference itself to be the edit.

    Clipped black and white survive any recolouring, so pixels that are not clipped decide where there are any.
    """
    usual = (normal - 4) < 248  # uint8: what is below 4 wraps around
    telling = usual[..., 0] | usual[..., 1] | usual[..., 2]
    identical = ~changed[telling] if np.count_nonzero(telling) >= 0.01 * telling.size else ~changed
    return float(identical.mean()) >= IDENTICAL


def find_exact(normal: Image, anomaly: Image, changed: Mask) -> MaskResult:
    """The defect that the ``changed`` pixels (H, W) show.

    As nothing else changed, sensitivity is high: every piece that can be seen at all counts, down to a small share of
    its colour difference (dE, Lab), which depends on how wide its rim fades (`RIM`). Gaps are closed, holes filled.
    """
    shape = changed.shape
    if not changed.any():
        return nothing(shape, 1.0, "exact", (0.0, 0.0), "the two photos are identical")
    x, y, width, height = cv2.boundingRect(changed.view(np.uint8))
    top, bottom, left, right = max(0, y - 4), min(shape[0], y + height + 4), max(0, x - 4), min(shape[1], x + width + 4)
    window = (slice(top, bottom), slice(left, right))
    difference, coherent, support = _measure(normal[window], anomaly[window], changed[window])
    piece = _outline(difference, coherent, support)
    if not piece.any():
        strength = percentile(difference[support], 90) if support.any() else 0.0
        why = f"what changed differs by {strength:.1f} dE, too faint to be seen ({FLOOR:.1f} dE is just visible)"
        return nothing(shape, 0.7, "exact", (0.0, 0.0), why)
    strength = percentile(difference[piece], 75)
    if piece.shape != changed[window].shape:
        size = (right - left, bottom - top)
        piece = cv2.resize(piece.astype(np.float32), size, interpolation=cv2.INTER_LINEAR) > 0.5
    mask = np.zeros(shape, bool)
    mask[window] = piece
    return found(mask, float(np.clip(0.5 + 0.5 * (strength - FLOOR) / 10, 0.0, 1.0)), "exact", (0.0, 0.0))


def _outline(difference: Field, coherent: Field, support: Mask) -> Mask:
    """Pixels of ``support`` that belong to the defect, given the local and the coherent difference (dE); all (H, W)."""
    out = np.zeros(support.shape, bool)
    for window, piece in pieces(close_gaps(support, 1), max(2, round(0.004 * max(support.shape)))):
        local, inside = difference[window], piece & support[window]
        strength = percentile(local[inside], 90) if inside.any() else 0.0
        if strength < FLOOR:
            continue
        width = fade(local / strength, piece)
        share = float(np.interp(width, list(RIM), list(RIM.values())))
        nearby = _nearby(coherent[window], math.ceil(REACH * width) + 2, strength)
        least = np.maximum(FAINT, share * nearby)
        out[window] |= close_gaps(inside & (local >= least), 2) & piece
    filled = fill_holes(out, 0.5 * np.count_nonzero(out))
    return drop_specks(filled, difference, max(3.0, 1e-5 * out.size), SPECK)


def _nearby(coherent: Field, reach: int, strength: float) -> Field:
    """The strongest change (dE) within ``reach`` px, at most ``strength``; else ``strength`` where none is clear.

    One stroke differs more on one ground than on another; redrawn grain has no direction, so it is no such stroke.
    """
    nearby = cv2.dilate(coherent, ellipse(reach))
    return np.where(nearby >= CLEAR, np.minimum(nearby, strength), strength).astype(np.float32)


def fade(relative: Field, piece: Mask) -> float:
    """Width (px, at most ``WIDEST``) of a piece's rim: its layers from outside whose median is below 0.3.

    ``relative``: (H, W) difference as a share of the piece's strength.
    """
    depth = cv2.distanceTransform(np.pad(piece, 1).astype(np.uint8), cv2.DIST_L2, 3)[1:-1, 1:-1]
    for layer in range(WIDEST):
        values = relative[(depth > layer) & (depth <= layer + 1)]
        if values.size < 8 or float(np.median(values)) >= 0.3:
            return float(layer)
    return float(WIDEST)


def _measure(normal: Image, anomaly: Image, changed: Mask) -> tuple[Field, Field, Mask]:
    """Colour difference (dE) averaged over the changed pixels nearby, the size of the mean change of colour around, and
    the changed pixels; at most ``WORK`` px big."""
    scale = WORK / max(changed.shape)
    if scale < 1:
        size = (max(1, round(changed.shape[1] * scale)), max(1, round(changed.shape[0] * scale)))
        normal = cv2.resize(normal, size, interpolation=cv2.INTER_AREA)
        anomaly = cv2.resize(anomaly, size, interpolation=cv2.INTER_AREA)
        changed = differs(normal, anomaly)
    change = lab_of(anomaly) - lab_of(normal)
    weight = cv2.GaussianBlur(changed.astype(np.float32), (0, 0), 0.7)
    mean = cv2.GaussianBlur(length(change), (0, 0), 0.7) / np.maximum(weight, 0.05)
    coherent = length(cv2.GaussianBlur(change, (0, 0), 2.0))
    return np.where(changed, mean, 0).astype(np.float32), coherent, changed
