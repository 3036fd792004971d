"""Broken edits of a good photo, one for each way in which an edit fails; the judge must tell them from real defects.

Where the object is, is estimated here with GrabCut, on purpose not with the judge's own finder.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from evaluation.data import Image, Mask

Field: TypeAlias = NDArray[np.float32]
Break: TypeAlias = Callable[[Image, Mask, Image, np.random.Generator], Image | None]
"""(photo, object (H, W), another photo, generator) -> the broken edit, or None where the photo has no room for it."""

WORK = 128
"""Longer side, in px, of the copy on which the object is looked for."""


def find_object(photo: Image) -> Mask:
    """(H, W): the object in front of a plain background; all True for textures and close-ups.

    GrabCut (Rother et al. 2004) from a frame of 4%. Believed where the object fills 5-85% of the photo, hardly
    touches its border (10%), fills its convex hull (75%; traces do not), and its median colour is far from the
    background's (1.5 times what both vary by).
    """
    height, width = photo.shape[:2]
    scale = WORK / max(height, width)
    size = (max(16, round(width * scale)), max(16, round(height * scale)))
    small = cv2.resize(photo, size, interpolation=cv2.INTER_AREA)
    margin = max(2, round(0.04 * min(size)))
    labels = np.full(small.shape[:2], cv2.GC_PR_FGD, np.uint8)
    frame = np.ones(labels.shape, bool)
    frame[margin:-margin, margin:-margin] = False
    labels[frame] = cv2.GC_BGD
    cv2.setRNGSeed(7)
    cv2.grabCut(small, labels, None, np.zeros((1, 65)), np.zeros((1, 65)), 4, cv2.GC_INIT_WITH_MASK)
    found = (labels == cv2.GC_PR_FGD).astype(np.uint8)
    found = cv2.morphologyEx(cv2.morphologyEx(found, cv2.MORPH_OPEN, disc(2)), cv2.MORPH_CLOSE, disc(3))
    count, pieces, stats, _ = cv2.connectedComponentsWithStats(found)
    everything = np.ones((height, width), bool)
    if count < 2:
        return everything
    found = np.asarray(pieces == 1 + int(stats[1:, cv2.CC_STAT_AREA].argmax()))
    near = np.ones(labels.shape, bool)
    near[margin + 2 : -margin - 2, margin + 2 : -margin - 2] = False
    if not 0.05 <= found.mean() <= 0.85 or found[near].mean() > 0.1:
        return everything
    lab = cv2.cvtColor(small, cv2.COLOR_RGB2LAB).astype(np.float32)
    inside, outside = lab[found], lab[~found]
    points = cv2.findNonZero(found.astype(np.uint8))
    if found.sum() < 0.75 * cv2.contourArea(cv2.convexHull(points)):
        return everything
    gap = float(np.linalg.norm(np.median(inside, 0) - np.median(outside, 0)))
    if gap < 1.5 * float(inside.std(0).mean() + outside.std(0).mean()):
        return everything
    return np.asarray(cv2.resize(found.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR) > 0.5)


def break_photo(kind: str, photo: Image, part: Mask, other: Image, rng: np.random.Generator) -> Image | None:
    """The photo (H, W, 3) broken in one of the ways of `KINDS`, or None where that cannot be done to it."""
    return KINDS[kind](photo, part, other, rng)


def off_object(photo: Image, part: Mask, other: Image, rng: np.random.Generator) -> Image | None:
    """A textured spot on the background, clear of the object."""
    radius = spot_size(part, rng)
    return spot_outside(photo, part, radius, (1.6 * radius, np.inf), rng)


def floating(photo: Image, part: Mask, other: Image, rng: np.random.Generator) -> Image | None:
    """A textured spot that hangs over the background, its centre beyond the outline."""
    radius = spot_size(part, rng)
    return spot_outside(photo, part, radius, (0.3 * radius, 0.7 * radius), rng)


def flat_rectangle(photo: Image, part: Mask, other: Image, rng: np.random.Generator) -> Image:
    """A filled rectangle of one colour."""
    box = box_on(part, rng, 0.08, 0.2)
    out = photo.copy()
    colour = rng.uniform(0, 255, 3)
    out[box] = np.rint(np.repeat(colour.mean(), 3) if is_grey(photo) else colour)
    return out


def huge(photo: Image, part: Mask, other: Image, rng: np.random.Generator) -> Image:
    """A dark spot over most of the object."""
    y, x = np.argwhere(part).mean(0)
    shape = spot(part.shape, x, y, extent(part) * rng.uniform(0.42, 0.55), rng)
    return blend(photo, shape, 0.4 * photo + 0.6 * colour_of(photo, rng, 20, 120) + 8 * ripples(part.shape, 3, rng))


def invisible(photo: Image, part: Mask, other: Image, rng: np.random.Generator) -> Image:
    """A spot lighter or darker by less than anyone sees (1.5-3.5 grey levels)."""
    shape = spot(part.shape, *point_on(part, rng), spot_size(part, rng), rng)
    return blend(photo, shape, photo + float(rng.choice([-1, 1])) * rng.uniform(1.5, 3.5))


def hard_paste(photo: Image, part: Mask, other: Image, rng: np.random.Generator) -> Image:
    """A rectangle cut out of another category's photo."""
    box = box_on(part, rng, 0.1, 0.25)
    out = photo.copy()
    height, width = out[box].shape[:2]
    source = cv2.resize(other, (part.shape[1], part.shape[0]), interpolation=cv2.INTER_AREA)
    y, x = (int(rng.integers(0, n - m + 1)) for n, m in zip(part.shape, (height, width), strict=True))
    out[box] = source[y : y + height, x : x + width]
    return out


