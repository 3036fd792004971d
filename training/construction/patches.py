"""The nearest-neighbour field of PatchMatch (Barnes 2009): which good patch lies on each patch of a hole."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from training.construction.canvas import RADIUS, Canvas, Floats

Indices = NDArray[np.int64]

STEP, WIDE_STEP = 2, 3
"""Distance of the patches that are laid into the hole, in px, and into a hole of more than ``LARGE`` px."""
LARGE = 12_000
SHARP = 0.42
"""Distance (sigma, in steps) up to which patches count in the last, sharp vote."""
TRUST = 0.75
"""Factor on the weight of a pixel in the hole for every px that it lies away from what is known."""


class PatchField:
    """Which source patch lies on each patch of the hole: the nearest-neighbour field of PatchMatch."""

    def __init__(self, canvas: Canvas, rng: np.random.Generator, coarser: PatchField | None) -> None:
        self.canvas, self.rng = canvas, rng
        reach = np.arange(-RADIUS, RADIUS + 1)
        self.offsets: Indices = (reach[:, None] * canvas.width + reach[None, :]).ravel().astype(np.int64)
        self.compared: Indices = self.offsets[::2]
        """Every second pixel of a patch, as on a chessboard: enough to compare by."""
        height, width = canvas.own_shape
        side = 2 * RADIUS + 1
        near = cv2.dilate(canvas.missing.astype(np.uint8), np.ones((side, side), np.uint8)) > 0
        self.step = WIDE_STEP if np.count_nonzero(canvas.missing) > LARGE else STEP
        self.ys, self.xs = (_grid(size, self.step) for size in (height, width))
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

    def _inherit(self, coarser: PatchField) -> None:
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
        """The photo's band (rows, columns, 3) as the patches see it: their mean, ``sharp`` of the nearest ones only."""
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
            share = (
                trust * np.float32(np.exp(-(dy * dy + dx * dx) / (2 * (SHARP * self.step) ** 2))) if sharp else trust
            )
            total[there] += share[:, None] * pixels
            weights[there] += share
        seen = (weights > 0)[:, None]
        plain = self.canvas.pixels.reshape(-1, 4)[: len(total), :3]
        mean = np.where(seen, total / np.maximum(weights, 1e-9)[:, None], plain)
        return np.asarray(mean.reshape(height, self.canvas.width, 3)[:, :width], np.float32)


def _grid(size: int, step: int) -> Indices:
    """Where patches are laid along a side of ``size`` px, so that they cover all of it."""
    return np.unique(np.append(np.arange(RADIUS, size - RADIUS, step), size - RADIUS - 1)).astype(np.int64)
