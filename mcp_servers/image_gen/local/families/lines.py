"""Damage that runs along a line: scratch, crack, cut."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from mcp_servers.image_gen.local import strokes
from mcp_servers.image_gen.local.canvas import Canvas, Layer
from mcp_servers.image_gen.local.families import breaks
from mcp_servers.image_gen.local.shading import Colour, cavity, glint, luma, ramp, relief_gain, to_linear
from mcp_servers.image_gen.local.spec import DefectSpec
from mcp_servers.image_gen.local.streams import Streams, fractal
from mcp_servers.vision.types import Field

SAMPLES = 64
"""Points on a path and samples of a profile along it."""


def scratch(canvas: Canvas, spec: DefectSpec, streams: Streams) -> Layer:
    """A groove ploughed by something hard: lit and dark flank, raised burr, skips, and finer companions."""
    rng, texture = streams("shape"), streams("texture")
    width = 1.4 * _width(canvas, spec, 0.012)
    bend = _bend(spec, rng, 0.22, 0.9)
    main = strokes.path(rng, (0, 0), canvas.angle, canvas.length, bend=bend, wander=0.03, count=SAMPLES)
    main = strokes.centred(main, canvas.centre)
    scuffed = "scuffed" in spec.shapes
    height, bare = _groove(canvas, main, width, _pressure(rng, 0.25))
    companions = int(rng.integers(0, 3)) + 2 * ("wide" in spec.shapes) + (16 if scuffed else 0)
    for _ in range(companions):
        begin, end = sorted(rng.uniform(0, 1, 2))
        begin, end = (begin, end) if end - begin > 0.2 else (max(0.0, begin - 0.2), min(1.0, end + 0.2))
        piece = main[int(begin * (SAMPLES - 1)) : int(end * (SAMPLES - 1)) + 1]
        normal = np.array([-np.sin(canvas.angle), np.cos(canvas.angle)], np.float32)
        spread = rng.normal(0, 0.10 * canvas.length) if scuffed else rng.choice([-1, 1]) * rng.uniform(2, 5) * width
        skew = np.linspace(-0.5, 0.5, len(piece), dtype=np.float32)[:, None] * rng.normal(0, 1.5) * width
        h, b = _groove(canvas, piece + normal * (spread + skew), 0.75 * width, 0.6 * _pressure(rng, 0.1))
        height, bare = height + h, np.maximum(bare, 0.8 * b)
    depth = canvas.depth(spec.strength)
    gain = relief_gain(1.5 * height, canvas.light, 1.7 * depth)
    exposed, darker = _substrate(canvas, spec, texture)
    mix = np.clip(bare * (0.08 + 0.86 * spec.strength**0.8) * (0.8 + canvas.contrast), 0, 0.95)[..., None]
    rgb = canvas.shaded(gain)
    low, high = (0.5, 1.1) if darker else (0.9, 1.9)  # the light of the groove must not undo its own tone
    rgb = rgb + mix * (exposed * np.clip(gain, low, high)[..., None] - rgb)
    shine = glint(1.5 * height, canvas.light) * min(1.0, depth)
    rgb = rgb + (0.10 + 0.5 * canvas.tone) * 0.5 * shine[..., None]
    support = np.maximum(bare, ramp(np.abs(np.log(gain)) / max(depth, 0.02), 0.06, 0.35))
    return Layer(np.asarray(rgb, np.float32), support, keep=np.asarray(1 - 0.6 * mix[..., 0], np.float32))


def crack(canvas: Canvas, spec: DefectSpec, streams: Streams) -> Layer:
    """A brittle fracture: kinked and forking, darkest in its core, tapering, one edge slightly lifted."""
    if {"whole", "wide"} <= spec.place | spec.shapes and breaks.shows_ground(canvas):
        return breaks.gap(canvas, spec, streams)
    rng = streams("shape")
    width = 1.3 * _width(canvas, spec, 0.011)
    kinks = 0.12 if "straight" in spec.shapes else 0.5 if "jagged" in spec.shapes else 0.32
    bend = _bend(spec, rng, 0.35, 1.1)
    main = strokes.path(rng, (0, 0), canvas.angle, canvas.length, bend=bend, wander=0.22, kinks=kinks, count=SAMPLES)
    main = strokes.splintered(rng, strokes.centred(main, canvas.centre), 0.11)
    at_outline, through = canvas.inward is not None, "whole" in spec.place
    if canvas.inward is not None and float((main[-1] - main[0]) @ np.asarray(canvas.inward, np.float32)) < 0:
        main = main[::-1].copy()  # it starts where the outline is
    ends = strokes.taper(len(main), 0.02 if through or at_outline else 0.35, 0.02 if through else 0.65) ** 1.4
    uneven = 0.95 + 0.32 * strokes.smooth(rng, len(main), 30, 2) + 0.15 * strokes.smooth(rng, len(main), 7, 2)
    open_ = ends * np.clip(uneven, 0.5, 1.9)
    pieces: list[tuple[strokes.Points, NDArray[np.float32]]] = [(main, np.asarray(open_, np.float32))]
    forks = int(rng.integers(1, 4)) + 3 * ("branching" in spec.shapes) - ("hairline" in spec.shapes)
    for _ in range(max(0, forks)):
        pieces.append(_fork(rng, main, open_, canvas.length, kinks))
    if "branching" in spec.shapes:
        pieces += [_fork(rng, points, profile, 0.5 * canvas.length, kinks) for points, profile in pieces[1:]]
    core, deep, halo, step = (np.zeros(canvas.shape, np.float32) for _ in range(4))
    grit = fractal(streams("texture"), canvas.shape, max(2.5 * width, 3.0), 4, 0.6)
    fine = fractal(streams("crumbs"), canvas.shape, max(0.8 * width, 2.5), 3, 0.7)
    ragged = width * (0.09 * grit + 0.06 * fine)
    for index, (points, profile) in enumerate(pieces):
        line = strokes.ribbon(points, canvas.shape, 5 * width + 2)
        local = strokes.sample(profile, line.along)
        half = 0.5 * width * np.maximum(local, 0.02)
        fade = np.clip(local * 3.5, 0, 1)
        aa = 0.35 * canvas.scale
        away = line.near + ragged * np.minimum(local, 1)
        mine = ramp(away, half + aa, np.maximum(half - aa, 0)) * fade
        lit = 0.87 + 0.13 * np.tanh(strokes.sample(strokes.smooth(rng, 48, 9, 2), line.along))
        core, deep = np.maximum(core, mine), np.maximum(deep, mine * lit * (0.6 + 0.4 * ramp(away / half, 0.9, 0.2)))
        halo = np.maximum(halo, np.exp(-((line.near / (0.9 * width)) ** 2)) * fade)
        if index == 0:
            lifted = np.exp(-np.maximum(line.offset, 0) / (1.6 * width)) * (line.offset > 0) * (line.near < 5 * width)
            step = np.asarray(0.45 * width * lifted * fade, np.float32)
    crumbs = ramp(fine + 0.5 * grit, 1.0, 1.7) * ramp(halo, 0.15, 0.7) * (1 - core)
    step = step + 0.30 * width * crumbs
    depth = canvas.depth(spec.strength)
    gain = np.exp(-(0.2 * spec.strength + depth) * (2.4 * deep * (1 + 0.10 * grit) + 0.18 * halo))
    gain = gain * relief_gain(step, canvas.light, 0.8 * depth) ** (1 - core)
    gain = gain * np.exp(0.12 * depth * grit * halo)
    if spec.colour is not None and float(np.mean(spec.colour)) > 150:  # light caught in a clear or pale material
        pigment = to_linear(np.array([[spec.colour]], np.float32))
        caught = np.clip(0.9 * depth * (0.8 + 0.3 * grit) * core, 0, 0.95)[..., None]
        rgb = canvas.base + caught * (pigment - canvas.base)
        core = np.asarray(core * _on_part(canvas), np.float32)
        return Layer(np.asarray(rgb, np.float32), core, keep=np.asarray(1 - 0.5 * core, np.float32))
    rgb = cavity(canvas.base, np.asarray(gain, np.float32)) + _pale_edge(canvas, core, halo, depth)
    support = np.maximum(core, ramp(np.abs(np.log(gain)) / max(depth, 0.02), 0.08, 0.6)) * _on_part(canvas)
    return Layer(np.asarray(rgb, np.float32), support, keep=np.asarray(1 - 0.4 * core, np.float32))


def cut(canvas: Canvas, spec: DefectSpec, streams: Streams) -> Layer:
    """A blade's slit: sharp-ended, gaping a little in the middle, dark inside, lips raised and one of them lit."""
    rng = streams("shape")
    width = _width(canvas, spec, 0.014) * float(np.exp(rng.uniform(-0.35, 0.45)))
    bend = _bend(spec, rng, 0.25, 1.0)
    points = strokes.path(rng, (0, 0), canvas.angle, canvas.length, bend=bend, wander=0.05, count=SAMPLES)
    if "straight" not in spec.shapes and rng.random() < 0.3:  # the blade was turned half-way
        points = _jogged(points, int(rng.integers(16, SAMPLES - 16)), float(rng.normal(0, 0.5)))
    points = strokes.splintered(rng, strokes.centred(points, canvas.centre), 0.05)
    t = np.linspace(0, 1, len(points))
    widest = float(rng.uniform(0.3, 0.7))
    lens = np.where(t < widest, t / widest, (1 - t) / (1 - widest)) ** 0.32
    gape = lens * np.clip(1 + 0.25 * strokes.smooth(rng, len(points), 40, 4), 0.45, 1.6)
    line = strokes.ribbon(points, canvas.shape, 6 * width + 2)
    local = strokes.sample(np.asarray(gape, np.float32), line.along)
    half = 0.5 * width * np.maximum(local, 0.03)
    aa = 0.3 * canvas.scale
    fade = np.clip(local * 3, 0, 1)
    ragged = 0.10 * width * fractal(streams("texture"), canvas.shape, max(2 * width, 3.0), 4)
    torn = float(rng.uniform(0.1, 0.45))  # how often fibres bridge it, or the blade left the surface
    clean = np.clip(0.9 + torn * strokes.smooth(rng, len(points), 18, 4), 0.15, 1.1)
    fade = fade * strokes.sample(np.asarray(clean, np.float32), line.along)
    slit = ramp(line.near + ragged, half + aa, np.maximum(half - aa, 0)) * fade
    lean = 1.0 if rng.random() < 0.5 else -1.0
    share = np.where(line.offset * lean > 0, 1.0, 0.45)
    from_lip = np.maximum(line.near - half, 0)
    curl = np.clip(0.6 + 0.6 * strokes.smooth(rng, 96, 5, 3), 0.05, 1.8)
    lip = share * np.exp(-((from_lip / (1.1 * width)) ** 1.2)) * fade * (line.near < 1e5)
    lip = np.asarray(lip * strokes.sample(curl.astype(np.float32), line.along), np.float32)
    depth = canvas.depth(spec.strength)
    relief = np.asarray(0.7 * width * lip * (1 - slit), np.float32)
    gain = relief_gain(relief, canvas.light, 1.2 * depth) ** (1 - slit)
    facing = line.offset / np.maximum(half, 1e-3) * _across_light(canvas)
    gain = gain * np.exp(-(0.15 * spec.strength + 0.9 * depth) * slit * (2.7 + 0.5 * np.clip(facing, -1, 1)))
    rgb = canvas.shaded(np.asarray(gain, np.float32))
    shine = glint(relief, canvas.light, 12.0) * (1 - slit) * min(1.0, depth)
    fibres = 0.35 * spec.strength * lip * (share > 0.5) * (1 - slit)  # paler where the finish is cut
    rgb = np.asarray(rgb + (0.04 + 0.45 * canvas.tone) * (0.8 * shine + fibres)[..., None], np.float32)
    support = np.maximum(
        np.maximum(slit, ramp(fibres, 0.03, 0.2)), ramp(np.abs(np.log(gain)) / max(depth, 0.02), 0.06, 0.4)
    )
    return Layer(np.asarray(rgb, np.float32), support, keep=np.asarray(1 - 0.7 * slit, np.float32))


