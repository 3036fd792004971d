"""CutPaste (Li et al., CVPR 2021): a patch or a thin scar of the photo, colours jittered, pasted elsewhere in it."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from evaluation.data import Image, Mask, pick

AREA = (0.02, 0.15)
"""Area of a patch as a share of the picture."""
ASPECT = (0.3, 1 / 0.3)
"""Aspect of a patch, drawn evenly in its logarithm."""
SCAR = ((2.0, 16.0), (10.0, 25.0))
"""Width and height of a scar in px of a 256 px picture."""
TURN = 45.0
"""A scar is turned by up to so many degrees either way."""
JITTER = 0.1
"""Brightness, contrast, saturation and hue change by up to this share."""


def generate(normal_images: Sequence[Image], rng: np.random.Generator) -> tuple[Image, Mask]:
    """A patch or a scar, each with probability one half; the mask is the pasted shape."""
    image = pick(normal_images, rng)
    return patch(image, rng) if rng.random() < 0.5 else scar(image, rng)


def patch(image: Image, rng: np.random.Generator) -> tuple[Image, Mask]:
    """An upright rectangle of 2 to 15% of ``image`` (H, W, 3)."""
    height, width = image.shape[:2]
    area = rng.uniform(*AREA) * height * width
    aspect = np.exp(rng.uniform(*np.log(ASPECT)))
    across = int(np.clip(round(np.sqrt(area * aspect)), 1, width - 1))
    down = int(np.clip(round(np.sqrt(area / aspect)), 1, height - 1))
    return _paste(image, np.ones((down, across), bool), rng)


def scar(image: Image, rng: np.random.Generator) -> tuple[Image, Mask]:
    """A thin turned rectangle of ``image`` (H, W, 3)."""
    scale = np.sqrt(image.shape[0] * image.shape[1]) / 256
    across, down = (max(1.0, scale * rng.uniform(*limits)) for limits in SCAR)
    corners = cv2.boxPoints(((0.0, 0.0), (across, down), rng.uniform(-TURN, TURN)))
    corners = np.rint(corners - corners.min(axis=0)).astype(np.int32)
    right, bottom = np.minimum(corners.max(axis=0), [image.shape[1] - 2, image.shape[0] - 2])
    shape = np.zeros((bottom + 1, right + 1), np.uint8)
    cv2.fillConvexPoly(shape, corners, 1)
    return _paste(image, shape > 0, rng)


def jitter(patch: Image, rng: np.random.Generator) -> Image:
    """Brightness, contrast, saturation and hue of a patch (H, W, 3), each changed by up to ``JITTER``."""
    values = patch.astype(np.float32) * rng.uniform(1 - JITTER, 1 + JITTER)
    mean = values.mean()
    values = np.clip(mean + (values - mean) * rng.uniform(1 - JITTER, 1 + JITTER), 0, 255)
    hsv = cv2.cvtColor(values / np.float32(255), cv2.COLOR_RGB2HSV)
    hsv[..., 1] = np.clip(hsv[..., 1] * rng.uniform(1 - JITTER, 1 + JITTER), 0, 1)
    hsv[..., 0] = (hsv[..., 0] + 360 * rng.uniform(-JITTER, JITTER)) % 360
    return np.asarray(np.rint(255 * cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)), np.uint8)


def _paste(image: Image, shape: Mask, rng: np.random.Generator) -> tuple[Image, Mask]:
    """Copy a piece of the form ``shape`` (h, w) from one random place of ``image`` to another."""
    down, across = shape.shape
    (top, into_top), (left, into_left) = (
        rng.integers(image.shape[axis] - size + 1, size=2) for axis, size in enumerate((down, across))
    )
    piece = jitter(image[top : top + down, left : left + across], rng)
    out, mask = image.copy(), np.zeros(image.shape[:2], bool)
    mask[into_top : into_top + down, into_left : into_left + across] = shape
    out[mask] = piece[shape]
    return out, mask
