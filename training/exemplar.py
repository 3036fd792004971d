"""Fill a hole in a photo with patches of a good surface: multi-scale PatchMatch (Barnes 2009; Wexler 2007).

Unlike a diffusion from the border, patches bring the surface's own grain, lines and weave along. Patches may come from
the photo itself and from further photos of good parts, and a label channel (on the part or not) is matched together with
the colours, so that an outline is continued where it ran and a part is never filled with its background.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from mcp_servers.image_gen.local.fill import push_pull
from mcp_servers.vision.types import Image, Mask

Floats = NDArray[np.float32]
Indices = NDArray[np.int64]

RADIUS = 4
"""Half the side of a patch in px: 9 x 9."""
STEP, WIDE_STEP = 2, 3
"""Distance of the patches that are laid into the hole, in px, and into a hole of more than ``LARGE`` px."""
LARGE = 12_000
LABEL_WEIGHT = 300.0
"""Weight of the label channel in grey levels: a pixel on the wrong side of an outline costs more than any colour."""
COARSEST = 20
"""Shorter side, in px, below which no coarser level is made."""
TRUST = 0.75
"""Factor on the weight of a pixel in the hole for every px that it lies away from what is known."""


@dataclass(frozen=True, slots=True)
class Source:
    """A photo to take patches from: ``image`` (H, W, 3), ``label`` (H, W) the part, ``usable`` (H, W) its good pixels."""

    image: Image
    label: Mask
    usable: Mask


def fill_hole(photo: Source, donors: Sequence[Source], rng: np.random.Generator) -> Image:
    """The photo (H, W, 3) with every pixel that is not ``usable`` filled; all others stay as they are.

    photo.label must say of the hole's pixels too whether they are to be part. Deterministic in the arguments. Raises
    ValueError where neither the photo nor a donor holds a whole good patch.
    """
    hole = ~photo.usable
    if not hole.any():
        return photo.image.copy()
    levels = _levels(hole)
    filled = known = None
    field: _Field | None = None
    for level in reversed(range(levels)):
        canvas = _Canvas([_shrunk(source, level) for source in (photo, *donors)])
        base, missing = canvas.own, canvas.missing
        if filled is None:
            colours = canvas.smooth()
        else:
            colours = cv2.resize(filled, (base.shape[1], base.shape[0]), interpolation=cv2.INTER_LINEAR)
        base[missing, :3] = colours[missing]
        field = _Field(canvas, rng, field)
        large = np.count_nonzero(missing) > LARGE
        for _ in range((1 if large else 2) if level == 0 else 5):
            field.search(rounds=1 if large else 2)
            base[missing, :3] = field.vote(sharp=False)[missing]
        if level == 0:
            base[missing, :3] = field.vote(sharp=True)[missing]
            known = canvas
        filled = base[..., :3].copy()
    assert filled is not None
    assert known is not None
    assert field is not None
    seamless = filled + _seam(known, field)
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


class _Canvas:
    """All sources of one level below one another in one padded picture (rows, columns, 4): RGB and label."""

    def __init__(self, sources: Sequence[Source]) -> None:
        pad = RADIUS
        width = max(source.label.shape[1] for source in sources) + 2 * pad
        bands, usable = [], []
        for source in sources:
            colour = cv2.copyMakeBorder(source.image, pad, pad, pad, pad, cv2.BORDER_REFLECT).astype(np.float32)
            label, good = (
                cv2.copyMakeBorder(mask.astype(np.uint8), pad, pad, pad, pad, cv2.BORDER_REFLECT)
                for mask in (source.label, source.usable)
            )
            band = np.zeros((label.shape[0], width, 4), np.float32)
            band[:, : label.shape[1], :3] = colour
            band[:, : label.shape[1], 3] = LABEL_WEIGHT * label
            ok = np.zeros(band.shape[:2], np.uint8)
            ok[:, : label.shape[1]] = good
            ok[[0, -1]] = 0
            bands.append(band)
            usable.append(ok)
        self.pixels = np.concatenate(bands)
        good = np.concatenate(usable)
        self.good = good > 0
        side = 2 * RADIUS + 1
        self.centres = cv2.erode(good, np.ones((side, side), np.uint8), borderValue=0) > 0
        self.own_shape = (sources[0].label.shape[0] + 2 * pad, sources[0].label.shape[1] + 2 * pad)
        self.width = width

    @property
    def own(self) -> Floats:
        """The photo's own band, a view that may be written to."""
        view: Floats = self.pixels[: self.own_shape[0], : self.own_shape[1]]
        return view

    def smooth(self) -> Floats:
        """The photo's own band (rows, columns, 3) with the hole filled smoothly, the part from the part alone.

        A side of the outline of which the photo shows nothing gets the colour that the donors have there.
        """
        own, missing = self.own, self.missing
        out = own[..., :3].copy()
        for label in (False, True):
            side = (own[..., 3] > 0) == label
            if not (side & missing).any():
                continue
            known = side & ~missing
            if known.any():
                colours = push_pull(own[..., :3], known.astype(np.float32))
            else:
                there = self.good & ((self.pixels[..., 3] > 0) == label)
                colours = np.broadcast_to(
                    np.median(self.pixels[there if there.any() else self.good, :3], axis=0), out.shape
                )
            out[side & missing] = colours[side & missing]
        return out

    @property
    def missing(self) -> Mask:
        """The hole in the photo's own band."""
        inner = np.ones(self.own_shape, bool)
        inner[[0, -1]] = False
        return np.asarray(~self.good[: self.own_shape[0], : self.own_shape[1]] & inner)


