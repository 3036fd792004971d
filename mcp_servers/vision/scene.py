"""What a photo of a part shows: where the part is, how it is lit, how sharp, noisy and grained it is.

Estimated once per photo at a small working size and shared by the prompt generator, the renderer and the
judge, so that all of them speak of the same part. Nothing here knows about defects.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

Image: TypeAlias = NDArray[np.uint8]
"""(H, W, 3) sRGB, uint8."""
Mask: TypeAlias = NDArray[np.bool_]
"""(H, W) bool."""
Field: TypeAlias = NDArray[np.float32]
"""(H, W) float32."""

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


def analyse(rgb: Image) -> Scene:
    """Measure one photo.

    rgb: (H, W, 3) uint8 sRGB, at least 8 x 8 pixels. Deterministic. About 20 ms at any size.
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


def find_part(rgb: Image) -> Mask:
    """Separate the part from a plain background; all True where there is none (textures, close-ups).

    The background is modelled by up to three colours of the picture's border (k-means in Lab); what differs
    from all of them is the part. A split is believed only where the part hardly touches the border and
    differs from it clearly (between-class share of the variance, as in Otsu's criterion).
    """
    height, width = rgb.shape[:2]
    everything = np.ones((height, width), bool)
    lab = cv2.cvtColor(cv2.GaussianBlur(rgb, (0, 0), 1.2), cv2.COLOR_RGB2LAB).astype(np.float32)
    margin = max(2, round(0.03 * min(height, width)))
    border = np.ones((height, width), bool)
    border[margin:-margin, margin:-margin] = False
    samples = lab[border]
    centres = _border_colours(samples)
    distance = np.min([np.linalg.norm(lab - c, axis=2) for c in centres], axis=0).astype(np.float32)
    shadow = _cast_shadow(lab, border)
    distance[shadow] *= 0.15
    level = np.clip(distance * 2, 0, 255).astype(np.uint8)
    threshold, _ = cv2.threshold(level, 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    part = level > max(threshold * 0.85, 16)
    radius = max(1, round(0.006 * max(height, width)))
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
    part = cv2.morphologyEx(part.astype(np.uint8), cv2.MORPH_OPEN, kernel)
    part = cv2.morphologyEx(part, cv2.MORPH_CLOSE, kernel).astype(bool)
    part = _keep_big(part, 0.15)
    part = _fill_marks(part)
    share = float(part.mean())
    if not 0.02 <= share <= 0.93 or float(part[border].mean()) > 0.30:
        return everything
    inside, outside = level[part].astype(np.float32), level[~part].astype(np.float32)
    between = share * (1 - share) * float(inside.mean() - outside.mean()) ** 2
    total = float(level.astype(np.float32).var()) + 1e-6
    if between / total < 0.5 or not _is_outlined(lab, part, shadow, weakest=2.0 if between / total > 0.85 else 4.0):
        return everything
    return part


def _is_outlined(lab: NDArray[np.float32], part: Mask, shadow: Mask, weakest: float) -> bool:
    """Whether a part has a real outline: a step of at least ``weakest`` (dE) along a fairly compact shape.

    Blotches of shading or texture have soft borders, and highlights stand out less than the rest varies;
    printed traces have sharp borders but fill little of their convex hull, or run out of the picture repeatedly.
    """
    near = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (9, 9))
    mask = part.astype(np.uint8)
    rim_in = part & (cv2.erode(mask, near, borderValue=1) == 0)
    rim_out = ~part & (cv2.dilate(mask, near) > 0)
    inner = _mean_around(lab, rim_in)
    outer = _mean_around(lab, rim_out)
    line = (cv2.dilate(mask, np.ones((3, 3), np.uint8)) > 0) & ~part
    step = np.linalg.norm(inner - outer, axis=2)[line]
    if step.size == 0 or float(np.percentile(step, 20)) < weakest or float(np.median(step)) < 8.0:
        return False
    plain = ~part & ~shadow
    if plain.any() and float(np.median(step)) < 1.1 * float(lab[plain].std(axis=0).sum()):
        return False
    count, pieces = cv2.connectedComponents(mask)
    sides = np.concatenate([pieces[0], pieces[-1], pieces[:, 0], pieces[:, -1]])
    if count > 3 and len(np.unique(sides[sides > 0])) > 2:
        return False
    contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    biggest = max(contours, key=cv2.contourArea)
    hull = float(cv2.contourArea(cv2.convexHull(biggest)))
    return float(cv2.contourArea(biggest)) / max(hull, 1.0) > 0.45


def _mean_around(lab: NDArray[np.float32], where: Mask) -> NDArray[np.float32]:
    """Mean colour of the pixels ``where`` within a 13 px neighbourhood, at every pixel."""
    weight = where.astype(np.float32)
    total = cv2.blur(lab * weight[..., None], (13, 13))
    return np.asarray(total / np.maximum(cv2.blur(weight, (13, 13)), 1e-4)[..., None])


def _cast_shadow(lab: NDArray[np.float32], border: Mask) -> Mask:
    """Pixels that are a darker version of a clearly coloured background: its hue and saturation, less light.

    lab: (H, W, 3) 8-bit Lab as float32. All False on grey backgrounds, where a shadow has no colour to tell it.
    """
    light = lab[..., 0] / 2.55
    a, b = lab[..., 1] - 128, lab[..., 2] - 128
    here = [float(np.median(channel[border])) for channel in (light, a, b)]
    chroma = float(np.hypot(here[1], here[2]))
    if chroma < 20:
        return np.zeros(border.shape, bool)
    turn = np.degrees(np.arctan2(b * here[1] - a * here[2], a * here[1] + b * here[2]))
    saturation = np.hypot(a, b) / (light + 16)
    same = (np.abs(turn) < 7) & (saturation > 0.72 * chroma / (here[0] + 16))
    return np.asarray(same & (light < here[0] - 2) & (light > 0.25 * here[0]))


