"""Changes of colour without relief: stain, discoloration, rust, burn."""

from __future__ import annotations

import re

import cv2
import numpy as np
from numpy.typing import NDArray

from mcp_servers.image_gen.local import strokes
from mcp_servers.image_gen.local.canvas import Canvas, Layer
from mcp_servers.image_gen.local.families import _surface as surface
from mcp_servers.image_gen.local.shading import Colour, glint, luma, ramp, relief_gain
from mcp_servers.image_gen.local.spec import DefectSpec
from mcp_servers.image_gen.local.streams import Streams, fractal
from mcp_servers.vision.types import Field


def stain(canvas: Canvas, spec: DefectSpec, streams: Streams) -> Layer:
    """A liquid that soaked in and dried, or ink where the prompt names a saturated colour."""
    pigment = surface.pigment(spec)
    if pigment is not None and _is_vivid(pigment):
        return _ink(canvas, spec, streams, pigment)
    rng = streams("shape")
    radius = 0.42 * canvas.length
    field = _splash(canvas, spec, rng, radius)
    edge = max(canvas.hair, 0.05 * radius)
    wide = fractal(streams("texture"), canvas.shape, max(0.8 * radius, 4.0), 4)
    fine = fractal(streams("mottle"), canvas.shape, max(0.15 * radius, 3.0), 3)
    rim = edge * np.clip(1 + 0.5 * wide, 0.45, 2.0)
    film = ramp(field, -0.6 * edge, 0.6 * edge)
    tide = np.exp(-(((field - 0.9 * edge) / (0.9 * rim)) ** 2)) * np.clip(0.75 + 0.35 * wide, 0.15, 1.4)
    inner = np.exp(-(((field - 0.34 * radius - 0.06 * radius * wide) / (0.06 * radius)) ** 2))
    density = film * np.clip(0.6 + 0.5 * tide + 0.12 * inner + 0.16 * wide + 0.07 * fine, 0.1, 1.6)
    density *= 1 - 0.35 * np.clip(surface.detail(canvas, 3 * canvas.scale) / 0.4, -1, 1)
    depth = canvas.depth(spec.strength) * (1.3 + 0.9 * surface.pale(canvas))
    if pigment is None:
        rgb = surface.filtered(canvas.base, np.array([0.60, 0.53, 0.43], np.float32), depth * density)
    else:
        tint = np.clip(pigment / max(float(pigment.max()), 0.35), 0.03, 1)
        rgb = surface.filtered(canvas.base, tint.astype(np.float32), 0.6 * depth * density)
        rgb = rgb + np.clip(0.5 * spec.strength * density, 0, 0.8)[..., None] * (pigment - rgb)
    return Layer(np.asarray(rgb, np.float32), ramp(field, -1.4 * edge, 0.4 * edge))


def _is_vivid(pigment: NDArray[np.float32]) -> bool:
    """Whether a linear colour (3,) is that of ink or paint: black, or saturated and neither dark nor a brown."""
    red, green, blue = (float(c) for c in pigment)
    if float(pigment.max()) < 0.012:
        return True
    brown = red > green > blue and red < 0.35
    return float(np.ptp(pigment)) > 0.55 * float(pigment.max()) > 0.066 and not brown


def _splash(canvas: Canvas, spec: DefectSpec, rng: np.random.Generator, radius: float) -> Field:
    """A puddle with a few droplets beside it."""
    aspect = 1.0 if "round" in spec.shapes else float(rng.uniform(1.0, 1.7))
    aspect = max(aspect, 2.6) if "elongated" in spec.shapes else aspect
    size = 0.82 * radius
    warp = 0.06 if "round" in spec.shapes else 0.2
    field = surface.patch(canvas, rng, size, aspect=aspect, warp=warp, lobes=0 if "round" in spec.shapes else 4)
    x, y = canvas.axes()
    for _ in range(int(rng.integers(0, 5))):
        turn, far = rng.uniform(0, 2 * np.pi), radius * rng.uniform(0.95, 1.15)
        drop = radius * float(rng.uniform(0.03, 0.10))
        around = np.hypot(x - np.float32(far * np.cos(turn)), y - np.float32(far * np.sin(turn)))
        field = np.maximum(field, drop - around)
    return np.asarray(field, np.float32)


