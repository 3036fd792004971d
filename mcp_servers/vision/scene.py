"""What a photo of a part shows: where the part is, how it is lit, how sharp, noisy and grained it is.

Estimated once per photo at a small working size and shared by the prompt generator, the renderer and the
judge, so that all of them speak of the same part. Nothing here knows about defects.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from mcp_servers.vision.memo import remember
from mcp_servers.vision.part import find_part
from mcp_servers.vision.pixels import magnitude, percentile
from mcp_servers.vision.types import Field, Image, Mask

WORK = 320
"""Longer side, in pixels, of the copy on which the scene is estimated."""


@dataclass(frozen=True, slots=True)
class Grain:
    """Dominant direction of the surface texture, from the structure tensor.

    ``angle_deg`` is the direction along which lines run (0 = horizontal, 90 = vertical, counter-clockwise, in
    [0, 180)); ``coherence`` in [0, 1] says how strongly oriented the surface is (above 0.35: brushed, woven
    or striped).
    """

    angle_deg: float
    coherence: float


@dataclass(frozen=True, slots=True)
class Scene:
    """Measurements of one photo.

    ``part`` is True on the part (all True where no plain background was found, then ``kind`` is "texture").
    ``light`` is the unit vector (x to the right, y down) that points towards the light in the image plane,
    with ``light_confidence`` in [0, 1]. ``noise`` is the grain's standard deviation in grey levels (0-255),
    ``blur`` the width of the sharpest edges as a Gaussian's sigma in pixels of the full photo.
    """

    kind: Literal["object", "texture"]
    part: Mask
    light: tuple[float, float]
    light_confidence: float
    noise: float
    blur: float
    grain: Grain

    @property
    def box(self) -> tuple[int, int, int, int]:
        """Bounding box (x, y, width, height) of the part in pixels."""
        ys, xs = np.flatnonzero(self.part.any(1)), np.flatnonzero(self.part.any(0))
        return int(xs[0]), int(ys[0]), int(xs[-1] - xs[0] + 1), int(ys[-1] - ys[0] + 1)

    @property
    def extent(self) -> float:
        """Square root of the part's area in pixels: the length that sizes of defects refer to."""
        return float(np.sqrt(np.count_nonzero(self.part)))


def grey(rgb: Image) -> Field:
    """(H, W, 3) uint8 to (H, W) float32 luma, 0-255."""
    return np.asarray(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), np.float32)


@remember(4)
def analyse(rgb: Image) -> Scene:
    """Measure one photo.

    rgb: (H, W, 3) uint8 sRGB, at least 8 x 8 pixels. Deterministic. About 0.1 s at any size; the scenes of the latest
    photos are kept and shared, so ``part`` is read-only.
    """
    height, width = rgb.shape[:2]
    scale = min(1.0, WORK / max(height, width))
    size = (max(8, round(width * scale)), max(8, round(height * scale)))
    small = cv2.resize(rgb, size, interpolation=cv2.INTER_AREA) if scale < 1 else rgb
    part_small = find_part(small)
    kind: Literal["object", "texture"] = "texture" if bool(part_small.all()) else "object"
    if kind == "texture":
        part = np.ones((height, width), bool)
    else:
        resized = cv2.resize(part_small.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
        part = resized > 0.5
        if not part.any():
            part, kind = np.ones((height, width), bool), "texture"
    part.setflags(write=False)
    light, confidence = _light(small, part_small)
    return Scene(
        kind=kind,
        part=part,
        light=light,
        light_confidence=confidence,
        noise=_noise(rgb, part),
        blur=_blur(rgb),
        grain=grain_of(grey(small), part_small),
    )


def _light(rgb: Image, part: Mask) -> tuple[tuple[float, float], float]:
    """Direction towards the light: where smooth shading inside the part gets brighter."""
    luma = cv2.GaussianBlur(grey(rgb), (0, 0), max(rgb.shape[:2]) / 24)
    gx, gy = cv2.Sobel(luma, cv2.CV_32F, 1, 0), cv2.Sobel(luma, cv2.CV_32F, 0, 1)
    inner = cv2.erode(part.astype(np.uint8), np.ones((9, 9), np.uint8), borderValue=1).astype(bool)
    inner = inner if inner.any() else part
    mx, my = float(gx[inner].mean()), float(gy[inner].mean())
    strength = float(np.hypot(gx[inner], gy[inner]).mean()) + 1e-6
    confidence = float(np.hypot(mx, my)) / strength
    prior = (1 - min(1.0, confidence)) * 0.5 * strength
    lx, ly = mx - prior * 0.6, my - prior * 0.8  # lamps stand above the part more often than below
    norm = float(np.hypot(lx, ly))
    if norm < 1e-6:
        return (-0.6, -0.8), 0.0
    return (lx / norm, ly / norm), min(1.0, confidence)


def _noise(rgb: Image, part: Mask) -> float:
    """Standard deviation of the sensor grain, Immerkaer's Laplacian estimate on the calmest blocks."""
    window = _central_window(rgb, part, 768)
    luma = grey(window)
    kernel = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32)
    response = np.abs(cv2.filter2D(luma, cv2.CV_32F, kernel))
    calm = cv2.blur(response, (9, 9))[4:-4:4, 4:-4:4]
    if calm.size == 0:
        return float(response.mean() * np.sqrt(np.pi / 2) / 6)
    return float(percentile(calm, 20) * np.sqrt(np.pi / 2) / 6)