def _jogged(points: strokes.Points, at: int, turn: float) -> strokes.Points:
    """The path turned by ``turn`` radians from point number ``at`` on."""
    c, s = np.cos(turn), np.sin(turn)
    rest = (points[at:] - points[at]) @ np.array([[c, s], [-s, c]], np.float32)
    return np.asarray(np.concatenate([points[:at], rest + points[at]]), np.float32)


def _on_part(canvas: Canvas) -> Field:
    """1 on the part, 0 on the soft rim of its outline, where a line would seem to run off it."""
    deep = cv2.distanceTransform((canvas.part > 0.5).astype(np.uint8), cv2.DIST_L2, 5)
    rim = canvas.scale + 0.8 * canvas.blur
    return ramp(deep, 0.5 * rim, 1.5 * rim)


def _width(canvas: Canvas, spec: DefectSpec, share: float) -> float:
    """Stroke width (px): grows with the length, changed by shape words, always visible in the whole photo."""
    factor = 0.4 if "hairline" in spec.shapes else 0.6 if "thin" in spec.shapes else 1.0
    factor *= 2.2 if "wide" in spec.shapes else 1.0
    return max(canvas.stroke * (1.1 + 0.5 * (factor - 1)), share * canvas.length * factor)


def _bend(spec: DefectSpec, rng: np.random.Generator, usual: float, curved: float) -> float:
    """Total turn of a path in radians."""
    draw = float(rng.normal(0, 1))
    if "straight" in spec.shapes:
        return 0.0
    return float(np.sign(draw) * (curved + 0.3 * abs(draw))) if "curved" in spec.shapes else usual * draw