def _ink(canvas: Canvas, spec: DefectSpec, streams: Streams, pigment: NDArray[np.float32]) -> Layer:
    """Ink or paint: saturated strokes and drops, dark where they pool, bleeding at the border, dry on rough ground."""
    radius = 0.5 * canvas.length
    field = _strokes(canvas, streams("shape"), radius)
    edge = max(0.6 * canvas.hair, 0.03 * radius)
    cloud = fractal(streams("texture"), canvas.shape, max(0.6 * radius, 3.0), 4, 0.55)
    streaks = fractal(streams("brush"), canvas.shape, max(0.14 * radius, 2.5), 3, 0.6)
    valleys = np.clip(-surface.detail(canvas, 3 * canvas.scale) / max(2 * canvas.contrast, 0.02), -1, 1)
    rough = min(1.0, canvas.contrast / 0.10)
    film = ramp(field + rough * edge * (0.6 * streaks + 0.5 * valleys), -edge, 1.2 * edge)
    bleed = ramp(field + 0.05 * radius * cloud, -0.22 * radius, 0.05 * radius)
    pool = ramp(field / radius + 0.05 * cloud, 0.02, 0.26)
    density = film * np.clip(0.38 + 0.62 * pool + 0.14 * cloud + 0.2 * rough * valleys, 0.1, 1.3) + 0.07 * bleed
    tint = np.clip(0.88 * pigment / max(float(pigment.max()), 0.2), 0.012, 1).astype(np.float32)
    amount = 0.35 + 0.75 * spec.strength
    rgb = surface.filtered(canvas.base, tint, 2.1 * amount * density)
    dark = float(np.clip(1 - surface.level(canvas) / 0.35, 0, 1))
    body = np.clip(amount * (0.35 + 0.55 * dark) * density, 0, 0.94)
    shade = np.clip(surface.illumination(canvas, 4 * canvas.scale), 0.6, 1.4)[..., None]
    rgb = rgb + body[..., None] * (pigment * shade * (1 - 0.3 * pool[..., None]) - rgb)
    if streams("gloss").random() < 0.75 and rough < 0.8:  # still wet
        dome = 0.20 * radius * np.sqrt(np.clip(field / (0.22 * radius), 0, 1)) + 0.03 * radius * cloud * pool
        dome = cv2.GaussianBlur(dome.astype(np.float32), (0, 0), max(0.03 * radius, 0.8))
        shine = np.clip(1.6 * glint(dome, canvas.light, 40.0) * pool - 0.15, 0, 1) * surface.exposure(canvas)
        rgb = rgb + 0.85 * (1 - rough) ** 0.5 * shine[..., None]
    support = np.maximum(ramp(field, -1.6 * edge, 0.5 * edge), ramp(0.07 * bleed, 0.008, 0.06))
    return Layer(np.asarray(rgb, np.float32), support, keep=np.asarray(1 - 0.5 * film * spec.strength, np.float32))


def _strokes(canvas: Canvas, rng: np.random.Generator, radius: float) -> Field:
    """Outline of a few strokes with uneven pressure that run into a pool, and of drops beside them."""
    x, y = canvas.grid()
    shake = np.float32(0.035 * radius)
    x = x + shake * fractal(rng, canvas.shape, max(0.5 * radius, 3.0), 3)
    y = y + shake * fractal(rng, canvas.shape, max(0.5 * radius, 3.0), 3)
    field = np.full(canvas.shape, -1e3, np.float32)
    for index in range(int(rng.integers(2, 5))):
        start = (canvas.centre[0] + rng.normal(0, 0.3) * radius, canvas.centre[1] + rng.normal(0, 0.3) * radius)
        turn = canvas.angle + float(rng.normal(0, 0.25 if index == 0 else 1.2))
        reach = radius * float(rng.uniform(1.1, 1.9) if index == 0 else rng.uniform(0.3, 1.1))
        points = strokes.path(rng, (0, 0), turn, reach, bend=float(rng.normal(0, 1.3)), wander=0.2, count=14)
        line = strokes.ribbon(strokes.centred(points, start), canvas.shape, 0.8 * radius)
        girth = (
            radius
            * float(np.exp(rng.uniform(np.log(0.07), np.log(0.26))))
            * np.clip(1 + 0.4 * strokes.smooth(rng, 14, 5), 0.3, 2.0)
        )
        bar = strokes.sample(girth.astype(np.float32), line.along) - np.minimum(line.near, 2 * radius)
        field = surface.soft_max(field, np.asarray(bar, np.float32), 0.10 * radius)
    for _ in range(int(rng.integers(1, 8))):
        far, turn = radius * float(rng.uniform(0.0, 1.0)), float(rng.uniform(0, 2 * np.pi))
        size = max(radius * float(0.04 + 0.3 * rng.random() ** 2), 0.6 * canvas.hair)
        drop = size - np.hypot(x - np.float32(far * np.cos(turn)), (y - np.float32(far * np.sin(turn))))
        field = surface.soft_max(field, np.asarray(drop, np.float32), 0.08 * radius)
    return np.asarray(field + 0.02 * radius * fractal(rng, canvas.shape, max(0.3 * radius, 3.0), 3), np.float32)


