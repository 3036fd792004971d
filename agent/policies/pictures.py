"""Images as a model is shown them: in training, in rollouts and when an agent runs, through this one function."""

from __future__ import annotations

import cv2
import numpy as np

IMAGE_SIDE = 768
"""Longest side in pixels that a model is shown by default."""


def picture_for_model(png: bytes, side: int = IMAGE_SIDE) -> bytes:
    """A PNG as 8-bit RGB PNG of at most ``side`` pixels on the longer side; the same bytes for the same input.

    16-bit pictures are scaled over the range in use, alpha is left out. Raises ValueError for bytes that are no image.
    """
    pixels = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None:
        raise ValueError("not an image that can be decoded")
    if pixels.dtype != np.uint8:
        pixels = np.rint(pixels * (255.0 / max(1, int(pixels.max())))).astype(np.uint8)
    if pixels.ndim == 2:
        pixels = np.repeat(pixels[:, :, None], 3, axis=2)
    pixels = np.ascontiguousarray(pixels[:, :, :3], np.uint8)
    size = scaled_size(pixels.shape[1], pixels.shape[0], side)
    if size != (pixels.shape[1], pixels.shape[0]):
        pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    ok, encoded = cv2.imencode(".png", pixels)
    if not ok:
        raise RuntimeError("PNG encoding failed")
    return encoded.tobytes()


def scaled_size(width: int, height: int, side: int = IMAGE_SIDE) -> tuple[int, int]:
    """Width and height in pixels of a picture as a model is shown it."""
    scale = min(1.0, side / max(width, height))
    return max(1, round(width * scale)), max(1, round(height * scale))
