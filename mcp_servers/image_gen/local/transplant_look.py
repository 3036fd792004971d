"""Fitting one photo's light, outline and sharpness to another's: what a transplanted defect needs to belong."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from mcp_servers.image_gen.local.fill import push_pull
from mcp_servers.image_gen.local.shading import DARK, Colour, luma, ramp
from mcp_servers.vision.types import Field, Mask

HUE = 0.08, 0.2
"""Distance in r, g, b shares up to which a colour is the part's, and from which it is another thing's."""


def relighting(rgb: Colour, base: Colour, around: Field, own: Field) -> Colour:
    """Log factor (h, w, 3) that lights the defect as the photo's surface: smooth from what surrounds both.

    Stuff of its own colour gets only a little of it and none of its hue.
    """
    sure = around * (around > 0.9)
    if sure.sum() < 12:
        return np.zeros_like(rgb)
    ratio = np.log(cv2.GaussianBlur(base, (0, 0), 2.0) + DARK) - np.log(cv2.GaussianBlur(rgb, (0, 0), 2.0) + DARK)
    gain = np.clip(push_pull(ratio.astype(np.float32), sure), -3.0, 3.0)
    light = np.clip(luma(np.exp(gain)), 0.8, 1.25)
    return np.asarray(gain + own[..., None] * (np.log(light)[..., None] - gain), np.float32)


def matte(base: Colour, part: Mask) -> tuple[Field, Colour]:
    """How much of each pixel is part (h, w), and the part's colour (h, w, 3) where a pixel holds some background."""
    inner, outer = (
        cv2.erode(mask.astype(np.uint8), np.ones((5, 5), np.uint8), borderValue=1) > 0 for mask in (part, ~part)
    )
    band = ~inner & ~outer
    if not band.any() or not inner.any() or not outer.any():
        return part.astype(np.float32), base
    front, back = (push_pull(base, mask.astype(np.float32)) for mask in (inner, outer))
    step = front - back
    clear = (step * step).sum(2)
    mixed = np.clip(((base - back) * step).sum(2) / (clear + 1e-6), 0, 1)
    soft = cv2.GaussianBlur(part.astype(np.float32), (0, 0), 1.0)
    share = np.where(clear > 0.01, mixed, soft)
    under = np.where((band & (clear > 0.01))[..., None], front, base)
    return np.where(band, share, inner).astype(np.float32), under.astype(np.float32)


def bare(under: Colour, part: Field) -> tuple[Field, Field]:
    """Where the photo's part is not hidden by a slim thing of another colour, and the log of slim shadows on it."""
    solid = (part > 0.9).astype(np.float32)
    if not solid.any():
        return np.ones(part.shape, np.float32), np.zeros(part.shape, np.float32)
    smooth = cv2.GaussianBlur(push_pull(under, solid), (0, 0), 1.0)
    step = max(1.0, 0.04 * float(np.sqrt(solid.sum())))
    size = (max(6, round(part.shape[1] / step)), max(6, round(part.shape[0] / step)))
    small = cv2.medianBlur(cv2.resize(smooth, size, interpolation=cv2.INTER_AREA), 5)
    usual = cv2.resize(small, part.shape[::-1], interpolation=cv2.INTER_LINEAR)
    hue, usual_hue = (c / (c.sum(2, keepdims=True) + 0.01) for c in (smooth, usual))
    alike = ramp(np.linalg.norm(hue - usual_hue, axis=2), HUE[1], HUE[0])
    darker = np.log(luma(smooth) + DARK) - np.log(luma(usual) + DARK)
    return alike, np.clip(darker, -1.2, 0) * ramp(darker, -0.1, -0.3) * alike


def as_sharp(change: NDArray[np.float32], blur: float, wanted: float) -> NDArray[np.float32]:
    """The change with the photo's sharpness instead of its own."""
    if wanted > 1.15 * blur:
        return np.asarray(cv2.GaussianBlur(change, (0, 0), min(0.8 * float(np.sqrt(wanted**2 - blur**2)), 1.5)))
    if blur > 1.3 * wanted:
        return np.asarray(change + 0.5 * (change - cv2.GaussianBlur(change, (0, 0), min(blur, 2.0))))
    return change


def lowpass(image: Colour, sigma: float) -> Colour:
    """A Gaussian blur (sigma px), made on a smaller copy where it is wide."""
    step = max(1.0, sigma / 3)
    size = (max(1, round(image.shape[1] / step)), max(1, round(image.shape[0] / step)))
    small = cv2.GaussianBlur(cv2.resize(image, size, interpolation=cv2.INTER_AREA), (0, 0), sigma / step)
    return np.asarray(cv2.resize(small, image.shape[1::-1], interpolation=cv2.INTER_LINEAR), np.float32)