def noise_patch(photo: Image, part: Mask, other: Image, rng: np.random.Generator) -> Image:
    """A spot of white noise."""
    shape = spot(part.shape, *point_on(part, rng), 1.3 * spot_size(part, rng), rng)
    noise = rng.normal(0, rng.uniform(25, 60), photo.shape)
    return blend(photo, shape, photo.mean() + (noise[..., :1] if is_grey(photo) else noise))


def recoloured(photo: Image, part: Mask, other: Image, rng: np.random.Generator) -> Image:
    """The whole picture in other colours, and no defect."""
    return clip(photo * rng.uniform(0.7, 1.15, 3) + rng.uniform(-25, 25, 3))


def nothing(photo: Image, part: Mask, other: Image, rng: np.random.Generator) -> Image:
    """The photo as it was."""
    return photo.copy()


KINDS: dict[str, Break] = {
    kind.__name__: kind
    for kind in (
        off_object, floating, flat_rectangle, huge, invisible, hard_paste, noise_patch, recoloured, nothing,
    )
}  # fmt: skip


def spot_outside(
    photo: Image, part: Mask, radius: float, reach: tuple[float, float], rng: np.random.Generator
) -> Image | None:
    """A textured spot whose centre is ``reach`` px away from the object; None where there is no such place."""
    distance = cv2.distanceTransform((~part).astype(np.uint8), cv2.DIST_L2, 3)
    allowed = (distance > reach[0]) & (distance < reach[1])
    edge = int(np.ceil(radius))
    inner = np.zeros_like(allowed)
    inner[edge:-edge, edge:-edge] = True
    places = np.argwhere(allowed & inner)
    if part.all() or not len(places):
        return None
    y, x = places[int(rng.integers(len(places)))]
    shape = spot(part.shape, x, y, radius, rng)
    return blend(photo, shape, 0.35 * photo + 0.65 * colour_of(photo, rng, 20, 90) + 6 * ripples(part.shape, 2, rng))


def spot(shape: tuple[int, ...], x: float, y: float, radius: float, rng: np.random.Generator) -> Field:
    """(H, W) in [0, 1]: an irregular spot with a border of 2 px."""
    ys, xs = np.mgrid[0 : shape[0], 0 : shape[1]]
    angle, distance = np.arctan2(ys - y, xs - x), np.hypot(ys - y, xs - x)
    wobble = 1 + sum(rng.uniform(-0.18, 0.18) * np.cos(k * angle + rng.uniform(0, 2 * np.pi)) for k in (2, 3, 5))
    return np.asarray(np.clip((radius * wobble - distance) / 2 + 0.5, 0, 1), np.float32)


def ripples(shape: tuple[int, ...], sigma: float, rng: np.random.Generator) -> Field:
    """(H, W, 1): smooth noise of unit standard deviation."""
    noise = cv2.GaussianBlur(rng.normal(0, 1, shape[:2]).astype(np.float32), (0, 0), sigma)
    return np.asarray(noise / noise.std())[..., None]


def spot_size(part: Mask, rng: np.random.Generator) -> float:
    """Radius in px: 5-10% of the object's extent."""
    return extent(part) * float(rng.uniform(0.05, 0.1))


def extent(part: Mask) -> float:
    """Square root of the object's area in px."""
    return float(np.sqrt(np.count_nonzero(part)))


def point_on(part: Mask, rng: np.random.Generator) -> tuple[float, float]:
    """(x, y) of a pixel of the object, 2 px clear of its outline where there is room."""
    inner = cv2.erode(part.astype(np.uint8), disc(2)) > 0
    places = np.argwhere(inner if inner.any() else part)
    y, x = places[int(rng.integers(len(places)))]
    return float(x), float(y)


def box_on(part: Mask, rng: np.random.Generator, low: float, high: float) -> tuple[slice, slice]:
    """A box around a point of the object, its sides ``low`` to ``high`` extents long."""
    x, y = point_on(part, rng)
    box = []
    for centre, size in ((y, part.shape[0]), (x, part.shape[1])):
        side = min(size, max(3, round(extent(part) * rng.uniform(low, high))))
        start = int(np.clip(centre - side / 2, 0, size - side))
        box.append(slice(start, start + side))
    return box[0], box[1]


def colour_of(photo: Image, rng: np.random.Generator, low: float, high: float) -> NDArray[np.float64]:
    """(3,) grey levels between ``low`` and ``high``: a grey where the photo is grey."""
    colour = rng.uniform(low, high, 3)
    return np.repeat(colour[:1], 3) if is_grey(photo) else colour


def is_grey(photo: Image) -> bool:
    """Whether the three channels are the same."""
    return bool((photo == photo[..., :1]).all())


def blend(photo: Image, shape: Field, over: NDArray[np.floating]) -> Image:
    """``over`` (H, W, 3) where ``shape`` (H, W) is 1, the photo where it is 0."""
    alpha = shape[..., None]
    return clip(photo * (1 - alpha) + alpha * over)


def clip(picture: NDArray[np.floating]) -> Image:
    """Rounded to uint8."""
    return np.asarray(np.clip(np.rint(picture), 0, 255), np.uint8)


def disc(radius: int) -> NDArray[np.uint8]:
    """Disc-shaped kernel for cv2 morphology."""
    return np.asarray(cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1)), np.uint8)
