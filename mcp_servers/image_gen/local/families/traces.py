"""Conductors: a bridge between two of them (or a spur on one), and a gap in one."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray

from mcp_servers.errors import RegionError
from mcp_servers.image_gen.local import strokes
from mcp_servers.image_gen.local.canvas import Canvas, Layer
from mcp_servers.image_gen.local.families import _surface as surface
from mcp_servers.image_gen.local.fill import fill
from mcp_servers.image_gen.local.shading import luma, ramp
from mcp_servers.image_gen.local.spec import DefectSpec
from mcp_servers.image_gen.local.streams import Streams, fractal
from mcp_servers.vision.types import Field, Mask

Point = tuple[float, float]

NOTHING = "no conductor stands out here; set region around a trace, ask for another defect, or use a photo with traces"


def short(canvas: Canvas, spec: DefectSpec, streams: Streams) -> Layer:
    """Conductor where none should be: a ragged bridge to the neighbour, or a spur where no neighbour is near.

    A spur or an island where the prompt asks for one.
    """
    rng = streams("shape")
    solid = _conductor(canvas)
    if "island" in spec.shapes:
        return swap(canvas, spec, streams, _island(canvas, solid, spec, rng), solid)
    start, end, joined = _crossing(canvas, solid, rng)
    spur = "spur" in spec.shapes
    if spur and joined:
        share, joined = float(rng.uniform(0.35, 0.6)), False
        end = (start[0] + share * (end[0] - start[0]), start[1] + share * (end[1] - start[1]))
    gap = float(np.hypot(end[0] - start[0], end[1] - start[1]))
    turn = float(np.arctan2(end[1] - start[1], end[0] - start[0]))
    points = strokes.path(rng, start, turn, max(gap, 2.0), wander=0.18, kinks=0.12, count=32)
    points = np.asarray(points + np.linspace(0, 1, 32)[:, None] * (np.asarray(end) - points[-1]), np.float32)
    width = max(0.30 * canvas.length * (0.55 + 0.45 * spec.strength), 1.1 * canvas.hair)
    width = min(width, max(1.2 * gap, 1.1 * canvas.hair))
    line = strokes.ribbon(points, canvas.shape, 3 * width + 4)
    girth = np.clip(1 + 0.22 * strokes.smooth(rng, 32, 9, 3), 0.75, 1.6).astype(np.float32)
    if not joined:
        girth *= np.linspace(1.2, 0.45, 32, dtype=np.float32)
    rough = fractal(streams("border"), canvas.shape, max(0.5 * width, 2.5), 3, 0.6)
    bridge = 0.5 * width * strokes.sample(girth, line.along) - line.near + 0.05 * width * rough
    grown = surface.soft_max(np.asarray(bridge, np.float32), _signed(solid), 0.8 * width)
    grown = np.minimum(grown, 1.3 * width + 0.3 * width * rough - line.near).astype(np.float32)
    layer = swap(canvas, spec, streams, grown, solid)
    return layer if joined or spur else replace(layer, notes=("no second conductor near: a spur instead of a bridge",))


def _island(canvas: Canvas, solid: Mask, spec: DefectSpec, rng: np.random.Generator) -> Field:
    """A lobed spot in the widest free place nearby that touches no conductor. Raises RegionError without one."""
    free = -_signed(solid)
    x, y = canvas.grid()
    row, column = np.unravel_index(int(np.argmax(np.minimum(free, canvas.length) - 0.2 * np.hypot(x, y))), free.shape)
    room = float(free[row, column]) - 1.5 * canvas.hair
    if room < 0.5 * canvas.hair:
        raise RegionError("no free place between the conductors for an island; set region around one")
    dx, dy, c, s = x[row, column], y[row, column], np.cos(canvas.angle), np.sin(canvas.angle)
    centre = float(dx * c + dy * s), float(dy * c - dx * s)
    radius = min(0.5 * canvas.length * (0.6 + 0.4 * spec.strength), 0.9 * room)
    spot = surface.patch(canvas, rng, radius, aspect=float(rng.uniform(1.0, 1.7)), warp=0.2, rough=0.03, centre=centre)
    return np.asarray(np.minimum(spot, free - 1.5 * canvas.hair), np.float32)


def open_gap(canvas: Canvas, spec: DefectSpec, streams: Streams) -> Layer:
    """A conductor cut through: uneven ends, and what lies beside it shows in the gap."""
    rng = streams("shape")
    solid = _conductor(canvas)
    x, y, half, turn = _on_trace(canvas, solid)
    ys, xs = np.mgrid[0 : canvas.shape[0], 0 : canvas.shape[1]].astype(np.float32)
    along = (xs - np.float32(x)) * np.cos(turn) + (ys - np.float32(y)) * np.sin(turn)
    across = (ys - np.float32(y)) * np.cos(turn) - (xs - np.float32(x)) * np.sin(turn)
    width = max(0.42 * canvas.length * (0.6 + 0.4 * spec.strength), 1.3 * canvas.hair)
    rough = fractal(streams("border"), canvas.shape, max(0.7 * half, 2.5), 4, 0.6)
    slant = float(rng.normal(0, 0.25))
    gap = 0.5 * width - np.abs(along + slant * across) + 0.10 * min(width, 2 * half) * rough
    gap = np.minimum(gap, 1.5 * half + 1.5 * canvas.hair - np.abs(across))
    return swap(canvas, spec, streams, np.asarray(gap, np.float32), ~solid)


def swap(canvas: Canvas, spec: DefectSpec, streams: Streams, field: Field, source: Mask) -> Layer:
    """The place where ``field`` is positive made of what ``source`` is made of.

    Raises RegionError where that makes no difference that can be seen.
    """
    soft = 0.35 * canvas.hair
    inside = ramp(field, -soft, soft)
    size = 2 * max(1, round(0.9 * canvas.blur + 0.4 * canvas.scale)) + 1
    pure = cv2.erode(source.astype(np.uint8), np.ones((size, size), np.uint8)) > 0
    pure = pure if np.count_nonzero(pure) > 20 else source
    filled = fill(canvas.base, ~pure, pure, streams("fill"))
    cover = (inside * (0.6 + 0.4 * spec.strength**0.5))[..., None]
    rgb = (np.sqrt(canvas.base) * (1 - cover) + np.sqrt(filled) * cover) ** 2  # even steps to the eye
    apart = 255 * np.abs(np.sqrt(luma(rgb)) - np.sqrt(luma(canvas.base)))[inside > 0.5]
    if not len(apart) or float(np.percentile(apart, 75)) < 10:
        raise RegionError(NOTHING)
    change = cv2.dilate(np.abs(luma(rgb) - luma(canvas.base)), np.ones((3, 3), np.uint8))
    support = inside * ramp(change, 0.004, 0.03)
    return Layer(np.asarray(rgb, np.float32), support, keep=np.asarray(1 - 0.9 * inside, np.float32))


def _conductor(canvas: Canvas) -> Mask:
    """Conductors in the window: of its two clearly different tones the one that forms the slimmer shapes.

    In a picture of pure black and white (a binarised scan) conductors are the black.
    Raises RegionError where the window shows no two clearly different tones.
    """
    tone = cv2.GaussianBlur(np.clip(np.sqrt(luma(canvas.base)) * 255, 0, 255).astype(np.uint8), (0, 0), 1.0)
    inside = canvas.part > 0.5
    values = tone[inside]
    if len(values) < 64:
        raise RegionError(NOTHING)
    level, _ = cv2.threshold(values, 0, 1, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    bright, dark = (tone > level) & inside, (tone <= level) & inside
    share = float(bright.sum()) / len(values)
    step = float(tone[bright].mean() - tone[dark].mean()) if 0.02 < share < 0.98 else 0.0
    if step < 22 or share * (1 - share) * step**2 < 0.6 * float(values.astype(np.float32).var()):
        raise RegionError(NOTHING)
    if _steepness(canvas, tone, bright, inside) < 0.55 * step:  # light that falls off, not two materials
        raise RegionError(NOTHING)
    if float(tone[bright].mean()) > 235 and float(tone[dark].mean()) < 25:
        return np.asarray(dark)
    thickness = [float(cv2.distanceTransform(m.astype(np.uint8), cv2.DIST_L2, 5)[m].mean()) for m in (bright, dark)]
    return np.asarray(bright if thickness[0] < thickness[1] else dark)


def _steepness(canvas: Canvas, tone: NDArray[np.uint8], bright: Mask, inside: Mask) -> float:
    """How far the tone climbs across the borders of the bright places within the reach of the photo's blur."""
    kernel = np.ones((3, 3), np.uint8)
    borders = cv2.morphologyEx(bright.astype(np.uint8), cv2.MORPH_GRADIENT, kernel) > 0
    inner = cv2.erode(inside.astype(np.uint8), np.ones((5, 5), np.uint8), borderValue=1) > 0
    size = 2 * round(1.0 + 1.5 * canvas.blur + 1.2 * canvas.scale) + 1
    near = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size))
    climb = cv2.morphologyEx(tone, cv2.MORPH_GRADIENT, near)[borders & inner]
    return float(np.median(climb)) if len(climb) else 0.0


