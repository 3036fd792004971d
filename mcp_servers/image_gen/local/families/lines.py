"""Damage that runs along a line: scratch."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mcp_servers.image_gen.local import strokes
from mcp_servers.image_gen.local.canvas import Canvas, Layer
from mcp_servers.image_gen.local.shading import Colour, luma, ramp, relief_gain
from mcp_servers.image_gen.local.spec import DefectSpec
from mcp_servers.image_gen.local.streams import Streams
from mcp_servers.vision.scene import Field

SAMPLES = 64


def scratch(canvas: Canvas, spec: DefectSpec, streams: Streams) -> Layer:
    """A groove ploughed by something hard: lit and dark flank, raised burr, skips, and finer companions."""
    rng, texture = streams("shape"), streams("texture")
    width = _width(canvas, spec, 0.008)
    bend = 0.0 if "straight" in spec.shapes else float(rng.normal(0, 0.9 if "curved" in spec.shapes else 0.22))
    main = strokes.path(rng, (0, 0), canvas.angle, canvas.length, bend=bend, wander=0.03, count=SAMPLES)
    main = strokes.centred(main, canvas.centre)
    height, bare = _groove(canvas, main, width, _pressure(rng, 0.25))
    for _ in range(int(rng.integers(0, 3)) + ("wide" in spec.shapes)):
        begin, end = sorted(rng.uniform(0, 1, 2))
        if end - begin < 0.2:
            continue
        piece = main[int(begin * (SAMPLES - 1)) : int(end * (SAMPLES - 1)) + 1]
        normal = np.array([-np.sin(canvas.angle), np.cos(canvas.angle)], np.float32)
        shift = normal * rng.choice([-1, 1]) * rng.uniform(2.0, 5.0) * width
        h, b = _groove(canvas, np.asarray(piece + shift), 0.7 * width, 0.6 * _pressure(rng, 0.1))
        height, bare = height + h, np.maximum(bare, 0.8 * b)
    depth = canvas.depth(spec.strength)
    gain = relief_gain(height * 1.2, canvas.light, depth * 1.5)
    rgb = canvas.shaded(gain)
    exposed = _substrate(canvas, spec, texture)
    mix = np.clip(bare * min(1.0, 0.9 * depth), 0, 0.9)[..., None]
    rgb = rgb + mix * (exposed * np.clip(gain, 0.5, 2.0)[..., None] - rgb)
    support = np.maximum(bare, ramp(np.abs(np.log(gain)) / max(depth, 0.02), 0.04, 0.3))
    return Layer(np.asarray(rgb, np.float32), support, keep=np.asarray(1 - 0.6 * mix[..., 0], np.float32))


def _width(canvas: Canvas, spec: DefectSpec, share: float) -> float:
    """Stroke width (px): grows slowly with the length, changed by shape words, never under a visible hair."""
    factor = 0.55 if "hairline" in spec.shapes else 0.75 if "thin" in spec.shapes else 1.0
    factor *= 2.2 if "wide" in spec.shapes else 1.0
    return max(canvas.hair * (1.0 + 0.3 * (factor - 1)), share * canvas.length * factor)


def _pressure(rng: np.random.Generator, skips: float) -> NDArray[np.float32]:
    """Depth along a stroke, 0 to about 1.3: uneven, fading at the ends, lifting off here and there."""
    uneven = 0.9 + 0.3 * strokes.smooth(rng, SAMPLES, 14, 3)
    lift = strokes.smooth(rng, SAMPLES, 10, 2)
    gaps = np.clip((lift + 2.2 - 2.6 * skips) / 0.5, 0, 1)
    ends = strokes.taper(SAMPLES, float(rng.uniform(0.02, 0.15)), float(rng.uniform(0.2, 0.5)))
    return np.asarray(np.clip(uneven, 0.15, 1.5) * gaps * ends, np.float32)


def _groove(canvas: Canvas, points: strokes.Points, width: float, pressure: NDArray[np.float32]) -> tuple[Field, Field]:
    """Height (px) and bare core (0-1) of one stroke."""
    line = strokes.ribbon(points, canvas.shape, 4 * width + 2)
    force = strokes.sample(pressure, line.along)
    half = 0.5 * width * (0.55 + 0.45 * np.clip(force, 0, 1.5))
    d = line.near / np.maximum(half, 1e-3)
    height = force * half * (0.4 * np.exp(-(((d - 1.5) / 0.6) ** 2)) - np.exp(-d * d))
    return np.asarray(height, np.float32), np.asarray(ramp(d, 1.25, 0.6) * np.clip(force, 0, 1), np.float32)


def _substrate(canvas: Canvas, spec: DefectSpec, rng: np.random.Generator) -> Colour:
    """What a scratch lays bare: paler and greyer than a dark or coloured surface, darker than a pale one."""
    base = canvas.base
    grey = luma(base)[..., None]
    level = float(luma(canvas.tone[None, None, :])[0, 0])
    target = level * 1.9 + 0.06 if level < 0.35 else level * 0.5
    if 0.2 < level < 0.5 and rng.random() < 0.5:
        target = level * 1.5
    return np.asarray((0.3 * base + 0.7 * grey) * (target / max(level, 0.01)), np.float32)
