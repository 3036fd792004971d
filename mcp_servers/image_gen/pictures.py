"""Pictures and masks as the editors' APIs take them, and what they return as pixels."""

from __future__ import annotations

import base64
import binascii

import cv2
import numpy as np

from mcp_servers.errors import BackendError, FailureKind
from mcp_servers.images import ImageError, Photo, decode
from mcp_servers.vision.types import Image, Mask


def png_of(picture: Image) -> bytes:
    """Lossless PNG of (H, W, 3) uint8 RGB."""
    return Photo(picture).to_png()


def mask_png(region: Mask) -> bytes:
    """PNG (H, W) uint8, white where the region is."""
    return Photo(np.where(region, 255, 0).astype(np.uint8)).to_png()


def cutout_png(region: Mask) -> bytes:
    """Black PNG (H, W, 4), transparent where the region is: OpenAI's form of a mask, far below its limit of 4 MB."""
    return Photo(np.zeros(region.shape, np.uint8), np.where(region, 0, 255).astype(np.uint8)).to_png()


def data_uri(picture: Image) -> str:
    """``data:image/png;base64,...`` of (H, W, 3) uint8 RGB."""
    return "data:image/png;base64," + base64.b64encode(png_of(picture)).decode()


def from_base64(text: str, service: str, cost_usd: float | None = None) -> bytes:
    """The bytes of a base64 text, with or without the head of a data URI. Raises BackendError (MALFORMED)."""
    try:
        return base64.b64decode(text.rpartition("base64,")[2], validate=True)
    except (binascii.Error, ValueError) as error:
        text = f"{service} sent damaged base64: try again later"
        raise BackendError(text, FailureKind.MALFORMED, cost_usd=cost_usd or 0.0) from error


def pixels_of(data: bytes, service: str) -> Image:
    """(H, W, 3) uint8 RGB of a returned image file. Raises BackendError (MALFORMED) for anything else."""
    try:
        return np.asarray(decode(data, "it").view(), np.uint8)
    except ImageError as error:
        raise BackendError(f"{service} returned no usable image: {error}", FailureKind.MALFORMED) from error


def around(picture: Image, mask: Mask, side: int = 768) -> Image:
    """The part of an example (H, W, 3) around its defect, with as much again on every side; ``side`` px at most."""
    ys, xs = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    reach = max(32, int(ys[-1] - ys[0]), int(xs[-1] - xs[0]))
    part = picture[max(0, ys[0] - reach) : ys[-1] + reach + 1, max(0, xs[0] - reach) : xs[-1] + reach + 1]
    scale = side / max(part.shape[:2])
    if scale < 1:
        size = (max(1, round(part.shape[1] * scale)), max(1, round(part.shape[0] * scale)))
        part = np.asarray(cv2.resize(part, size, interpolation=cv2.INTER_AREA), np.uint8)
    return np.ascontiguousarray(part)