def discoloration(canvas: Canvas, spec: DefectSpec, streams: Streams) -> Layer:
    """A region whose hue or brightness drifted: soft borders, uneven inside, the texture untouched."""
    rng = streams("shape")
    radius = 0.46 * canvas.length
    field = surface.patch(canvas, rng, 0.86 * radius, aspect=float(rng.uniform(1.0, 1.9)), warp=0.25)
    mottle = fractal(streams("texture"), canvas.shape, max(0.7 * radius, 4.0), 4, 0.55)
    soft = float(rng.uniform(0.45, 0.9)) * radius
    side = np.clip(1 + 0.6 * fractal(streams("border"), canvas.shape, max(1.6 * radius, 6.0), 1), 0.25, 1.8)
    field = cv2.GaussianBlur(field, (0, 0), 0.10 * radius)
    amount = ramp(field / side, -0.35 * soft, 0.9 * soft) * np.clip(0.85 + 0.22 * mottle, 0.3, 1.3)
    depth = canvas.depth(spec.strength)
    pigment = surface.pigment(spec)
    if pigment is not None:
        rgb = surface.recoloured(canvas, pigment, np.clip(0.85 * spec.strength * amount, 0, 1))
    else:
        brighter = surface.level(canvas) < 0.12 and rng.random() < 0.5
        warm = np.array([1.0, 0.86, 0.62] if rng.random() < 0.75 else [0.82, 0.86, 0.92], np.float32)
        tint = warm * np.float32(1.75 if brighter else 0.68)
        rgb = surface.filtered(canvas.base, tint, 2.3 * depth * amount)
    return Layer(rgb, ramp(amount, 0.02, 0.14))


RUST_TONES: tuple[tuple[int, int, int], ...] = ((44, 34, 23), (80, 56, 28), (118, 80, 34), (158, 112, 54))
"""sRGB of rust from wet and deep to dry and powdery."""


def rust(canvas: Canvas, spec: DefectSpec, streams: Streams) -> Layer:
    """Corrosion: granular red-brown islands with flaking borders, pits, and a stained halo."""
    rng = streams("shape")
    radius = 0.44 * canvas.length
    field = surface.patch(canvas, rng, 0.9 * radius, aspect=float(rng.uniform(1.0, 1.7)), warp=0.25, lobes=5)
    spots = fractal(streams("spots"), canvas.shape, max(0.40 * radius, 4.0), 6, 0.62)
    ground = field / radius + 0.17 * spots
    if "everywhere" in spec.place:
        ground = 0.85 * spec.strength - 0.15 + 0.16 * fractal(rng, canvas.shape, 0.5 * radius, 3) + 0.13 * spots
    edge = max(canvas.hair / radius, 0.03)
    grip = ramp(ground, -0.5 * edge, 0.9 * edge)
    heart = ramp(ground, 0.05, 0.65)
    coarse = fractal(streams("texture"), canvas.shape, max(0.35 * radius, 4.0), 5, 0.7)
    grit = fractal(streams("grit"), canvas.shape, max(2.2 * canvas.scale, 2.2), 2, 0.7)
    rgb = _oxide(canvas, spec, float(rng.uniform(0.36, 0.54)) + 0.16 * coarse + 0.09 * grit - 0.12 * heart)
    bare = ramp(coarse - 0.35 * spots, 0.9, 1.4)[..., None] * 0.6
    metal = np.array([1.0, 0.97, 0.80], np.float32) * np.float32(0.15 * _rust_exposure(canvas))
    rgb = rgb + bare * (metal - rgb)
    crust = grip * (0.5 + 0.25 * heart + 0.2 * coarse) * canvas.hair + 0.2 * grip * grit * canvas.scale
    gain = relief_gain(np.asarray(crust, np.float32), canvas.light, 0.3 + 0.5 * spec.strength)
    rgb = rgb * np.clip(gain * (1 + 0.08 * grit), 0.45, 1.5)[..., None]
    rgb = rgb * (0.55 + 0.45 * surface.illumination(canvas, 3 * canvas.scale))[..., None]
    rgb = rgb * np.exp(0.5 * surface.detail(canvas, 3 * canvas.scale))[..., None]
    halo: Field = np.asarray(ramp(ground, -0.38, 0.02) * (1 - 0.5 * grip), np.float32)
    stained = surface.filtered(canvas.base, _halo_tint(spec), 0.9 * canvas.depth(spec.strength) * halo)
    thick = (0.48 + 0.52 * spec.strength) * (0.72 + 0.45 * heart + 0.2 * coarse)
    cover = 0.97 * grip * ramp(thick + 0.10 * grit, 0.12, 0.72)  # grains that cover, not a veil
    out = stained + cover[..., None] * (rgb - stained)
    if _is_grey(canvas) and _rust_pigment(spec) is None:
        out = np.repeat(luma(out)[..., None], 3, 2)
    support = np.maximum(grip, ramp(halo, 0.04, 0.4))
    return Layer(np.asarray(out, np.float32), support, keep=np.asarray(1 - 0.75 * cover, np.float32))


