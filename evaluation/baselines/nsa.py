"""NSA, natural synthetic anomalies (Schlüter et al., ECCV 2022): patches of other photos, scaled, blended by Poisson
image editing, on the object."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from evaluation.data import Image, Mask, pick

HALF = (0.03, 2.0, 0.05, 0.2)
"""A patch's half-width as a share of the side: least, then Gamma's shape and scale; clipped to the last."""
SCALE = {"object": (0.7, 1.3), "texture": (0.5, 2.0)}
"""Limits of the patch's scaling, N(1, 0.5)."""
PATCHES = 4
"""At most so many patches: the first always, each other by the flip of a coin."""
OBJECT_SHARE, OVERLAP = 0.7, 0.25
"""Least share of object in the source patch, and least overlap of its object with the target's."""
TRIES = 200
LEAST = 8
"""Least side of a blended patch in px: Poisson blending needs some room."""
BACKGROUND = 20
"""Grey levels (0-255) within which a pixel counts as background, where the border of the photo is that even."""
VISIBLE = 1.0
"""Mean difference of the channels (0-255), after a median filter, above which a pixel is labelled."""


def generate(normal_images: Sequence[Image], rng: np.random.Generator) -> tuple[Image, Mask]:
    """Blend one to four patches of another photo into one; the mask is what visibly changed."""
    while True:
        image = pick(normal_images, rng)
        source = pick(normal_images, rng)
        source = np.asarray(cv2.resize(source, image.shape[1::-1], interpolation=cv2.INTER_AREA), np.uint8)
        target_object, source_object = foreground(image), foreground(source)
        out, touched = image, np.zeros(image.shape[:2], bool)
        for number in range(PATCHES):
            if number == 0 or rng.random() < 0.5:
                out, touched = _blend(out, target_object, source, source_object, touched, rng)
        difference = cv2.absdiff(out, image).astype(np.float32).mean(axis=2)
        mask = np.asarray(touched & (cv2.medianBlur(difference, 5) > VISIBLE))
        if mask.any():
            return out, mask


def foreground(image: Image) -> Mask:
    """(H, W): the object, where the border of the photo is an even background; else all of it."""
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.int32)
    border = np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]])
    level = int(np.median(border))
    if np.mean(np.abs(border - level) <= BACKGROUND) < 0.9:
        return np.ones(grey.shape, bool)
    inside = (np.abs(grey - level) > BACKGROUND).astype(np.uint8)
    inside = cv2.morphologyEx(inside, cv2.MORPH_CLOSE, np.ones((7, 7), np.uint8)) > 0
    return inside if 0.05 < inside.mean() < 0.95 else np.ones(grey.shape, bool)


def _blend(
    image: Image, target: Mask, source: Image, origin: Mask, touched: Mask, rng: np.random.Generator
) -> tuple[Image, Mask]:
    """One patch of ``source``, whose object is ``origin``, into ``image``, whose object is ``target``; all of one size.

    Returns the picture and ``touched`` with the patch added; both as they were where no place is found.
    """
    height, width = image.shape[:2]
    limits = SCALE["texture" if target.all() else "object"]
    least, shape, spread, most = HALF
    for _ in range(TRIES):
        down, across = (
            max(3, round(2 * side * min(least + rng.gamma(shape, spread), most))) for side in (height, width)
        )
        scale = float(np.clip(rng.normal(1, 0.5), *limits))
        into_down, into_across = (max(LEAST, round(scale * side)) for side in (down, across))
        if max(into_down / height, into_across / width) > 0.9:
            continue
        top, left = rng.integers(height - down + 1), rng.integers(width - across + 1)
        into_top = int(rng.integers(1, height - into_down))
        into_left = int(rng.integers(1, width - into_across))
        piece_object = origin[top : top + down, left : left + across]
        if piece_object.mean() < OBJECT_SHARE:
            continue
        size = (into_across, into_down)
        piece_object = cv2.resize(piece_object.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST) > 0
        window = (slice(into_top, into_top + into_down), slice(into_left, into_left + into_across))
        if (piece_object & target[window]).sum() < OVERLAP * piece_object.sum():
            continue
        piece = np.asarray(cv2.resize(source[top : top + down, left : left + across], size), np.uint8)
        centre = (into_left + into_across // 2, into_top + into_down // 2)
        used = ((piece_object | target[window]) * 255).astype(np.uint8)
        used[[0, -1]], used[:, [0, -1]] = 255, 255  # the whole rectangle counts, so that it lands where it was aimed
        blended = cv2.seamlessClone(piece, image, used, centre, cv2.NORMAL_CLONE)
        touched = touched.copy()
        touched[window] = True
        return np.asarray(blended, np.uint8), touched
    return image, touched
