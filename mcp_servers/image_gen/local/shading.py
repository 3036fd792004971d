"""Light on relief: what a height field does to the brightness of the surface it is pressed into."""

from __future__ import annotations

from typing import Any, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from mcp_servers.vision.types import Field

Colour = NDArray[np.float32]
"""(H, W, 3) linear light in [0, 1]."""

DARK = 0.012
"""Linear light added before a gain is applied, so that relief shows on black surfaces too."""


def to_linear(srgb: NDArray[np.float32]) -> Colour:
    """sRGB 0-255 to linear light in [0, 1]."""
    v = np.clip(srgb, 0, 255).astype(np.float32) / 255
    low = v / 12.92
    return np.where(v <= 0.04045, low, cv2.pow((v + 0.055) / 1.055, 2.4)).astype(np.float32)


def to_srgb(linear: Colour) -> NDArray[np.float32]:
    """Linear light (clipped to [0, 1]) to sRGB 0-255, unrounded."""
    v = np.clip(linear, 0, 1).astype(np.float32)
    high = 1.055 * cv2.pow(v, 1 / 2.4) - 0.055
    return (np.where(v <= 0.0031308, v * 12.92, high) * 255).astype(np.float32)


def luma(linear: Colour) -> Field:
    """(H, W) luminance of linear light."""
    return np.asarray(linear @ np.array([0.2126, 0.7152, 0.0722], np.float32), np.float32)


def slopes(height: Field) -> tuple[Field, Field]:
    """Derivatives (x, y) of a height field in px of height per px."""
    dx = cv2.Sobel(height, cv2.CV_32F, 1, 0, ksize=3, scale=1 / 8)
    dy = cv2.Sobel(height, cv2.CV_32F, 0, 1, ksize=3, scale=1 / 8)
    return dx, dy


def relief_gain(height: Field, light: tuple[float, float, float], strength: float = 1.0) -> Field:
    """Factor (H, W) on linear light caused by relief on a matt surface.

    height: px, up is positive. light: unit vector towards the lamp (x right, y down, z to the viewer).
    Flat places give exactly 1. The factor stays within [0.06, 6].
    """
    dx, dy = slopes(height)
    lit = (light[2] - dx * light[0] - dy * light[1]) / np.sqrt(1 + dx * dx + dy * dy)
    gain = np.maximum(lit / light[2], 0.06)
    return np.asarray(np.clip(gain**strength, 0.06, 6.0), np.float32)


def glint(height: Field, light: tuple[float, float, float], gloss: float = 20.0) -> Field:
    """Specular highlight (H, W) in [0, 1] that relief adds; 0 on flat places."""
    dx, dy = slopes(height)
    half = np.array([light[0], light[1], light[2] + 1.0])
    half /= np.linalg.norm(half)
    norm = np.sqrt(1 + dx * dx + dy * dy)
    facing = np.clip((half[2] - dx * half[0] - dy * half[1]) / norm, 0, 1)
    flat = half[2] ** gloss
    return np.asarray(np.clip((facing**gloss - flat) / (1 - flat), 0, 1), np.float32)


def apply_gain(base: Colour, gain: Field) -> Colour:
    """The surface under a factor on its light; black surfaces still show a little of it, and no hue is lost."""
    after = base + (gain - 1)[..., None] * (base + DARK)
    return np.asarray(np.maximum(after, 0.5 * base * np.minimum(gain, 1)[..., None]), np.float32)


def cavity(base: Colour, gain: Field) -> Colour:
    """As ``apply_gain``; where it darkens, light that bounced off the walls makes the surface's own hue deeper."""
    hue = (base + DARK) / (luma(base)[..., None] + DARK)
    deeper = np.clip(hue, 0.4, 1.6) ** (0.5 * np.clip(-np.log(gain), 0, 1.5))[..., None]
    return np.asarray(np.maximum(apply_gain(base, gain), 0) * deeper, np.float32)


Level: TypeAlias = NDArray[np.floating[Any]] | float
"""A field or one value for all pixels."""


def ramp(value: NDArray[np.floating[Any]], low: Level, high: Level) -> Field:
    """Smooth step: 0 up to ``low``, 1 from ``high`` on (``low`` > ``high`` gives the falling one)."""
    t = np.clip((value - low) / (high - low), 0, 1)
    return np.asarray(t * t * (3 - 2 * t), np.float32)
