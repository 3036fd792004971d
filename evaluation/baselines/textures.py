"""Texture pictures for DRAEM without an outside data set: procedural ones, and training photos, augmented.

DRAEM draws its anomalies' content from the Describable Textures Dataset; a folder of such pictures is not at hand
everywhere, so noise, stripes, checks, cells and speckle in random colours stand in, half of the time another photo.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from evaluation.data import Image, pick

Field = NDArray[np.float32]


def texture(normal_images: Sequence[Image], size: tuple[int, int], rng: np.random.Generator) -> Image:
    """A texture of size (height, width): a training photo or a procedural one, with three augmentations."""
    height, width = size
    if rng.random() < 0.5:
        photo = pick(normal_images, rng)
        picture = np.asarray(cv2.resize(photo, (width, height), interpolation=cv2.INTER_AREA), np.uint8)
    else:
        picture = procedural(size, rng)
    for chosen in rng.choice(len(AUGMENTERS), 3, replace=False):
        picture = AUGMENTERS[chosen](picture, rng)
    return picture


def procedural(size: tuple[int, int], rng: np.random.Generator) -> Image:
    """One of five patterns in a random pair of colours: (height, width, 3)."""
    height, width = size
    turn, pitch = rng.uniform(0, np.pi), rng.uniform(4, 40) * max(size) / 256
    ys, xs = np.mgrid[0:height, 0:width].astype(np.float32)
    along = (xs * np.cos(turn) + ys * np.sin(turn)) / pitch
    across = (ys * np.cos(turn) - xs * np.sin(turn)) / pitch
    pattern = rng.integers(5)
    if pattern == 0:
        field = _octaves(size, rng)
    elif pattern == 1:
        field = 0.5 + 0.5 * np.sin(2 * np.pi * along + 3 * _octaves(size, rng))
    elif pattern == 2:
        field = ((np.floor(along) + np.floor(across)) % 2).astype(np.float32)
    elif pattern == 3:
        field = _cells(size, rng)
    else:
        field = rng.random(size, np.float32)
    field = np.clip(field + 0.15 * (_octaves(size, rng) - 0.5), 0, 1)[..., None]
    first, second = rng.uniform(0, 255, (2, 3))
    return np.asarray(np.rint(first + field * (second - first)), np.uint8)


def _octaves(size: tuple[int, int], rng: np.random.Generator) -> Field:
    """Smooth noise of several scales in [0, 1]."""
    height, width = size
    total = np.zeros(size, np.float32)
    for octave in range(2, 7):
        coarse = rng.random((2**octave, 2**octave), np.float32)
        total += cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC) * 2.0 ** (1 - octave)
    low, high = float(total.min()), float(total.max())
    return (total - low) / max(high - low, 1e-6)


def _cells(size: tuple[int, int], rng: np.random.Generator) -> Field:
    """Distance to the nearest of random points, in [0, 1]."""
    seeds = np.ones(size, np.uint8)
    count = int(rng.integers(20, 300))
    seeds[rng.integers(size[0], size=count), rng.integers(size[1], size=count)] = 0
    distance = cv2.distanceTransform(seeds, cv2.DIST_L2, 3)
    return np.asarray(distance / max(float(distance.max()), 1.0), np.float32)


def _gamma(image: Image, rng: np.random.Generator) -> Image:
    exponents = rng.uniform(0.5, 2.0, 3)
    return np.asarray(np.rint(255 * (image / 255.0) ** exponents), np.uint8)


def _brightness(image: Image, rng: np.random.Generator) -> Image:
    return _clip(image * rng.uniform(0.8, 1.2) + rng.uniform(-30, 30))


def _sharpness(image: Image, rng: np.random.Generator) -> Image:
    soft = cv2.blur(image, (3, 3)).astype(np.float32)
    return _clip(soft + rng.uniform(0, 2) * (image - soft))


def _hue(image: Image, rng: np.random.Generator) -> Image:
    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV).astype(np.int32)
    hsv[..., 0] = (hsv[..., 0] + rng.integers(-25, 26)) % 180
    hsv[..., 1] = np.clip(hsv[..., 1] + rng.integers(-50, 51), 0, 255)
    return np.asarray(cv2.cvtColor(hsv.astype(np.uint8), cv2.COLOR_HSV2RGB), np.uint8)


def _solarize(image: Image, rng: np.random.Generator) -> Image:
    if rng.random() < 0.5:
        return image
    return np.where(image >= rng.integers(32, 129), 255 - image, image).astype(np.uint8)


def _posterize(image: Image, rng: np.random.Generator) -> Image:
    lost = 8 - int(rng.integers(1, 9))
    return np.asarray((image >> lost) << lost, np.uint8)


def _invert(image: Image, rng: np.random.Generator) -> Image:
    return np.asarray(255 - image, np.uint8)


def _autocontrast(image: Image, rng: np.random.Generator) -> Image:
    low, high = image.min(axis=(0, 1)).astype(np.float32), image.max(axis=(0, 1)).astype(np.float32)
    return _clip((image - low) * (255 / np.maximum(high - low, 1)))


def _equalize(image: Image, rng: np.random.Generator) -> Image:
    return np.stack([cv2.equalizeHist(np.ascontiguousarray(image[..., c])) for c in range(3)], axis=2)


def _turn(image: Image, rng: np.random.Generator) -> Image:
    height, width = image.shape[:2]
    turn = cv2.getRotationMatrix2D((width / 2, height / 2), rng.uniform(-45, 45), 1.0)
    return np.asarray(cv2.warpAffine(image, turn, (width, height), borderMode=cv2.BORDER_REFLECT), np.uint8)


def _clip(values: NDArray[np.floating]) -> Image:
    return np.asarray(np.clip(np.rint(values), 0, 255).astype(np.uint8), np.uint8)


AUGMENTERS: tuple[Callable[[Image, np.random.Generator], Image], ...] = (
    _gamma, _brightness, _sharpness, _hue, _solarize, _posterize, _invert, _autocontrast, _equalize, _turn,
)  # fmt: skip
"""DRAEM's ten, of which three are applied; images (H, W, 3) uint8."""
