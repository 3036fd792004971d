"""Damage in depth without an opening: dent, fold, fray. Holes: see holes.py."""

from __future__ import annotations

import cv2
import numpy as np

from mcp_servers.image_gen.local import strokes
from mcp_servers.image_gen.local.canvas import Canvas, Layer
from mcp_servers.image_gen.local.families import _surface as surface
from mcp_servers.image_gen.local.shading import Colour, apply_gain, glint, ramp, relief_gain, slopes
from mcp_servers.image_gen.local.shapes import blob
from mcp_servers.image_gen.local.spec import DefectSpec
from mcp_servers.image_gen.local.streams import Streams, fractal
from mcp_servers.vision.types import Field


def dent(canvas: Canvas, spec: DefectSpec, streams: Streams) -> Layer:
    """The surface pushed in without being opened: texture and reflections bend, one slope shaded, one lit."""
    rng = streams("shape")
    radius = 0.40 * canvas.length
    aspect = 1.0 if "round" in spec.shapes else float(rng.uniform(1.0, 1.9))
    field = blob(canvas, rng, radius, aspect=aspect, lobes=0.14, rough=0.03)
    reach = np.clip((field + 0.12 * radius) / (0.75 * radius), 0, 1)
    bowl = reach * reach * (3 - 2 * reach)
    angle = canvas.angle + float(rng.uniform(-0.6, 0.6))
    shift = rng.uniform(-0.25, 0.25, 2) * radius
    x, y = canvas.grid()
    across = (y - shift[1]) * np.cos(angle) - (x - shift[0]) * np.sin(angle)
    crease = np.exp(-np.sqrt((across / (0.22 * radius)) ** 2 + 0.04)) * bowl
    swell = np.exp(-(((field + 0.18 * radius) / (0.18 * radius)) ** 2))
    waves = 0.03 * fractal(streams("texture"), canvas.shape, max(0.9 * radius, 4.0), 2) * bowl
    height = radius * np.asarray(-0.26 * bowl - 0.10 * crease + 0.045 * swell + waves, np.float32)
    height = cv2.GaussianBlur(height, (0, 0), max(0.035 * radius, 0.8))
    strength = canvas.depth(spec.strength)
    pressed = height * (0.25 + 0.85 * spec.strength)
    gain = relief_gain(pressed, canvas.light, 0.4 + 0.5 * strength)
    room = float(np.clip(0.45 / (surface.level(canvas) + 0.2), 0.35, 1.4))  # bright surfaces must not burn out
    gain = np.where(gain > 1, 1 + room * np.tanh((gain - 1) / room), gain).astype(np.float32)
    rgb = apply_gain(_bent(canvas, pressed, 0.5 * radius), gain)
    shine = glint(pressed, canvas.light, 26.0) * spec.strength
    rgb = rgb + (0.02 + 0.5 * canvas.tone) * 0.35 * shine[..., None]
    support = ramp(field, -0.30 * radius, -0.02 * radius)
    return Layer(np.asarray(rgb, np.float32), support)