def _signed(mask: Mask) -> Field:
    """Distance (px) to the outline of a mask, positive inside."""
    inner = cv2.distanceTransform(mask.astype(np.uint8), cv2.DIST_L2, 5)
    outer = cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, 5)
    return np.asarray(inner - outer, np.float32)


def _crossing(canvas: Canvas, solid: Mask, rng: np.random.Generator) -> tuple[Point, Point, bool]:
    """Where a bridge starts and ends, and whether it reaches a second conductor."""
    _, labels, stats, _ = cv2.connectedComponentsWithStats(solid.astype(np.uint8))
    order = [i for i in np.argsort(-stats[:, cv2.CC_STAT_AREA]) if i and stats[i, cv2.CC_STAT_AREA] > canvas.hair**2][
        :6
    ]
    away = np.hypot(*canvas.grid())
    fields = [cv2.distanceTransform((labels != i).astype(np.uint8), cv2.DIST_L2, 5) for i in order]
    best: tuple[float, int, int, int] | None = None
    for a in range(len(order)):
        for b in range(a + 1, len(order)):
            cost = fields[a] + fields[b] + 0.25 * away
            at = int(np.argmin(np.where(solid, 1e9, cost)))
            if best is None or float(cost.flat[at]) < best[0]:
                best = (float(cost.flat[at]), a, b, at)
    if best is not None:
        _, a, b, at = best
        if float(fields[a].flat[at] + fields[b].flat[at]) < 1.5 * canvas.length:
            middle = (at % canvas.shape[1], at // canvas.shape[1])
            return _nearest(labels == order[a], middle), _nearest(labels == order[b], middle), True
    start = _nearest(solid, canvas.centre)
    slope = cv2.GaussianBlur(_signed(solid), (0, 0), max(2.0, canvas.hair))
    row, column = int(start[1]), int(start[0])
    dx = -float(cv2.Sobel(slope, cv2.CV_32F, 1, 0)[row, column])
    dy = -float(cv2.Sobel(slope, cv2.CV_32F, 0, 1)[row, column])
    turn = float(np.arctan2(dy, dx)) + float(rng.normal(0, 0.3))
    reach = 0.6 * canvas.length
    return start, (start[0] + reach * float(np.cos(turn)), start[1] + reach * float(np.sin(turn))), False


def _nearest(mask: Mask, to: Point) -> Point:
    """The pixel (x, y) of a mask that is nearest to a point."""
    ys, xs = np.nonzero(mask)
    best = int(np.argmin((xs - to[0]) ** 2 + (ys - to[1]) ** 2))
    return float(xs[best]), float(ys[best])


def _on_trace(canvas: Canvas, solid: Mask) -> tuple[float, float, float, float]:
    """A point in the middle of a conductor near the site: x, y, half its width, and its direction (radians).

    Raises RegionError where none passes through the window.
    """
    deep = cv2.distanceTransform(solid.astype(np.uint8), cv2.DIST_L2, 5)
    ridge = solid & (deep >= cv2.dilate(deep, np.ones((3, 3), np.uint8)) - 1e-3)
    mask = cv2.GaussianBlur(solid.astype(np.float32), (0, 0), 1.5)
    gx, gy = cv2.Sobel(mask, cv2.CV_32F, 1, 0), cv2.Sobel(mask, cv2.CV_32F, 0, 1)
    sigma = max(3.0, 1.2 * float(np.median(deep[ridge])))
    jxx, jyy, jxy = (cv2.GaussianBlur(p, (0, 0), sigma) for p in (gx * gx, gy * gy, gx * gy))
    coherence = np.hypot(jxx - jyy, 2 * jxy) / (jxx + jyy + 1e-9)
    turn = 0.5 * np.arctan2(2 * jxy, jxx - jyy) + np.pi / 2
    pad = np.maximum(deep / (1.4 * float(np.median(deep[ridge]))) - 1, 0)
    cost = np.hypot(*canvas.grid()) / canvas.length + 3 * (1 - coherence) + 4 * pad
    height, width = canvas.shape
    ys, xs = np.mgrid[0:height, 0:width].astype(np.float32)
    reach_x, reach_y = np.abs(np.sin(turn)) * (deep + 2), np.abs(np.cos(turn)) * (deep + 2)  # both flanks in view
    fits = (xs >= reach_x) & (xs < width - reach_x) & (ys >= reach_y) & (ys < height - reach_y)
    if not (ridge & fits).any():
        raise RegionError(NOTHING)
    at = int(np.argmin(np.where(ridge & fits, cost, 1e9)))
    row, column = at // canvas.shape[1], at % canvas.shape[1]
    return float(column), float(row), float(deep[row, column]), float(turn[row, column])