def _pressure(rng: np.random.Generator, skips: float) -> NDArray[np.float32]:
    """Depth along a stroke, 0 to about 1.5: uneven, fading at the ends, lifting off here and there."""
    uneven = 0.95 + 0.3 * strokes.smooth(rng, SAMPLES, 14, 3)
    lift = strokes.smooth(rng, SAMPLES, 10, 2)
    gaps = np.clip((lift + 2.2 - 2.6 * skips) / 0.5, 0.2, 1)
    ends = strokes.taper(SAMPLES, float(rng.uniform(0.02, 0.15)), float(rng.uniform(0.2, 0.5)))
    return np.asarray(np.clip(uneven, 0.15, 1.5) * gaps * ends, np.float32)


def _groove(canvas: Canvas, points: strokes.Points, width: float, pressure: NDArray[np.float32]) -> tuple[Field, Field]:
    """Height (px) and bare core (0-1) of one stroke."""
    line = strokes.ribbon(points, canvas.shape, 3 * width + 2)
    force = strokes.sample(pressure, line.along)
    half = 0.5 * width * (0.55 + 0.45 * np.clip(force, 0, 1.5))
    d = line.near / np.maximum(half, 1e-3)
    height = force * half * (0.4 * np.exp(-(((d - 1.5) / 0.6) ** 2)) - np.exp(-d * d))
    return np.asarray(height, np.float32), np.asarray(ramp(d, 1.25, 0.6) * np.clip(force, 0, 1), np.float32)


