"""Fill a hole in a photo with patches of a good surface: multi-scale PatchMatch (Barnes 2009; Wexler 2007).

Unlike a diffusion from the border, patches bring the surface's own grain, lines and weave along. They come from the
photo itself and from further photos of good parts, and a label channel (on the part or not) is matched together with
the colours, so that an outline is continued where it ran and a part is never filled with its background.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from mcp_servers.image_gen.local.fill import push_pull
from mcp_servers.vision.types import Image, Mask
from training.construction.canvas import RADIUS, Canvas, Floats, Source
from training.construction.patches import LARGE, PatchField

COARSEST = 20
"""Shorter side, in px, below which no coarser level is made."""


def fill_hole(photo: Source, donors: Sequence[Source], rng: np.random.Generator) -> Image:
    """The photo (H, W, 3) with every pixel that is not ``usable`` filled; all others stay as they are.

    photo.label must say of the hole's pixels too whether they are to be part. Deterministic in the arguments. Raises
    ValueError where neither the photo nor a donor holds a whole good patch.
    """
    hole = ~photo.usable
    if not hole.any():
        return photo.image.copy()
    filled: Floats | None = None
    coarser: PatchField | None = None
    for level in reversed(range(_levels(hole))):
        canvas = Canvas([_shrunk(source, level) for source in (photo, *donors)])
        base, missing = canvas.own, canvas.missing
        if filled is None:
            colours = canvas.smooth()
        else:
            colours = cv2.resize(filled, (base.shape[1], base.shape[0]), interpolation=cv2.INTER_LINEAR)
        base[missing, :3] = colours[missing]
        field = coarser = PatchField(canvas, rng, coarser)
        large = np.count_nonzero(missing) > LARGE
        for _ in range((1 if large else 2) if level == 0 else 5):
            field.search(rounds=1 if large else 2)
            base[missing, :3] = field.vote(sharp=False)[missing]
        filled = base[..., :3].copy()
    seamless = field.vote(sharp=True) + _seam(canvas, field)
    inner = seamless[RADIUS:-RADIUS, RADIUS:-RADIUS]
    out = np.clip(np.rint(inner), 0, 255).astype(np.uint8)
    return np.where(hole[..., None], out, photo.image)


def _levels(hole: Mask) -> int:
    """So many levels that the hole's depth is about a patch on the coarsest."""
    depth = float(cv2.distanceTransform(np.pad(hole, 1).astype(np.uint8), cv2.DIST_L2, 3).max())
    wanted = 1 + int(np.ceil(np.log2(max(1.0, depth / 2.5))))
    return max(1, min(wanted, 1 + int(np.log2(max(1.0, min(hole.shape) / COARSEST)))))


def _shrunk(source: Source, level: int) -> Source:
    if level == 0:
        return source
    height, width = source.label.shape
    size = (max(8, width >> level), max(8, height >> level))
    part, usable = (
        cv2.resize(mask.astype(np.float32), size, interpolation=cv2.INTER_AREA)
        for mask in (source.label, source.usable)
    )
    weight = source.usable.astype(np.float32)[..., None]
    total = cv2.resize(source.image * weight, size, interpolation=cv2.INTER_AREA)
    colours = total / np.maximum(usable, 1e-3)[..., None]
    return Source(np.clip(np.rint(colours), 0, 255).astype(np.uint8), part > 0.5, usable > 0.5)


def _seam(canvas: Canvas, field: PatchField) -> Floats:
    """What is to be added in the hole so that its border meets the photo: a membrane through the differences there."""
    missing = canvas.missing
    ring = (cv2.dilate(missing.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0) & ~missing
    gap = np.where(ring[..., None], canvas.own[..., :3] - field.vote(sharp=False), 0)
    spread = (
        cv2.GaussianBlur(gap, (0, 0), 1.5)
        / np.maximum(cv2.GaussianBlur(ring.astype(np.float32), (0, 0), 1.5), 1e-3)[..., None]
    )
    membrane = push_pull(np.asarray(spread, np.float32), ring.astype(np.float32))
    return np.where(missing[..., None], membrane, 0).astype(np.float32)