class _Field:
    """Which source patch lies on each patch of the hole: the nearest-neighbour field of PatchMatch."""

    def __init__(self, canvas: _Canvas, rng: np.random.Generator, coarser: _Field | None) -> None:
        self.canvas, self.rng = canvas, rng
        reach = np.arange(-RADIUS, RADIUS + 1)
        self.offsets: Indices = (reach[:, None] * canvas.width + reach[None, :]).ravel().astype(np.int64)
        self.compared: Indices = self.offsets[::2]
        """Every second pixel of a patch, as on a chessboard: enough to compare by."""
        height, width = canvas.own_shape
        side = 2 * RADIUS + 1
        near = cv2.dilate(canvas.missing.astype(np.uint8), np.ones((side, side), np.uint8)) > 0
        step = WIDE_STEP if np.count_nonzero(canvas.missing) > LARGE else STEP
        self.ys, self.xs = (_grid(size, step) for size in (height, width))
        self.grid = near[np.ix_(self.ys, self.xs)]
        rows, columns = np.nonzero(self.grid)
        self.at: Indices = (self.ys[rows] * canvas.width + self.xs[columns]).astype(np.int64)
        self.rows, self.columns = rows, columns
        depth = cv2.distanceTransform(canvas.missing.astype(np.uint8), cv2.DIST_L2, 3)
        self.trust = np.zeros(canvas.good.shape, np.float32)
        self.trust[:height, :width] = TRUST**depth
        self.choices: Indices = np.flatnonzero(canvas.centres)
        if len(self.choices) == 0:
            raise ValueError("no good patch is left to fill the hole with")
        labels = canvas.pixels[..., 3].ravel()[self.choices] > 0
        self.by_label = [self.choices[~labels], self.choices[labels]]
        self.wanted = (canvas.pixels[..., 3].ravel()[self.at] > 0).astype(int)
        self.nearest: Indices = self._random()
        self.costs = np.full(len(self.at), np.inf, np.float32)
        if coarser is not None:
            self._inherit(coarser)

    def _random(self) -> Indices:
        """A random good patch for each, of the label wanted where there is one."""
        out = self.choices[self.rng.integers(len(self.choices), size=len(self.at))]
        for label, choices in enumerate(self.by_label):
            these = self.wanted == label
            if len(choices) and these.any():
                out[these] = choices[self.rng.integers(len(choices), size=int(these.sum()))]
        return out

    def _inherit(self, coarser: _Field) -> None:
        """Start from the field of the level below, its positions doubled; sources keep their band."""
        table = np.full(coarser.grid.shape, -1, np.int64)
        table[coarser.rows, coarser.columns] = coarser.nearest
        rows, columns = (
            np.clip(np.searchsorted(coarse, (fine[at] - RADIUS) // 2 + RADIUS), 0, len(coarse) - 1)
            for coarse, fine, at in ((coarser.ys, self.ys, self.rows), (coarser.xs, self.xs, self.columns))
        )
        found = table[rows, columns]
        y, x = found // coarser.canvas.width, found % coarser.canvas.width
        own = (found >= 0) & (y < coarser.canvas.own_shape[0])
        top, left = coarser.ys[rows], coarser.xs[columns]
        here_y, here_x = self.ys[self.rows], self.xs[self.columns]
        moved = (here_y + 2 * (y - top)) * self.canvas.width + here_x + 2 * (x - left)
        inside = own & (moved >= 0) & (moved < self.canvas.centres.size)
        inside[inside] = self.canvas.centres.ravel()[moved[inside]]
        self.nearest[inside] = moved[inside]

    def search(self, rounds: int) -> None:
        """Improve the field: take over the neighbours' patches, and try others near and far."""
        flat = self.canvas.pixels.reshape(-1, 4)
        around = self.at[:, None] + self.compared
        self.target = flat[around]
        weight = self.trust.ravel()[around]
        self.weight = weight / weight.sum(axis=1, keepdims=True)
        self.costs = self._cost(np.arange(len(self.at)), self.nearest)
        span = max(self.canvas.own_shape)
        for _ in range(rounds):
            for jump in (1, 3):
                for dy, dx in ((0, jump), (0, -jump), (jump, 0), (-jump, 0)):
                    self._take_over(dy, dx)
            reach = span // 2
            while reach >= 1:
                dy, dx = self.rng.integers(-reach, reach + 1, (2, len(self.at)))
                self._try(self.nearest + dy * self.canvas.width + dx)
                reach //= 3
            self._try(self._random())

    def _take_over(self, dy: int, dx: int) -> None:
        table = np.full(self.grid.shape, -1, np.int64)
        table[self.rows, self.columns] = self.nearest
        rows, columns = self.rows + dy, self.columns + dx
        ok = (rows >= 0) & (columns >= 0) & (rows < table.shape[0]) & (columns < table.shape[1])
        found = np.full(len(self.at), -1, np.int64)
        found[ok] = table[rows[ok], columns[ok]]
        moved = np.zeros(len(self.at), np.int64)
        moved[ok] = self.at[ok] - (self.ys[rows[ok]] * self.canvas.width + self.xs[columns[ok]])
        self._try(np.where(found >= 0, found + moved, -1))

    def _try(self, candidates: Indices) -> None:
        ok = (candidates >= 0) & (candidates < self.canvas.centres.size) & (candidates != self.nearest)
        ok[ok] = self.canvas.centres.ravel()[candidates[ok]]
        which = np.flatnonzero(ok)
        if len(which) == 0:
            return
        costs = self._cost(which, candidates[which])
        better = costs < self.costs[which]
        self.nearest[which[better]] = candidates[which[better]]
        self.costs[which[better]] = costs[better]

    def _cost(self, which: Indices, sources: Indices) -> Floats:
        """Weighted mean squared difference of patches, in squared grey levels."""
        flat = self.canvas.pixels.reshape(-1, 4)
        out = np.empty(len(which), np.float32)
        for start in range(0, len(which), 8192):
            part = slice(start, start + 8192)
            gap = flat[sources[part, None] + self.compared] - self.target[which[part]]
            out[part] = (np.einsum("npc,npc->np", gap, gap) * self.weight[which[part]]).sum(axis=1)
        return out

    def vote(self, sharp: bool) -> Floats:
        """The photo's band (rows, columns, 3) as the patches see it: their mean, or the best one's pixel (``sharp``)."""
        height, width = self.canvas.own_shape
        flat = self.canvas.pixels.reshape(-1, 4)[:, :3]
        total = np.zeros((height * self.canvas.width, 3), np.float32)
        weights = np.zeros(height * self.canvas.width, np.float32)
        spread = float(np.percentile(self.costs, 75)) + 1.0
        trust = np.exp(-self.costs / (2 * spread)) + 1e-6
        for offset in self.offsets:
            dy = round(float(offset) / self.canvas.width)
            dx = int(offset) - dy * self.canvas.width
            there = self.at + offset
            pixels = flat[self.nearest + offset]
            share = trust * np.float32(np.exp(-(dy * dy + dx * dx) / (2 * 1.3**2))) if sharp else trust
            total[there] += share[:, None] * pixels
            weights[there] += share
        seen = (weights > 0)[:, None]
        plain = self.canvas.pixels.reshape(-1, 4)[: len(total), :3]
        mean = np.where(seen, total / np.maximum(weights, 1e-9)[:, None], plain)
        return np.asarray(mean.reshape(height, self.canvas.width, 3)[:, :width], np.float32)


def _grid(size: int, step: int) -> Indices:
    """Where patches are laid along a side of ``size`` px, so that they cover all of it."""
    return np.unique(np.append(np.arange(RADIUS, size - RADIUS, step), size - RADIUS - 1)).astype(np.int64)


def _seam(canvas: _Canvas, field: _Field) -> Floats:
    """What is to be added in the hole so that its border meets the photo: a membrane through the border's differences."""
    missing = canvas.missing
    ring = (cv2.dilate(missing.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0) & ~missing
    gap = np.where(ring[..., None], canvas.own[..., :3] - field.vote(sharp=False), 0)
    spread = (
        cv2.GaussianBlur(gap, (0, 0), 1.5)
        / np.maximum(cv2.GaussianBlur(ring.astype(np.float32), (0, 0), 1.5), 1e-3)[..., None]
    )
    membrane = push_pull(np.asarray(spread, np.float32), ring.astype(np.float32))
    return np.where(missing[..., None], membrane, 0).astype(np.float32)
