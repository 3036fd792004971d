"""Crop-paste: a few real defects, cut out along their masks, pasted on normal photos. Few-shot, not zero-shot."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import cv2
import numpy as np

from evaluation.data import Image, Mask, Pair, pick

FEATHER = 1.0
"""Sigma in px of the blended border, which lies inside the mask."""


def from_defects(
    defects: Sequence[Pair],
) -> Callable[[Sequence[Image], np.random.Generator], tuple[Image, Mask]]:
    """A generator that pastes these defects; all masks must have a pixel."""

    def generate(normal_images: Sequence[Image], rng: np.random.Generator) -> tuple[Image, Mask]:
        """A defect, mirrored and moved at random, on a photo; the mask is the pasted shape."""
        image = pick(normal_images, rng)
        defect = pick(defects, rng)
        ys, xs = np.flatnonzero(defect.mask.any(1)), np.flatnonzero(defect.mask.any(0))
        window = (slice(ys[0], ys[-1] + 1), slice(xs[0], xs[-1] + 1))
        flips = tuple(slice(None, None, int(rng.choice([-1, 1]))) for _ in range(2))
        piece, shape = defect.image[window][flips], defect.mask[window][flips]
        fit = min(1.0, image.shape[0] / shape.shape[0], image.shape[1] / shape.shape[1])
        if fit < 1:
            size = (max(1, int(shape.shape[1] * fit)), max(1, int(shape.shape[0] * fit)))
            piece = np.asarray(cv2.resize(piece, size, interpolation=cv2.INTER_AREA), np.uint8)
            shape = cv2.resize(np.ascontiguousarray(shape, np.uint8), size, interpolation=cv2.INTER_NEAREST) > 0
        top, left = (rng.integers(image.shape[axis] - shape.shape[axis] + 1) for axis in range(2))
        place = (slice(top, top + shape.shape[0]), slice(left, left + shape.shape[1]))
        mask = np.zeros(image.shape[:2], bool)
        mask[place] = shape
        alpha = cv2.GaussianBlur(shape.astype(np.float32), (0, 0), FEATHER)[..., None] * shape[..., None]
        out = image.astype(np.float32)
        out[place] += alpha * (piece - out[place])
        return np.rint(out).astype(np.uint8), mask

    return generate
