"""Small maps for choosing a place: distances, shifts, and which pixels are conductors."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from mcp_servers.vision.scene import Field, Mask


def two_tone(luma: Field) -> Mask:
    """Conductors of a board picture: of two clearly different tones the slimmer one, in black and white the black.

    luma: (H, W) 0-255. All False where there are no two clearly different tones.
    """
    level = cv2.GaussianBlur(luma, (0, 0), 0.8).astype(np.uint8)
    _, high = cv2.threshold(level, 0, 1, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    bright = high.astype(bool)
    share = float(bright.mean())
    if not 0.02 < share < 0.98:
        return np.zeros_like(bright)
    upper, lower = float(luma[bright].mean()), float(luma[~bright].mean())
    if upper - lower < 22 or share * (1 - share) * (upper - lower) ** 2 < 0.6 * float(luma.var()):
        return np.zeros_like(bright)
    if upper > 235 and lower < 25:
        return np.asarray(~bright)
    slim = [float(clearance(m)[m].mean()) for m in (bright, ~bright)]
    return np.asarray(bright if slim[0] < slim[1] else ~bright)


def clearance(mask: Mask) -> Field:
    """Distance (px) to the nearest pixel outside the mask; the picture's border counts as outside."""
    padded = cv2.copyMakeBorder(mask.astype(np.uint8), 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    return np.asarray(cv2.distanceTransform(padded, cv2.DIST_L2, 5)[1:-1, 1:-1], np.float32)


def shifted(mask: Mask, dx: float, dy: float) -> Field:
    """Value of the mask at each pixel displaced by (dx, dy); 0 beyond the border."""
    matrix = np.array([[1, 0, -dx], [0, 1, -dy]], np.float32)
    size = (mask.shape[1], mask.shape[0])
    return np.asarray(cv2.warpAffine(mask.astype(np.float32), matrix, size, flags=cv2.INTER_NEAREST), np.float32)


def bump(shape: tuple[int, ...], x: float, y: float, sigma: float) -> Field:
    """A Gaussian hill of height 1 at (x, y) px."""
    ys, xs = np.mgrid[0 : shape[0], 0 : shape[1]].astype(np.float32)
    return np.asarray(np.exp(-((xs - x) ** 2 + (ys - y) ** 2) / (2 * sigma**2)), np.float32)


def draw(weight: NDArray[np.float32], rng: np.random.Generator) -> tuple[float, float]:
    """A pixel drawn in proportion to its weight."""
    total = np.cumsum(weight.astype(np.float64).ravel())
    index = int(np.searchsorted(total, rng.random() * total[-1], side="right"))
    index = min(index, weight.size - 1)
    return float(index % weight.shape[1]), float(index // weight.shape[1])