def fold(canvas: Canvas, spec: DefectSpec, streams: Streams) -> Layer:
    """One strong crease or two: a sharp valley beside a rounded ridge; a bundle of fine ones for wrinkles."""
    if spec.rigid:
        return _buckle(canvas, spec, streams)
    if "wrinkled" in spec.shapes:
        return _wrinkles(canvas, spec, streams)
    rng = streams("shape")
    width = max(0.07 * canvas.length, 1.7 * canvas.hair) * (1.6 if "wide" in spec.shapes else 1.0)
    height = np.zeros(canvas.shape, np.float32)
    normal = np.array([-np.sin(canvas.angle), np.cos(canvas.angle)], np.float32)
    course = np.array([np.cos(canvas.angle), np.sin(canvas.angle)], np.float32)
    presence = np.zeros(canvas.shape, np.float32)
    for index in range(int(rng.integers(1, 3))):
        share = 1.0 if index == 0 else float(rng.uniform(0.4, 0.95))
        points = strokes.path(
            rng, (0, 0), canvas.angle + float(rng.normal(0, 0.09)), share * canvas.length,
            bend=float(rng.normal(0, 0.35)), wander=0.10, count=48,
        )  # fmt: skip
        aside = 0.0 if index == 0 else float(rng.normal(0, 2.6)) * width
        shift = normal * aside + course * float(rng.uniform(-0.5, 0.5)) * (1 - share) * canvas.length
        points = strokes.centred(points, canvas.centre) + shift
        depth = strokes.taper(48, 0.35, 0.45) * np.clip(1 + 0.3 * strokes.smooth(rng, 48, 10, 2), 0.3, 1.6)
        depth = depth * (1.0 if index == 0 else 0.65)
        side = float(rng.choice([-1, 1]))
        line = strokes.ribbon(np.asarray(points, np.float32), canvas.shape, 5 * width)
        local = strokes.sample(np.asarray(depth, np.float32), line.along)
        u = np.clip(line.offset * side / width, -50, 50)
        valley = -np.exp(-np.sqrt((u / 0.22) ** 2 + 0.05))
        ridge = 0.8 * np.exp(-(((u - 0.85) / 0.65) ** 2)) + 0.35 * np.exp(-(((u + 1.1) / 0.8) ** 2))
        height += np.asarray(width * local * (0.42 * valley + 0.62 * ridge), np.float32)
        presence = np.maximum(presence, local * np.exp(-((u / 2.6) ** 4)))
    height = cv2.GaussianBlur(height, (0, 0), max(0.06 * width, 0.6))
    strength = canvas.depth(spec.strength)
    raised = height * (0.45 + 0.35 * spec.strength)
    gain = relief_gain(raised, canvas.light, 2.0 * strength)
    sunk = ramp(-height / width, 0.08, 0.35)
    gain = np.asarray(gain * np.exp(-0.45 * strength * sunk), np.float32)
    rgb = apply_gain(_bent(canvas, raised, 0.6 * width), gain)
    support = np.maximum(ramp(np.abs(np.log(gain)) / max(strength, 0.02), 0.04, 0.3) * (presence > 0.02), 0.9 * sunk)
    return Layer(rgb, np.asarray(support, np.float32))