def _substrate(canvas: Canvas, spec: DefectSpec, rng: np.random.Generator) -> tuple[Colour, bool]:
    """What a scratch lays bare and whether that is darker than the surface.

    It is the colour asked for where that stands out here, else greyer and paler than dark paint, darker than pale
    paint: a bright scratch on bright metal is seen by the shade in its furrow, beside its lit flank.
    """
    base = canvas.base
    grey = luma(base)[..., None]
    level = float(luma(canvas.tone[None, None, :])[0, 0])
    step = 0.65 + 0.65 * spec.strength + 2.5 * canvas.contrast
    paler = level < 0.3 or (level < 0.5 and rng.random() < 0.5)
    if spec.colour is not None:
        pigment = to_linear(np.array([[spec.colour]], np.float32))
        lift = float(np.log((luma(pigment)[0, 0] + 0.02) / (level + 0.02)))
        if abs(lift) > 0.7 * step or float(np.ptp(pigment)) > 0.25:
            return np.asarray(pigment * np.clip(grey / max(level, 0.01), 0.5, 1.6), np.float32), lift < 0
        paler = lift > 0 and level < 0.22
    if not paler:
        return np.asarray((0.8 * base + 0.2 * grey) * np.exp(-step), np.float32), True
    return np.asarray((0.12 * base + 0.88 * grey) * (np.exp(step) + 0.03 / (level + 0.01)), np.float32), False


def _pale_edge(canvas: Canvas, core: Field, halo: Field, depth: float) -> Colour:
    """Light scattered back by crushed material beside the core of a crack."""
    rim = np.clip(halo - 0.3, 0, 1) * (1 - core) ** 2
    return np.asarray((0.10 * min(depth, 1.0) * rim)[..., None] * (canvas.base + 0.01), np.float32)


def _fork(
    rng: np.random.Generator,
    points: strokes.Points,
    profile: NDArray[np.float32],
    length: float,
    kinks: float,
) -> tuple[strokes.Points, NDArray[np.float32]]:
    """A branch that leaves a crack at an acute angle and is thinner than it."""
    count = len(points)
    at = int(rng.integers(round(0.2 * count), round(0.8 * count)))
    near = max(4, count // 16)
    ahead = points[min(at + near, count - 1)] - points[max(at - near, 0)]
    angle = float(np.arctan2(ahead[1], ahead[0])) + float(rng.choice([-1, 1]) * rng.uniform(0.4, 1.0))
    reach = length * float(rng.uniform(0.12, 0.32))
    start = (float(points[at, 0]), float(points[at, 1]))
    branch = strokes.splintered(rng, strokes.path(rng, start, angle, reach, wander=0.2, kinks=kinks, count=24), 0.11)
    thin = 0.7 * float(profile[at]) * strokes.taper(len(branch), 0.01, 0.8)
    return branch, np.asarray(thin, np.float32)


def _across_light(canvas: Canvas) -> float:
    """How much of the light comes from the positive side of a line at canvas.angle, in [-1, 1]."""
    lx, ly = canvas.light[0], canvas.light[1]
    norm = max(float(np.hypot(lx, ly)), 1e-6)
    return float((-np.sin(canvas.angle) * lx + np.cos(canvas.angle) * ly) / norm)
