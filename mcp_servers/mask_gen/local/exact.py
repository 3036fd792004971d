"""Most pixels identical: the difference itself is the evidence, only its soft border has to be judged."""

from __future__ import annotations

import cv2
import numpy as np

from mcp_servers.mask_gen.local.result import MaskResult, found, nothing
from mcp_servers.mask_gen.local.shape import close_gaps, ellipse, lab_of, visible
from mcp_servers.vision.scene import Field, Image, Mask

IDENTICAL = 0.35
"""Share of identical pixels from which a pair counts as "the same photo with an edit in it"."""
FLOOR = 1.2
"""Smallest locally averaged colour difference (dE) that a person would notice in a side-by-side look."""
MASKING = 3.0
"""Differences below so many times the surface's own variation are lost in its texture."""
WORK = 1536
"""Longer side, in pixels, above which the changed box is measured on a reduced copy."""


def changed_pixels(normal: Image, anomaly: Image) -> Mask:
    """(H, W) bool: where any channel differs at all."""
    return np.asarray(cv2.absdiff(normal, anomaly).max(axis=2) > 0)


def same_photo(normal: Image, changed: Mask) -> bool:
    """Whether enough pixels are identical for the difference itself to be the edit.

    Clipped black and white survive any recolouring, so pixels that are not clipped decide where there are any.
    """
    telling = ((normal > 3) & (normal < 252)).any(axis=2)
    identical = ~changed[telling] if np.count_nonzero(telling) >= 0.01 * telling.size else ~changed
    return float(identical.mean()) >= IDENTICAL


def find_exact(normal: Image, anomaly: Image, changed: Mask) -> MaskResult:
    """The visible defect among the ``changed`` pixels (H, W).

    The colour difference dE (Lab) is averaged over about a pixel; hysteresis at shares of the defect's own
    strength, and above what the texture hides, leaves the feathered rim out; then gaps are closed, holes filled
    and specks dropped.
    """
    shape = changed.shape
    if not changed.any():
        return nothing(shape, 1.0, "exact", (0.0, 0.0), "the two photos are identical")
    ys, xs = np.flatnonzero(changed.any(1)), np.flatnonzero(changed.any(0))
    top, bottom = max(0, int(ys[0]) - 24), min(shape[0], int(ys[-1]) + 25)
    left, right = max(0, int(xs[0]) - 24), min(shape[1], int(xs[-1]) + 25)
    window = (slice(top, bottom), slice(left, right))
    difference, support, masking = _measure(normal[window], anomaly[window], changed[window])
    piece = visible(difference, close_gaps(support, 1), FLOOR, MASKING * masking)
    if not piece.any():
        strength = float(np.percentile(difference[support], 90)) if support.any() else 0.0
        why = f"what changed differs by {strength:.1f} dE, too faint to be seen ({FLOOR:.1f} dE is just visible)"
        return nothing(shape, 0.7, "exact", (0.0, 0.0), why)
    strength = float(np.percentile(difference[piece], 75))
    if piece.shape != changed[window].shape:
        size = (right - left, bottom - top)
        piece = cv2.resize(piece.astype(np.float32), size, interpolation=cv2.INTER_LINEAR) > 0.5
    mask = np.zeros(shape, bool)
    mask[window] = piece
    return found(mask, float(np.clip(0.5 + 0.5 * (strength - FLOOR) / 10, 0.0, 1.0)), "exact", (0.0, 0.0))


def _measure(normal: Image, anomaly: Image, changed: Mask) -> tuple[Field, Mask, float]:
    """Local mean colour difference (dE), changed pixels and surface variation (dE), at most ``WORK`` px big."""
    scale = WORK / max(changed.shape)
    if scale < 1:
        size = (max(1, round(changed.shape[1] * scale)), max(1, round(changed.shape[0] * scale)))
        normal = cv2.resize(normal, size, interpolation=cv2.INTER_AREA)
        anomaly = cv2.resize(anomaly, size, interpolation=cv2.INTER_AREA)
        changed = changed_pixels(normal, anomaly)
    lab = lab_of(anomaly)
    soft = cv2.GaussianBlur(lab, (0, 0), 1.0)
    surface = np.linalg.norm(soft - cv2.GaussianBlur(lab, (0, 0), 4.0), axis=2)
    around = cv2.dilate(changed.astype(np.uint8), ellipse(2)) == 0
    masking = float(np.median(surface[around])) if around.any() else 0.0
    return np.linalg.norm(soft - cv2.GaussianBlur(lab_of(normal), (0, 0), 1.0), axis=2), changed, masking
