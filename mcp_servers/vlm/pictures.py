"""Photos as a model is shown them."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

SIDE = 1024
"""Longest side in pixels of a picture that a model is shown."""


def picture_of(rgb: NDArray[np.uint8], side: int = SIDE) -> bytes:
    """(H, W, 3) RGB uint8 as PNG of at most ``side`` pixels on the longer side; never enlarged, never lossy."""
    scale = side / max(rgb.shape[:2])
    if scale < 1:
        size = (max(1, round(rgb.shape[1] * scale)), max(1, round(rgb.shape[0] * scale)))
        rgb = np.asarray(cv2.resize(rgb, size, interpolation=cv2.INTER_AREA), np.uint8)
    ok, encoded = cv2.imencode(".png", np.ascontiguousarray(rgb[:, :, ::-1]))
    if not ok:
        raise RuntimeError("PNG encoding failed")
    return encoded.tobytes()