def _wrinkles(canvas: Canvas, spec: DefectSpec, streams: Streams) -> Layer:
    """A band in which a skin is pushed together: fine broken creases that run along it, over a shallow wave."""
    rng = streams("shape")
    length = canvas.length
    points = strokes.path(rng, (0, 0), canvas.angle, length, bend=float(rng.normal(0, 0.3)), wander=0.12, count=48)
    points = strokes.centred(points, canvas.centre)
    half = length * float(np.exp(rng.uniform(np.log(0.045), np.log(0.15))))
    half = max(half, 4 * canvas.hair)
    line = strokes.ribbon(points, canvas.shape, 2.5 * half)
    profile = strokes.taper(64, 0.2, 0.25) * np.clip(1 + 0.3 * strokes.smooth(rng, 64, 16, 2), 0.4, 1.6)
    girth = np.clip(1 + 0.35 * strokes.smooth(rng, 64, 20, 2), 0.5, 1.8)
    u = np.clip(line.offset / (half * strokes.sample(girth.astype(np.float32), line.along)), -9, 9)
    band = np.exp(-(np.abs(u) ** 2.4)) * strokes.sample(profile.astype(np.float32), line.along) * (line.near < 1e5)
    size = max(float(rng.uniform(0.16, 0.34)) * half, 2.2 * canvas.hair)
    reach = int(np.ceil(2.5 * half)) + 4
    stretch = float(rng.uniform(6.0, 12.0))
    flat = fractal(streams("texture"), (2 * reach, int(length) + 8), size, 3, 0.6, (stretch, 1.0))
    waver = 0.7 * size * fractal(streams("waver"), canvas.shape, max(7 * size, 4.0), 4)
    at_x = (line.along * length + 4).astype(np.float32)
    at_y = (np.clip(line.offset, -reach, reach) + waver + reach).astype(np.float32)
    folds = cv2.remap(flat, at_x, at_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
    gaps = fractal(streams("gaps"), canvas.shape, max(3 * size, 3.0), 2)
    crease = ramp(np.abs(folds), 0.38, 0.0) * ramp(gaps, -0.9, 0.6)
    wave = np.cos(2.2 * u + float(rng.uniform(0, 2 * np.pi)))
    height = band * (size * (0.12 * folds - 0.30 * crease) + 0.06 * half * wave)
    strength = 0.12 + canvas.depth(spec.strength)
    gain = relief_gain(np.asarray(height, np.float32), canvas.light, 1.2 * strength)
    gain = np.asarray(gain * np.exp(-strength * band * (0.6 * crease + 0.07)), np.float32)
    rgb = apply_gain(_bent(canvas, np.asarray(height, np.float32), 0.5 * size), gain)
    return Layer(rgb, ramp(band, 0.03, 0.3))


def _buckle(canvas: Canvas, spec: DefectSpec, streams: Streams) -> Layer:
    """Sheet or bar that gave way: one broad soft ridge with a shallow trough beside it, reflections bent over it."""
    rng = streams("shape")
    width = max(0.13 * canvas.length * (1.4 if "wide" in spec.shapes else 1.0), 3 * canvas.hair)
    bend = float(rng.normal(0, 0.25))
    points = strokes.path(rng, (0, 0), canvas.angle, canvas.length, bend=bend, wander=0.06, count=32)
    line = strokes.ribbon(strokes.centred(points, canvas.centre), canvas.shape, 4 * width)
    profile = strokes.taper(48, 0.5, 0.5) * np.clip(1 + 0.2 * strokes.smooth(rng, 48, 20, 2), 0.5, 1.4)
    local = strokes.sample(profile.astype(np.float32), line.along)
    u = np.clip(line.offset * float(rng.choice([-1, 1])) / width, -50, 50)
    rise = local * (np.exp(-((u / (0.75 + 0.25 * np.tanh(2 * u))) ** 2)) - 0.35 * np.exp(-(((u - 1.5) / 0.8) ** 2)))
    height = cv2.GaussianBlur(np.asarray(0.5 * width * rise, np.float32), (0, 0), 0.12 * width)
    strength = canvas.depth(spec.strength)
    raised = height * (0.25 + 0.75 * spec.strength)
    gain = relief_gain(raised, canvas.light, 0.5 + 1.5 * strength)
    rgb = apply_gain(_bent(canvas, raised, 0.5 * width), gain)
    shine = glint(raised, canvas.light, 26.0) * spec.strength
    rgb = rgb + (0.02 + 0.5 * canvas.tone) * 0.35 * shine[..., None]
    support = ramp(np.abs(rise), 0.02, 0.12)
    return Layer(np.asarray(rgb, np.float32), support)


def _abrasion(canvas: Canvas, spec: DefectSpec, streams: Streams) -> Layer:
    """A hard surface rubbed rough: granular scuffing along the grain, duller and a little flaked, thinning outwards."""
    rng = streams("shape")
    radius = 0.45 * canvas.length
    field = blob(canvas, rng, radius, aspect=float(rng.uniform(1.2, 2.2)), lobes=0.25, rough=0.15)
    crisp = float(rng.uniform(0.08, 0.75))  # how fast the wear ends: a rubbed-off print or a fading scuff
    inner = ramp(field, -0.5 * crisp * radius, 0.6 * crisp * radius)
    grain = surface.grained(canvas, streams("texture"), max(2.0 * canvas.hair, 0.03 * radius), 5.0, 1.6)
    chips = surface.grained(canvas, streams("flakes"), max(2.4 * canvas.hair, 0.07 * radius), 2.2, 1.2)
    cloud = fractal(streams("cloud"), canvas.shape, max(0.6 * radius, 4.0), 3)
    rubbed = inner * ramp(grain + 1.6 * (inner - 0.6), -0.6, 0.9)
    flaked = ramp(chips + 1.2 * (inner - 1), 1.3, 2.0) * inner
    size = max(canvas.hair, 0.02 * radius)
    relief = size * (0.25 * grain * rubbed - 0.5 * flaked)
    strength = canvas.depth(spec.strength)
    gain = relief_gain(np.asarray(relief, np.float32), canvas.light, strength)
    level = surface.level(canvas)
    # broken-up gloss: paler on dark, duller on bright surfaces; either where it is between
    paler = level < 0.12 or (level < 0.35 and rng.random() < 0.5)
    tone = 0.75 if paler else -0.6 - 0.5 * max(0.0, 2 * level - 1)
    if spec.colour is not None:
        tone = 1.0 if float(np.mean(spec.colour)) > 255 * level**0.45 else -1.0
    worn = (0.35 * rubbed + 0.45 * inner) * np.clip(1 + 0.25 * cloud, 0.3, 1.6)
    gain = np.asarray(gain * np.exp(strength * (tone * worn - 0.5 * flaked)), np.float32)
    support = np.maximum(ramp(rubbed, 0.02, 0.3), ramp(flaked, 0.02, 0.3)) * ramp(inner, 0.0, 0.15)
    return Layer(apply_gain(canvas.base, gain), np.maximum(support, ramp(inner, 0.1, 0.4)).astype(np.float32))


def fray(canvas: Canvas, spec: DefectSpec, streams: Streams) -> Layer:
    """A roughened patch: the surface's own texture torn up and deepened, with loose fibre ends standing off it."""
    if spec.rigid:
        return _abrasion(canvas, spec, streams)
    rng, texture = streams("shape"), streams("texture")
    radius = 0.42 * canvas.length
    field = blob(canvas, rng, radius, aspect=float(rng.uniform(1.1, 2.0)), lobes=0.2, rough=0.12)
    patch = ramp(field, -0.10 * radius, 0.35 * radius)
    hair = canvas.hair
    along = -np.radians(canvas.grain.angle_deg) if canvas.grain.coherence > 0.3 else canvas.angle
    coarse = max(hair, 0.022 * radius)
    torn = fractal(texture, canvas.shape, 3.5 * coarse, 4, 0.75)
    uneven = np.clip(0.75 + 0.45 * fractal(texture, canvas.shape, 0.5 * radius + 4, 2), 0.1, 1.6)
    torn = torn * patch * uneven * coarse * (0.32 + 0.30 * spec.strength)
    fibres = np.zeros(canvas.shape, np.float32)
    count = int(np.clip(1.5 * radius / coarse, 8, 60))
    for _ in range(count):
        r, theta = radius * np.sqrt(rng.uniform(0, 1)), rng.uniform(0, 2 * np.pi)
        start = (float(canvas.centre[0] + r * np.cos(theta)), float(canvas.centre[1] + r * np.sin(theta)))
        angle = float(along + rng.normal(0, 0.7) + (np.pi if rng.random() < 0.5 else 0))
        reach = max(radius * float(rng.uniform(0.25, 0.7)), 4 * coarse)
        points = strokes.path(rng, start, angle, reach, bend=float(rng.normal(0, 1.2)), wander=0.2, count=14)
        line = strokes.ribbon(points, canvas.shape, 2 * coarse + 1)
        thick = 0.36 * coarse * (1 - 0.6 * line.along)
        height = float(rng.uniform(0.5, 1.0)) * np.sqrt(np.clip(1 - (line.near / (1.3 * thick)) ** 2, 0, 1))
        fibres = np.maximum(fibres, np.asarray(height, np.float32))
    strength = canvas.depth(spec.strength)
    gain = relief_gain(torn, canvas.light, 1.1 * strength)
    shadow = _shifted(fibres, -canvas.light[0] * 1.6 * coarse, -canvas.light[1] * 1.6 * coarse)
    gain = gain * np.exp(-strength * (0.25 * patch + 0.8 * np.clip(shadow - fibres, 0, 1)))
    gain = gain * np.exp(0.75 * strength * fibres)
    if spec.colour is not None:
        tone = float(np.mean(spec.colour)) / 255
        gain = gain * np.exp(strength * patch * np.clip(1.6 * (tone - 0.5), -0.7, 0.5))
    gain = np.asarray(gain, np.float32)
    detail = canvas.base - canvas.lowpass(max(2.5 * hair, 2.0))
    base = np.maximum(canvas.base + (0.8 * spec.strength * patch)[..., None] * detail, 0)
    support = np.maximum(patch, ramp(np.maximum(fibres, shadow), 0.05, 0.4))
    return Layer(apply_gain(base, gain), np.asarray(support, np.float32))


def _bent(canvas: Canvas, height: Field, amount: float) -> Colour:
    """The surface seen through its own deformation: every pixel looks ``amount`` px down its slope."""
    dx, dy = slopes(height)
    rows, columns = canvas.shape
    ys, xs = np.mgrid[0:rows, 0:columns].astype(np.float32)
    limit = np.float32(max(amount, 0.0))
    at_x, at_y = xs + np.clip(amount * dx, -limit, limit), ys + np.clip(amount * dy, -limit, limit)
    return np.asarray(cv2.remap(canvas.base, at_x, at_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT), np.float32)


def _shifted(field: Field, dx: float, dy: float) -> Field:
    matrix = np.array([[1, 0, dx], [0, 1, dy]], np.float32)
    return np.asarray(cv2.warpAffine(field, matrix, (field.shape[1], field.shape[0])), np.float32)