def _blur(rgb: Image) -> float:
    """Sigma (px) of the sharpest edges: range of a step divided by its steepest slope, in [0.4, 4]."""
    luma = grey(_central_window(rgb, None, 1024))
    gx, gy = cv2.Sobel(luma, cv2.CV_32F, 1, 0, scale=1 / 8), cv2.Sobel(luma, cv2.CV_32F, 0, 1, scale=1 / 8)
    slope = magnitude(gx, gy)
    around = np.ones((9, 9), np.uint8)
    span = cv2.dilate(luma, around) - cv2.erode(luma, around)
    strong = slope >= max(4.0, percentile(slope, 99))
    soft = cv2.GaussianBlur(luma, (0, 0), 2.0)
    steps = strong & (cv2.dilate(soft, around) - cv2.erode(soft, around) > 0.4 * span)  # not specks, pores or noise
    if np.count_nonzero(steps) < max(8, 0.15 * np.count_nonzero(strong)):
        return _blur_of_texture(luma)
    sigma = percentile(span[steps] / (slope[steps] * 2.507), 25)
    return float(np.clip(np.sqrt(max(sigma**2 - 0.5, 0.16)), 0.4, 4.0))  # Sobel itself adds about 0.7 px


def _blur_of_texture(luma: Field) -> float:
    """Sigma (px), in [0.4, 1], from how alike neighbouring pixels are: white noise under a Gaussian's sigma s
    correlates by exp(-1 / (4 s^2)) over one pixel. For pictures without steps."""
    detail = luma - cv2.GaussianBlur(luma, (0, 0), 3.0)
    power = float((detail * detail).mean())
    if power < 0.05:
        return 1.0
    alike = 0.5 * float((detail[:, 1:] * detail[:, :-1]).mean() + (detail[1:] * detail[:-1]).mean()) / power
    return float(np.clip(np.sqrt(-0.25 / np.log(np.clip(alike, 0.02, 0.78))), 0.4, 1.0))


def _central_window(rgb: Image, part: Mask | None, side: int) -> Image:
    height, width = rgb.shape[:2]
    cy, cx = height // 2, width // 2
    if part is not None and not part.all():
        cy, cx = (_middle(np.count_nonzero(part, axis=axis)) for axis in (1, 0))
    top, left = max(0, min(height - side, cy - side // 2)), max(0, min(width - side, cx - side // 2))
    return rgb[top : top + side, left : left + side]


def _middle(counts: NDArray[np.intp]) -> int:
    """Median index, rounded down, of as many items at each index as ``counts`` says."""
    total = np.cumsum(counts)
    lower, upper = np.searchsorted(total, [(total[-1] - 1) // 2, total[-1] // 2], side="right")
    return int(lower + upper) // 2


def grain_of(luma: Field, part: Mask) -> Grain:
    """Dominant line direction and its coherence (structure tensor summed over the part's interior)."""
    gx, gy = cv2.Sobel(luma, cv2.CV_32F, 1, 0), cv2.Sobel(luma, cv2.CV_32F, 0, 1)
    inner = cv2.erode(part.astype(np.uint8), np.ones((7, 7), np.uint8), borderValue=1).astype(bool)
    inner = inner if np.count_nonzero(inner) > 50 else part
    slope = magnitude(gx[inner], gy[inner])
    limit = percentile(slope, 90) + 1e-6
    weight = np.minimum(1.0, limit / (slope + 1e-6)) ** 2  # a few strong edges must not decide
    jxx, jyy = float((weight * gx[inner] ** 2).mean()), float((weight * gy[inner] ** 2).mean())
    jxy = float((weight * gx[inner] * gy[inner]).mean())
    gradient = 0.5 * np.arctan2(2 * jxy, jxx - jyy)
    coherence = float(np.hypot(jxx - jyy, 2 * jxy) / (jxx + jyy + 1e-6))
    return Grain(angle_deg=float((90.0 - np.degrees(gradient)) % 180.0), coherence=coherence)
