"""A loose thread, hair or yarn that lies on the surface."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mcp_servers.image_gen.local import strokes
from mcp_servers.image_gen.local.canvas import Canvas, Layer
from mcp_servers.image_gen.local.families import _surface as surface
from mcp_servers.image_gen.local.shading import ramp
from mcp_servers.image_gen.local.spec import DefectSpec
from mcp_servers.image_gen.local.streams import Streams, fractal
from mcp_servers.vision.types import Field

SAMPLES = 120


def thread(canvas: Canvas, spec: DefectSpec, streams: Streams) -> Layer:
    """A curved fibre with a round, lit body, twisted where it is thick, and a shadow that leaves it where it lifts."""
    rng = streams("shape")
    factor = {"thin": 0.6, "hairline": 0.5, "wide": 2.2}
    width = 0.020 * canvas.length * float(np.prod([factor[w] for w in factor if w in spec.shapes]))
    width = max(width, 0.9 * canvas.hair)
    points = _course(rng, canvas.angle, "straight" in spec.shapes)
    points = _fitted(points, canvas)
    lift = np.clip(0.35 + 0.5 * strokes.smooth(rng, SAMPLES, 26, 2), 0, 1.4)
    lift[: SAMPLES // 8] += np.linspace(0.9, 0, SAMPLES // 8)
    body, light, shadow = _strand(canvas, points, width, np.asarray(lift, np.float32), rng)
    if width > 2.2 * canvas.hair:
        for _ in range(int(rng.integers(2, 5))):
            side, loose = float(rng.normal(0, 0.5)), float(rng.uniform(2.0, 6.0)) * width
            start = points[-1] if rng.random() < 0.6 else points[int(rng.integers(SAMPLES // 4, SAMPLES - 4))]
            step = points[-1] - points[-6]
            turn = float(np.arctan2(step[1], step[0])) + side
            end = strokes.path(
                rng, (float(start[0]), float(start[1])), turn, loose, bend=1.2 * side, wander=0.3, count=24
            )
            b, li, s = _strand(canvas, end, 0.5 * canvas.hair, np.full(24, 0.5, np.float32), rng)
            light = np.where(b > body, li, light)
            body, shadow = np.maximum(body, 0.7 * b), np.maximum(shadow, 0.6 * s)
    colour = surface.blended(canvas, _fibre(canvas, spec, rng), spec.strength)
    tone = fractal(streams("texture"), canvas.shape, max(6 * width, 4.0), 3)
    lit = np.clip(light * (1 + 0.10 * tone), 0.15, 2.2)
    solid = colour[None, None, :] * lit[..., None]
    ground = canvas.shaded(np.exp(-(0.15 + 0.8 * spec.strength) * shadow * (1 - body)).astype(np.float32))
    cover = body * (0.70 + 0.28 * spec.strength)
    rgb = ground + cover[..., None] * (solid - ground)
    support = np.maximum(body, ramp(shadow, 0.05, 0.4))
    return Layer(np.asarray(rgb, np.float32), support, keep=np.asarray(1 - 0.9 * body, np.float32))


def _course(rng: np.random.Generator, angle: float, straight: bool) -> strokes.Points:
    """The way a dropped fibre lies: curvature that changes by chance from piece to piece, a loop or a kink at times."""
    knots = int(rng.integers(4, 9))
    at = np.sort(np.concatenate([[0.0, 1.0], rng.uniform(0, 1, knots)]))
    curl = rng.normal(0, 1, len(at)) * rng.gamma(1.3, 1.0, len(at))
    turning = np.interp(np.linspace(0, 1, SAMPLES), at, curl) * (0.5 if straight else float(rng.uniform(2.0, 5.0)))
    where, side = float(rng.uniform(0.2, 0.8)), float(rng.choice([-1, 1]))
    t = np.linspace(0, 1, SAMPLES) - where
    chance = 1.0 if straight else rng.random()
    if chance < 0.3:  # a loop
        turning += side * 5.4 * np.exp(-((t / 0.07) ** 2)) / (0.07 * np.sqrt(np.pi))
    elif chance < 0.6:  # a kink
        turning += side * rng.uniform(0.7, 1.5) * np.exp(-((t / 0.012) ** 2)) / (0.012 * np.sqrt(np.pi))
    heading = np.cumsum(turning) / SAMPLES
    heading = angle + heading - heading.mean()
    return np.stack([np.cumsum(np.cos(heading)), np.cumsum(np.sin(heading))], 1).astype(np.float32)


def _fitted(points: strokes.Points, canvas: Canvas) -> strokes.Points:
    """The path scaled so that it spans the defect's length, around the centre."""
    low, high = points.min(0), points.max(0)
    scale = 0.95 * canvas.length / max(float((high - low).max()), 1.0)
    return np.asarray((points - (low + high) / 2) * scale + np.asarray(canvas.centre, np.float32), np.float32)


def _strand(
    canvas: Canvas, points: strokes.Points, width: float, lift: NDArray[np.float32], rng: np.random.Generator
) -> tuple[Field, Field, Field]:
    """Cover, light on the round body, and shadow on the ground of one strand."""
    line = strokes.ribbon(points, canvas.shape, 2 * width + 3)
    half = 0.5 * width * np.clip(1 + 0.17 * strokes.smooth(rng, 48, 14, 3), 0.55, 1.5).astype(np.float32)
    radius = strokes.sample(half, line.along)
    soft = min(0.35 * canvas.hair, 0.45 * width)
    body = ramp(radius - line.near, -soft, soft)
    across = np.clip(line.offset / np.maximum(radius, 1e-3), -1, 1)
    step = np.gradient(points, axis=0)
    norm = np.maximum(np.hypot(step[:, 0], step[:, 1]), 1e-6)
    nx = strokes.sample((-step[:, 1] / norm).astype(np.float32), line.along)
    ny = strokes.sample((step[:, 0] / norm).astype(np.float32), line.along)
    facing = across * (nx * canvas.light[0] + ny * canvas.light[1]) + np.sqrt(1 - across**2) * canvas.light[2]
    light = 0.35 + 0.75 * np.clip(facing, 0, 1) / max(canvas.light[2], 0.2)
    if width > 2.2 * canvas.hair:
        length = float(np.hypot(*np.diff(points, axis=0).T).sum())
        light = light * (1 + 0.22 * np.sin(line.along * length / width * 2.6 + 1.6 * across))
    norm_light = max(float(np.hypot(canvas.light[0], canvas.light[1])), 1e-3)
    away = np.array([-canvas.light[0], -canvas.light[1]], np.float32) / norm_light
    gap = (0.45 + 1.6 * lift)[:, None] * width
    fallen = strokes.ribbon(np.asarray(points + gap * away, np.float32), canvas.shape, 3 * width + 4)
    high = strokes.sample(lift, fallen.along)
    blur = width * (0.35 + 0.8 * high) + 0.3 * canvas.hair
    shadow = np.exp(-((fallen.near / (0.5 * width + blur)) ** 2)) * (0.8 - 0.35 * np.clip(high, 0, 1.4))
    return body, np.asarray(light, np.float32), np.asarray(shadow, np.float32)


def _fibre(canvas: Canvas, spec: DefectSpec, rng: np.random.Generator) -> NDArray[np.float32]:
    """Linear colour (3,) of the strand: the named one, else one that stands out from the surface."""
    pigment = surface.pigment(spec)
    if pigment is not None:
        return pigment
    tint = np.array([1.06, 1.0, 0.90], np.float32) if rng.random() < 0.5 else np.ones(3, np.float32)
    return np.asarray(tint * surface.opposite(canvas, rng, 0.035, 0.45), np.float32)
