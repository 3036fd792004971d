"""Small maps for choosing a place: distances, shifts, steps, corners, outlines, elements and conductors."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from mcp_servers.knowledge.families import Family
from mcp_servers.vision.pixels import magnitude
from mcp_servers.vision.types import Field, Mask


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


def shifted(mask: Mask | Field, dx: float, dy: float) -> Field:
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


def chord(part: Mask, x: float, y: float, angle: float) -> tuple[float, float, float]:
    """Middle and length of the line through (x, y) from outline to outline."""
    dx, dy = float(np.cos(angle)), float(np.sin(angle))
    height, width = part.shape
    ends = []
    for sign in (-1, 1):
        t = 0
        while True:
            column, row = round(x + sign * (t + 1) * dx), round(y + sign * (t + 1) * dy)
            if not (0 <= column < width and 0 <= row < height and part[row, column]):
                break
            t += 1
        ends.append(sign * t)
    middle = (ends[0] + ends[1]) / 2
    return x + middle * dx, y + middle * dy, 1.08 * (ends[1] - ends[0]) + 2


def around(part: Mask, reach: float) -> tuple[float, float, float]:
    """Middle of the part and the length of a patch that covers it all; as ragged as it is."""
    ys, xs = np.nonzero(part)
    x, y = float(xs.min() + xs.max()) / 2, float(ys.min() + ys.max()) / 2
    return x, y, 2.7 * reach * float(np.hypot(xs - x, ys - y).max())


def corners(part: Mask, deep: Field, sigma: float) -> Field:
    """High where little of the neighbourhood (``sigma`` px) is part: convex corners of the outline."""
    share = cv2.GaussianBlur(part.astype(np.float32), (0, 0), max(2.0, sigma), borderType=cv2.BORDER_CONSTANT)
    line = part & (deep <= 2.5)
    best = float(np.percentile(share[line], 4)) if line.any() else 0.3
    return np.asarray(np.exp(-((np.maximum(share - best, 0) / 0.05) ** 2)), np.float32)


def unbroken(luma: Field, part: Mask, length: float, angle: float) -> Field:
    """Preference for lines of this length and direction that cross no sharp step of the part's shape."""
    soft = cv2.GaussianBlur(luma, (0, 0), 1.2)
    slope = magnitude(cv2.Sobel(soft, cv2.CV_32F, 1, 0), cv2.Sobel(soft, cv2.CV_32F, 0, 1)) / 8
    step = np.clip(slope / (3 * float(np.median(slope[part])) + 1.5) - 1, 0, 1).astype(np.float32)
    crossed = np.zeros_like(step)
    for t in np.linspace(-0.5, 0.5, 13):
        crossed += shifted(step, float(t * length * np.cos(angle)), float(t * length * np.sin(angle)))
    return np.asarray(np.exp(-2.0 * crossed), np.float32)


