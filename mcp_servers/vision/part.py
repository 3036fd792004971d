"""Where the part is in a photo: the split from a plain background, or the whole picture where there is none."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from mcp_servers.vision.pixels import length, percentile
from mcp_servers.vision.types import Field, Image, Mask

LEVELS = (0.6, 0.85, 1.1, 1.4, 1.8)
"""Thresholds that are tried, as multiples of Otsu's."""


def find_part(rgb: Image) -> Mask:
    """Separate the part from a plain background; all True where there is none (textures, close-ups).

    The background is modelled by up to three colours of the picture's border (k-means in Lab); what differs
    from all of them is the part, at the threshold near Otsu's whose outline is steepest, mended with GrabCut
    (Rother et al. 2004). A split is believed only where the part hardly touches the border and differs from it
    clearly (between-class share of the variance, as in Otsu's criterion). rgb: (H, W, 3) uint8, meant for
    photos of a few hundred pixels: costs about 0.1 s at 320 px.
    """
    everything = np.ones(rgb.shape[:2], bool)
    lab = cv2.cvtColor(cv2.GaussianBlur(rgb, (0, 0), 1.2), cv2.COLOR_RGB2LAB).astype(np.float32)
    margin = max(2, round(0.03 * min(rgb.shape[:2])))
    border = np.ones(rgb.shape[:2], bool)
    border[margin:-margin, margin:-margin] = False
    distance, shadow = _unlike_border(lab, border)
    level = np.clip(distance * 2, 0, 255).astype(np.uint8)
    part = _steepest(level, lab)
    share = float(part.mean())
    if not 0.02 <= share <= 0.93 or float(part[border].mean()) > 0.30:
        return everything
    inside, outside = level[part].astype(np.float32), level[~part].astype(np.float32)
    between = share * (1 - share) * float(inside.mean() - outside.mean()) ** 2
    total = float(level.astype(np.float32).var()) + 1e-6
    if between / total < 0.5 or not _is_outlined(lab, part, shadow, weakest=2.0 if between / total > 0.85 else 4.0):
        return everything
    return _mended(rgb, part)


def _unlike_border(lab: NDArray[np.float32], border: Mask) -> tuple[Field, Mask]:
    """Distance (dE) of every pixel from the background's colours, small in its shadows; and those shadows."""
    centres = _border_colours(lab[border])
    distance = np.minimum.reduce([length(lab - c) for c in centres])
    shadow = _cast_shadow(lab, border)
    distance[shadow] *= 0.15
    return distance, shadow


def _steepest(level: NDArray[np.uint8], lab: NDArray[np.float32]) -> Mask:
    """The part at the threshold whose outline is steepest; of similar ones the lowest, which loses least."""
    otsu, _ = cv2.threshold(level, 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    best, steepest = np.zeros(level.shape, bool), 0.0
    for factor in LEVELS:
        part = _tidy(level > max(otsu * factor, 16))
        step = _steps(lab, part)
        steep = percentile(step, 20) if step.size else 0.0
        if steep > 1.1 * steepest:
            best, steepest = part, steep
    return best


def _tidy(part: Mask) -> Mask:
    radius = max(1, round(0.006 * max(part.shape)))
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
    opened = cv2.morphologyEx(part.astype(np.uint8), cv2.MORPH_OPEN, kernel)
    closed = cv2.morphologyEx(opened, cv2.MORPH_CLOSE, kernel).astype(bool)
    return _fill_marks(_keep_big(closed, 0.15))


def _mended(rgb: Image, part: Mask) -> Mask:
    """The part with its outline drawn where colours change: GrabCut within a band around the first guess."""
    width = max(2, round(0.05 * float(np.sqrt(np.count_nonzero(part)))))
    near = cv2.dilate(part.astype(np.uint8), np.ones((2 * width + 1, 2 * width + 1), np.uint8)) > 0
    labels = np.where(part, cv2.GC_PR_FGD, np.where(near, cv2.GC_PR_BGD, cv2.GC_BGD)).astype(np.uint8)
    if near.all() or part.all():
        return part
    ys, xs = np.nonzero(near)
    top, left = max(0, int(ys.min()) - 2 * width), max(0, int(xs.min()) - 2 * width)
    window = slice(top, int(ys.max()) + 2 * width), slice(left, int(xs.max()) + 2 * width)
    inner, lab = np.ascontiguousarray(labels[window]), cv2.cvtColor(rgb[window], cv2.COLOR_RGB2LAB)
    cv2.setRNGSeed(7)
    cv2.grabCut(lab, inner, None, np.zeros((1, 65)), np.zeros((1, 65)), 1, cv2.GC_INIT_WITH_MASK)
    cut = np.zeros(part.shape, bool)
    cut[window] = (inner == cv2.GC_FGD) | (inner == cv2.GC_PR_FGD)
    opened = cv2.morphologyEx(cut.astype(np.uint8), cv2.MORPH_OPEN, np.ones((3, 3), np.uint8)).astype(bool)
    mended = _fill_marks(_keep_big(opened, 0.15)) if opened.any() else part
    overlap = float((mended & part).sum()) / float((mended | part).sum())
    return mended if overlap > 0.8 else part


def _stands_out(step: NDArray[np.float32], plain: NDArray[np.float32]) -> bool:
    """Whether the step at the outline exceeds how the background varies; in colour alone where light varies a lot."""
    typical = float(np.median(step))
    return typical >= 8.0 and typical >= float(plain.std(axis=0).sum())


def _steps(lab: NDArray[np.float32], part: Mask) -> NDArray[np.float32]:
    """Difference (dE) between the inner and the outer side of the outline, at every pixel just outside it."""
    near = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (9, 9))
    mask = part.astype(np.uint8)
    inner = _mean_around(lab, part & (cv2.erode(mask, near, borderValue=1) == 0))
    outer = _mean_around(lab, ~part & (cv2.dilate(mask, near) > 0))
    line = (cv2.dilate(mask, np.ones((3, 3), np.uint8)) > 0) & ~part
    return np.asarray(np.linalg.norm(inner[line] - outer[line], axis=1), np.float32)


def _is_outlined(lab: NDArray[np.float32], part: Mask, shadow: Mask, weakest: float) -> bool:
    """Whether a part has a real outline: a step of at least ``weakest`` (dE) along a fairly compact shape.

    Blotches of shading or texture have soft borders, and highlights stand out less than the rest varies;
    printed traces have sharp borders but fill little of their convex hull, or run out of the picture repeatedly.
    """
    step = _steps(lab, part)
    if step.size == 0 or percentile(step, 20) < weakest or float(np.median(step)) < 8.0:
        return False
    plain = ~part & ~shadow
    if plain.any() and not (_stands_out(step, lab[plain]) or _stands_out(_steps(lab[..., 1:], part), lab[plain, 1:])):
        return False
    mask = part.astype(np.uint8)
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
