"""DRAEM (Zavrtanik et al., ICCV 2021): regions of thresholded Perlin noise filled with a blended foreign texture."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from evaluation.baselines.textures import texture
from evaluation.data import Image, Mask, pick

OCTAVES = 6
"""The noise has 2^0 to 2^5 cells along each axis."""
THRESHOLD = 0.5
"""Noise, in about [-1, 1], above which a pixel is anomalous."""
OPACITY = 0.8
"""The photo keeps a share U(0, 0.8) inside the anomaly."""


def generate(normal_images: Sequence[Image], rng: np.random.Generator) -> tuple[Image, Mask]:
    """Blend a texture into a photo where the noise is high; the mask is that region."""
    image = pick(normal_images, rng)
    height, width = image.shape[:2]
    mask = np.zeros((height, width), bool)
    while not mask.any():
        mask = _turned(perlin((height, width), 2 ** rng.integers(0, OCTAVES, 2), rng), rng) > THRESHOLD
    kept = rng.uniform(0, OPACITY)
    blend = (1 - kept) * texture(normal_images, (height, width), rng) + kept * image
    out = image.copy()
    out[mask] = np.rint(blend[mask]).astype(np.uint8)
    return out, mask


def perlin(size: tuple[int, int], cells: NDArray[np.integer], rng: np.random.Generator) -> NDArray[np.float32]:
    """Perlin's gradient noise of size (height, width) with ``cells`` (2,) lattice cells, in about [-1, 1]."""
    down, across = (int(c) for c in cells)
    angles = rng.uniform(0, 2 * np.pi, (down + 1, across + 1))
    ys = np.arange(size[0])[:, None] * down / size[0]
    xs = np.arange(size[1])[None, :] * across / size[1]
    row, column = ys.astype(int), xs.astype(int)
    y, x = ys - row, xs - column

    def ramp(i: int, j: int) -> NDArray[np.float64]:
        angle = angles[row + i, column + j]
        return np.asarray(np.cos(angle) * (x - j) + np.sin(angle) * (y - i))

    ease_y, ease_x = (t**3 * (t * (6 * t - 15) + 10) for t in (y, x))
    upper = ramp(0, 0) + ease_x * (ramp(0, 1) - ramp(0, 0))
    lower = ramp(1, 0) + ease_x * (ramp(1, 1) - ramp(1, 0))
    return np.asarray(np.sqrt(2) * (upper + ease_y * (lower - upper)), np.float32)


def _turned(noise: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """Turned by up to 90 degrees either way about the centre; zeros come in at the corners."""
    height, width = noise.shape
    turn = cv2.getRotationMatrix2D((width / 2, height / 2), rng.uniform(-90, 90), 1.0)
    return np.asarray(cv2.warpAffine(noise, turn, (width, height)), np.float32)