def _border_colours(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """Up to three mean colours (Lab) of the border, each holding at least 12% of it."""
    cv2.setRNGSeed(7)
    step = max(1, len(samples) // 4000)
    criteria = (cv2.TERM_CRITERIA_EPS + cv2.TERM_CRITERIA_MAX_ITER, 20, 0.5)
    start = np.zeros((len(samples[::step]), 1), np.int32)
    _, labels, centres = cv2.kmeans(samples[::step], 3, start, criteria, 2, cv2.KMEANS_PP_CENTERS)
    counts = np.bincount(labels.ravel(), minlength=3) / len(labels)
    return np.asarray(centres[counts >= 0.12] if (counts >= 0.12).any() else centres[[counts.argmax()]])


def _fill_marks(part: Mask) -> Mask:
    """Fill gaps inside the part that are marks on it; large gaps and round ones (bores) are openings and stay."""
    gaps = (~part).astype(np.uint8)
    _, labels, stats, _ = cv2.connectedComponentsWithStats(gaps, connectivity=4)
    filled = part.copy()
    frame = part.size
    for label in range(1, len(stats)):
        area = int(stats[label, cv2.CC_STAT_AREA])
        if area >= 0.004 * frame:
            continue
        gap = labels == label
        if area >= 0.0005 * frame and _is_round(gap):
            continue
        filled |= gap
    return filled


def _is_round(shape: Mask) -> bool:
    """Whether one connected shape is nearly an ellipse that is not much longer than wide."""
    contours, _ = cv2.findContours(shape.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    if len(contours[0]) < 12:
        return False
    (_, (minor, major), _) = cv2.minAreaRect(contours[0])
    minor, major = sorted((minor + 1, major + 1))
    fill = np.count_nonzero(shape) / (np.pi / 4 * minor * major)
    return bool(minor / major > 0.7 and 0.92 < fill < 1.1)


def _keep_big(mask: Mask, relative: float) -> Mask:
    """Drop components smaller than ``relative`` times the biggest."""
    _, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=4)
    areas = stats[:, cv2.CC_STAT_AREA].astype(np.float64)
    if len(areas) < 2:
        return mask
    keep = areas >= relative * areas[1:].max()
    keep[0] = False
    return np.asarray(keep[labels])


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
    return float(np.percentile(calm, 20) * np.sqrt(np.pi / 2) / 6)


def _blur(rgb: Image) -> float:
    """Sigma (px) of the sharpest edges: range of a step divided by its steepest slope, in [0.4, 4]."""
    luma = grey(_central_window(rgb, None, 1024))
    gx, gy = cv2.Sobel(luma, cv2.CV_32F, 1, 0, scale=1 / 8), cv2.Sobel(luma, cv2.CV_32F, 0, 1, scale=1 / 8)
    slope = cv2.magnitude(gx, gy)
    span = cv2.dilate(luma, np.ones((9, 9), np.uint8)) - cv2.erode(luma, np.ones((9, 9), np.uint8))
    strong = slope >= max(4.0, float(np.percentile(slope, 99)))
    if np.count_nonzero(strong) < 8:
        return 1.0
    sigma = float(np.percentile(span[strong] / (slope[strong] * 2.507), 25))
    return float(np.clip(np.sqrt(max(sigma**2 - 0.5, 0.16)), 0.4, 4.0))  # Sobel itself adds about 0.7 px


def _central_window(rgb: Image, part: Mask | None, side: int) -> Image:
    height, width = rgb.shape[:2]
    cy, cx = height // 2, width // 2
    if part is not None and not part.all():
        ys, xs = np.nonzero(part)
        cy, cx = int(np.median(ys)), int(np.median(xs))
    top, left = max(0, min(height - side, cy - side // 2)), max(0, min(width - side, cx - side // 2))
    return rgb[top : top + side, left : left + side]


def grain_of(luma: Field, part: Mask) -> Grain:
    """Dominant line direction and its coherence (structure tensor summed over the part's interior)."""
    gx, gy = cv2.Sobel(luma, cv2.CV_32F, 1, 0), cv2.Sobel(luma, cv2.CV_32F, 0, 1)
    inner = cv2.erode(part.astype(np.uint8), np.ones((7, 7), np.uint8), borderValue=1).astype(bool)
    inner = inner if np.count_nonzero(inner) > 50 else part
    slope = cv2.magnitude(gx, gy)[inner]
    limit = float(np.percentile(slope, 90)) + 1e-6
    weight = np.minimum(1.0, limit / (slope + 1e-6)) ** 2  # a few strong edges must not decide
    jxx, jyy = float((weight * gx[inner] ** 2).mean()), float((weight * gy[inner] ** 2).mean())
    jxy = float((weight * gx[inner] * gy[inner]).mean())
    gradient = 0.5 * np.arctan2(2 * jxy, jxx - jyy)
    coherence = float(np.hypot(jxx - jyy, 2 * jxy) / (jxx + jyy + 1e-6))
    return Grain(angle_deg=float((90.0 - np.degrees(gradient)) % 180.0), coherence=coherence)