def _is_grey(canvas: Canvas) -> bool:
    return bool(np.ptp(canvas.base, axis=2).max() < 1e-4)


def _oxide(canvas: Canvas, spec: DefectSpec, ripeness: Field) -> Colour:
    """Rust colour from dark (0) to powdery (1), as bright as the photo's exposure allows."""
    tones = np.stack([surface.linear(tone) for tone in RUST_TONES])
    pigment = _rust_pigment(spec)
    if pigment is not None:
        tones = luma(tones)[:, None] / luma(tones)[1] * pigment[None, :]
    at = np.clip(ripeness, 0, 1) * (len(tones) - 1)
    low = np.minimum(at.astype(int), len(tones) - 2)
    share = (at - low)[..., None]
    return np.asarray((tones[low] * (1 - share) + tones[low + 1] * share) * _rust_exposure(canvas), np.float32)


def _rust_exposure(canvas: Canvas) -> float:
    """How bright rust is in this photo relative to a well exposed one."""
    return float(np.clip(float(canvas.tone.max()) / 0.28, 0.4, 1.1))


def _rust_pigment(spec: DefectSpec) -> NDArray[np.float32] | None:
    """Colour that the prompt gives the corrosion; None for the hues of plain rust, which has its own tones."""
    return None if re.search("rust|brown|orange|red", spec.colour_name) else surface.pigment(spec)


def _halo_tint(spec: DefectSpec) -> NDArray[np.float32]:
    pigment = _rust_pigment(spec)
    if pigment is None:
        return np.array([0.80, 0.60, 0.38], np.float32)
    return np.asarray(0.35 + 0.6 * pigment / max(float(pigment.max()), 0.05), np.float32)


def burn(canvas: Canvas, spec: DefectSpec, streams: Streams) -> Layer:
    """Heat damage: charred core, brown fringe, and soot that thins out to one side."""
    rng = streams("shape")
    radius = 0.44 * canvas.length
    field = surface.patch(canvas, rng, 0.72 * radius, aspect=float(rng.uniform(1.0, 1.6)), warp=0.14, lobes=3)
    x, y = canvas.grid()
    turn = rng.uniform(0, 2 * np.pi)
    drift = (x * np.float32(np.cos(turn)) + y * np.float32(np.sin(turn))) / radius
    near = np.clip((field / radius + 0.55 + 0.16 * np.clip(drift, -1.5, 1.5)) / 1.25, 0, 1)
    wide = fractal(streams("texture"), canvas.shape, max(0.6 * radius, 4.0), 5, 0.6)
    grit = fractal(streams("grit"), canvas.shape, max(3.0 * canvas.scale, 2.5), 3, 0.7)
    heat = np.clip(near + 0.10 * wide * ramp(near, 0.0, 0.25), 0, 1)
    scorched = ramp(heat, 0.02, 0.50)
    brown = ramp(heat, 0.24, 0.72)
    char = ramp(heat, 0.50, 0.95)
    depth = float(np.clip(0.45 * canvas.depth(spec.strength) + 0.75 * spec.strength, 0, 1.6))
    rgb = surface.filtered(canvas.base, np.array([0.86, 0.74, 0.56], np.float32), depth * scorched)
    rgb = surface.filtered(rgb, np.array([0.50, 0.36, 0.24], np.float32), depth * brown)
    rgb = surface.filtered(rgb, np.array([0.22, 0.20, 0.20], np.float32), 1.15 * depth * char * (1 + 0.12 * grit))
    crust = np.asarray(0.5 * canvas.scale * grit * char, np.float32)
    rgb = rgb * relief_gain(crust, canvas.light, 0.9 * spec.strength)[..., None]
    ash = np.clip(0.03 * spec.strength * char * glint(crust, canvas.light, 12.0), 0, 1)
    rgb = rgb + ash[..., None] * np.float32(min(1.0, 2 * surface.level(canvas)))
    support = ramp(scorched, 0.03, 0.35)
    return Layer(np.asarray(rgb, np.float32), support, keep=np.asarray(1 - 0.4 * char, np.float32))
