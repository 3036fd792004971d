"""Surface from surface: fill a hole in a canvas with the texture and colour that surround it."""

from __future__ import annotations

import cv2
import numpy as np

from mcp_servers.image_gen.local.shading import Colour
from mcp_servers.vision.types import Field, Mask


def push_pull(image: Colour, known: Field) -> Colour:
    """Smooth membrane through the known pixels (a pyramid of weighted means).

    image: (H, W, 3). known: (H, W) weights in [0, 1]. Pixels without weight get the nearest known colours.
    """
    if min(image.shape[:2]) <= 2 or float(known.min()) > 0.99:
        weight = max(float(known.sum()), 1e-6)
        mean = (image * known[..., None]).sum((0, 1)) / weight
        return np.where(known[..., None] > 0.01, image, mean).astype(np.float32)
    height, width = known.shape
    half = ((width + 1) // 2, (height + 1) // 2)
    weight = cv2.resize(known, half, interpolation=cv2.INTER_AREA)
    total = cv2.resize(image * known[..., None], half, interpolation=cv2.INTER_AREA)
    coarse = push_pull(total / np.maximum(weight, 1e-6)[..., None], np.minimum(weight * 4, 1))
    up = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR)
    return np.asarray(up + known[..., None] * (image - up), np.float32)


def fill(base: Colour, hole: Mask, source: Mask, rng: np.random.Generator, detail: float = 1.0) -> Colour:
    """The canvas with ``hole`` filled from ``source``: a smooth membrane plus texture shifted in from nearby.

    base: (H, W, 3) linear light. hole, source: (H, W). detail: factor on the copied texture. Pixels outside
    the hole are returned as they are; without any source the hole gets the mean of its surroundings.
    """
    source = source & ~hole
    if not source.any():
        source = ~hole
    sure = cv2.erode(source.astype(np.float32), np.ones((3, 3), np.uint8))
    smooth = push_pull(base, sure if sure.any() else source.astype(np.float32))
    sigma = max(2.0, 0.02 * max(hole.shape))
    weight = np.maximum(cv2.GaussianBlur(source.astype(np.float32), (0, 0), sigma), 1e-4)
    local = cv2.GaussianBlur(base * source[..., None], (0, 0), sigma) / weight[..., None]
    texture = (base - local) * source[..., None]
    usual = 5 * float(np.median(np.abs(texture[source]))) + 1e-4
    texture = np.clip(texture, -usual, usual)  # grain, not the odd things that lie about
    height, width = hole.shape
    missing = hole.copy()
    grown = np.zeros_like(base)
    reach = max(height, width)
    for _ in range(24):
        if not missing.any():
            break
        dx, dy = (int(v) for v in rng.integers(-reach // 2, reach // 2 + 1, 2))
        if abs(dx) + abs(dy) < 0.05 * reach:
            continue
        matrix = np.array([[1, 0, dx], [0, 1, dy]], np.float32)
        there = cv2.warpAffine(source.astype(np.uint8), matrix, (width, height), flags=cv2.INTER_NEAREST) > 0
        take = missing & there
        if take.any():
            grown[take] = cv2.warpAffine(texture, matrix, (width, height), flags=cv2.INTER_NEAREST)[take]
            missing &= ~take
    filled = np.maximum(smooth + detail * grown, 0)
    return np.where(hole[..., None], filled, base).astype(np.float32)