def outer_outline(part: Mask, luma: Field) -> Field:
    """Weight (H, W) of the part's pixels beside the background that surrounds it, more where the step is sharp.

    Bores and notches do not count; beside large openings it is small, so that they serve where nothing else may.
    """
    reach = max(2, round(0.03 * float(np.sqrt(np.count_nonzero(part)))))
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1, 2 * reach + 1))
    padded = np.pad(part, reach + 1).astype(np.uint8)
    closed = cv2.morphologyEx(padded, cv2.MORPH_CLOSE, kernel)[reach + 1 : -reach - 1, reach + 1 : -reach - 1]
    _, labels, stats, _ = cv2.connectedComponentsWithStats(1 - closed, connectivity=4)
    around = np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])
    weight = np.zeros(part.shape, np.float32)
    for index in range(1, len(stats)):
        outside = bool((around == index).any())
        if outside or stats[index, cv2.CC_STAT_AREA] > 0.02 * part.size:
            near = cv2.dilate((labels == index).astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
            weight = np.maximum(weight, near * part * np.float32(1.0 if outside else 0.02))
    slope = magnitude(cv2.Sobel(luma, cv2.CV_32F, 1, 0), cv2.Sobel(luma, cv2.CV_32F, 0, 1))
    sharp = cv2.dilate(slope, np.ones((5, 5), np.uint8))
    usual = float(np.percentile(sharp[weight > 0], 60)) + 1e-3 if weight.any() else 1.0
    return np.asarray(weight * np.clip(sharp / usual, 0.1, 1) ** 3, np.float32)


def edge_at_border(luma: Field, length: float) -> Field:
    """1 on the picture's border where an edge of the part runs beside it for ``length`` px: within 4% of the side a
    sharp step to a margin that differs strongly from what lies further in; 0 elsewhere."""
    weight = np.zeros_like(luma)
    margin = max(4, round(0.04 * max(luma.shape)))
    for turn in range(4):
        view = np.rot90(luma, turn)
        inner = view[margin : 4 * margin]
        step = np.abs(view[0] - np.median(inner, axis=0))
        jump = np.abs(view[2 : margin + 2] - view[:margin]).max(axis=0)
        clear = (step > np.maximum(30.0, 3 * np.std(inner, axis=0))) & (jump > 0.6 * step)
        run = np.ones((1, 2 * round(0.5 * length) + 1), np.uint8)
        np.rot90(weight, turn)[0:2] = cv2.erode(clear[None, :].astype(np.uint8), run, borderValue=0)[0]
    return weight


def stands_out(luma: Field, part: Mask, length: float) -> Field:
    """How much brighter (0-255) each pixel of the part is than what is usual within about ``length`` px."""
    on_part = np.where(part, luma, np.median(luma[part]) if part.any() else 0).astype(np.float32)
    step = max(1.0, length / 40)  # the median of a wide window on a small copy
    size = (max(1, round(luma.shape[1] / step)), max(1, round(luma.shape[0] / step)))
    small = cv2.resize(on_part, size, interpolation=cv2.INTER_AREA)
    usual = cv2.medianBlur(small.astype(np.uint8), 2 * max(1, round(0.65 * length / step)) + 1).astype(np.float32)
    return np.asarray(on_part - cv2.resize(usual, luma.shape[::-1], interpolation=cv2.INTER_LINEAR), np.float32)


def elements(luma: Field, part: Mask, length: float) -> Field:
    """1 around the middle of compact things about ``length`` px large that stand out from their surroundings."""
    differs = stands_out(luma, part, length)
    limit = max(24.0, 2.5 * float(np.median(np.abs(differs[part]))))
    found = np.zeros_like(luma)
    for mask in (differs > limit, differs < -limit):
        closed = cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_CLOSE, np.ones((3, 3), np.uint8))
        _, labels, stats, centres = cv2.connectedComponentsWithStats(closed)
        for index in range(1, len(stats)):
            (left, top, w, h, area), x, y = stats[index], round(centres[index][0]), round(centres[index][1])
            inner = left > 1 and top > 1 and left + w < luma.shape[1] - 1 and top + h < luma.shape[0] - 1
            size = 0.065 * length**2 < area < 0.8 * length**2 and area > 9
            whole = bool(part[top : top + h, left : left + w].all()) and labels[y, x] == index
            if inner and size and whole and area > 0.55 * w * h and max(w, h) < 2.5 * min(w, h):
                found[y, x] = 1
    return found


def binary(luma: Field) -> bool:
    """Whether a picture (0-255) is pure black and white, as a binarised scan of a board is."""
    return float(np.mean((luma < 40) | (luma > 215))) > 0.9


def conductors(solid: Mask, family: Family, reach: float) -> Field:
    """Where a conductor (OPEN) or a gap between two of them (SHORT) lies within ``reach`` px."""
    if family is Family.OPEN:
        deep = cv2.distanceTransform(solid.astype(np.uint8), cv2.DIST_L2, 5)
        middle = solid & (deep >= cv2.dilate(deep, np.ones((3, 3), np.uint8)) - 0.01)
        middle &= clearance(np.ones_like(solid)) > deep + 3  # both flanks in the picture
        if middle.any():
            slim = middle & (deep < min(1.5 * float(np.median(deep[middle])) + 0.5, 1.2 * reach + 3))
            middle = slim if slim.any() else middle
        return np.asarray(middle, np.float32)
    size = 2 * max(1, round(reach)) + 1
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size))
    closed = cv2.morphologyEx(solid.astype(np.uint8), cv2.MORPH_CLOSE, kernel) > 0
    gap = closed & ~solid
    return np.asarray((gap if gap.any() else cv2.dilate(solid.astype(np.uint8), kernel) > 0) * 1.0, np.float32)


def into_part(x: float, y: float, inward: tuple[float, float], angle: float, length: float) -> tuple[float, float]:
    """Centre of a line of this direction that starts at the outline and runs into the part."""
    dx, dy = float(np.cos(angle)), float(np.sin(angle))
    slant = dx * inward[0] + dy * inward[1]
    if abs(slant) < 0.25:
        return x + 0.08 * length * inward[0], y + 0.08 * length * inward[1]
    half = 0.49 * length * float(np.sign(slant))
    return x + half * dx, y + half * dy
