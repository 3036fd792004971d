"""Openings in a surface: a pit, a puncture torn into something pliant, a hole through a conductor, a pitted patch."""

from __future__ import annotations

import cv2
import numpy as np

from mcp_servers.image_gen.local import strokes
from mcp_servers.image_gen.local.canvas import Canvas, Layer
from mcp_servers.image_gen.local.families import _surface as surface
from mcp_servers.image_gen.local.fill import fill
from mcp_servers.image_gen.local.maps import two_tone
from mcp_servers.image_gen.local.shading import cavity, glint, luma, ramp, relief_gain
from mcp_servers.image_gen.local.shapes import blob
from mcp_servers.image_gen.local.spec import DefectSpec
from mcp_servers.image_gen.local.streams import Streams, fractal
from mcp_servers.vision.types import Field, Mask


def hole(canvas: Canvas, spec: DefectSpec, streams: Streams) -> Layer:
    """A pit: ragged mouth with a raised lip, wall in shadow on the lamp's side, lit wall opposite, dark floor."""
    if "pitted" in spec.shapes:
        return _pitting(canvas, spec, streams)
    rng = streams("shape")
    round_ = "round" in spec.shapes
    if spec.pliant and not round_ and "conductor" not in spec.place and streams("kind").random() < 0.75:
        return _puncture(canvas, spec, streams)
    radius = max(0.45 * canvas.length, 1.1 * canvas.hair)
    aspect = 1.0 if round_ else float(rng.uniform(1.0, 1.7))
    field = blob(canvas, rng, radius, aspect=aspect, lobes=0.05 if round_ else 0.16, rough=0.05 if round_ else 0.09)
    if "conductor" in spec.place:
        tones = two_tone(np.sqrt(luma(canvas.base)) * 255)
        column, row = (round(min(max(c, 0), n - 1)) for c, n in zip(canvas.centre, canvas.shape[::-1], strict=True))
        board = tones != tones[row, column]
        if 0 < np.count_nonzero(board) < board.size:
            return _punched(canvas, field, board, spec.strength, streams)
    wall = max(0.35 * radius, canvas.hair)
    grit = fractal(streams("texture"), canvas.shape, max(0.5 * radius, 3.0), 5, 0.65)
    inside = ramp(field, -0.25 * wall, 0.35 * wall)
    bowl = ramp(field, 0.0, 1.4 * wall)
    lip = np.exp(-(((field + 0.25 * wall) / (0.45 * wall)) ** 2))
    height = -0.9 * radius * bowl * (1 + 0.08 * grit) + 0.22 * wall * lip + 0.05 * radius * grit * inside
    strength = canvas.depth(spec.strength)
    soft = cv2.GaussianBlur(np.asarray(height, np.float32), (0, 0), max(0.5 * canvas.scale, 0.6))
    gain = relief_gain(soft, canvas.light, 0.8 * strength)
    lx, ly = canvas.light[0], canvas.light[1]
    x, y = canvas.grid()
    towards = (x * lx + y * ly) / (radius * max(float(np.hypot(lx, ly)), 1e-3))
    dark = inside * (1.1 + 0.45 * np.clip(towards, -1, 1)) + 0.6 * bowl
    gain = np.asarray(gain * np.exp(-strength * 1.35 * dark * (1 + 0.12 * grit)), np.float32)
    support = np.maximum(inside, ramp(np.abs(np.log(gain)) / max(strength, 0.02), 0.04, 0.25))
    support = support * ramp(field, -1.6 * wall, -0.8 * wall)
    burr = glint(soft, canvas.light, 14.0) * lip * np.clip(0.5 + grit, 0, 1.5) * min(1.0, strength)
    rgb = cavity(canvas.base, gain) + (0.03 + 0.5 * canvas.tone) * 0.7 * burr[..., None]
    return Layer(np.asarray(rgb, np.float32), support, keep=np.asarray(1 - 0.5 * inside, np.float32))


def _puncture(canvas: Canvas, spec: DefectSpec, streams: Streams) -> Layer:
    """Something pointed went through a skin or a weave: a small dark mouth from which tears run, flaps curled up."""
    rng = streams("shape")
    radius = max(0.5 * canvas.length, 2.2 * canvas.hair)
    mouth = blob(canvas, rng, radius * float(rng.uniform(0.16, 0.42)), aspect=float(rng.uniform(1, 2.2)), lobes=0.3)
    mouth = mouth + 0.05 * radius * fractal(rng, canvas.shape, max(0.2 * radius, 2.5), 3, 0.7)
    start, turn = float(rng.uniform(0, 2 * np.pi)), 0.0
    count = int(rng.integers(2, 6))
    opening = np.asarray(mouth, np.float32)
    width = max(float(rng.uniform(0.07, 0.16)) * radius, 0.55 * canvas.hair)
    for index in range(count):
        turn = start + (index + float(rng.uniform(-0.3, 0.3))) * 2 * np.pi / count
        reach = radius * float(rng.uniform(0.35, 1.0))
        points = strokes.path(rng, canvas.centre, turn, reach, wander=0.3, kinks=0.35, count=20)
        line = strokes.ribbon(points, canvas.shape, 4 * width + 2)
        girth = width * np.maximum(1 - line.along, 0) ** 0.7 * float(rng.uniform(0.6, 1.3))
        opening = surface.soft_max(opening, np.asarray(girth - line.near, np.float32), 0.8 * width)
    soft = 0.3 * canvas.hair
    dark = ramp(opening, -soft, soft)
    ruffle = fractal(streams("texture"), canvas.shape, max(0.35 * radius, 3.0), 4, 0.65)
    curl = max(0.16 * radius, 0.9 * canvas.hair)
    away = np.maximum(-opening, 0)
    flap = np.exp(-((away / curl) ** 1.3)) * np.clip(0.7 + 0.5 * ruffle, 0.0, 1.6) * (1 - dark)
    height = cv2.GaussianBlur(np.asarray(0.75 * curl * flap, np.float32), (0, 0), max(0.12 * curl, 0.6))
    strength = canvas.depth(spec.strength)
    gain = relief_gain(height, canvas.light, 1.9 * strength) ** (1 - dark)
    sag = np.exp(-((away / (0.45 * radius)) ** 2))  # the surface around it is drawn in and soiled
    gain = gain * np.exp(-strength * (0.28 * sag * np.clip(0.8 + 0.5 * ruffle, 0, 1.6)))
    gain = gain * np.exp(-dark * (0.7 + 2.0 * strength) * np.clip(1 + 0.25 * ruffle, 0.5, 1.5))
    bright = glint(height, canvas.light, 16.0) * (1 - dark) * min(1.0, 1.3 * strength)
    rgb = cavity(canvas.base, np.asarray(gain, np.float32)) + ((0.08 + 0.9 * canvas.tone) * bright[..., None])
    support = np.maximum(dark, ramp(np.abs(np.log(gain)) / max(strength, 0.02), 0.06, 0.35))
    return Layer(np.asarray(rgb, np.float32), support, keep=np.asarray(1 - 0.7 * dark, np.float32))


def _punched(canvas: Canvas, field: Field, board: Mask, strength: float, streams: Streams) -> Layer:
    """A hole through a thin conductor: the board shows in it."""
    inside = ramp(field, -0.4 * canvas.hair, 0.4 * canvas.hair)
    reach = 2 * max(1, round(canvas.blur + 0.5 * canvas.scale)) + 1
    pure = cv2.erode(board.astype(np.uint8), np.ones((reach, reach), np.uint8)) > 0
    bare = fill(canvas.base, ~pure, pure if pure.any() else board, streams("fill"))
    cover = (inside * (0.55 + 0.45 * strength))[..., None]
    rgb = canvas.base + cover * (bare - canvas.base)
    return Layer(np.asarray(rgb, np.float32), inside, keep=np.asarray(1 - inside, np.float32))


def _pitting(canvas: Canvas, spec: DefectSpec, streams: Streams) -> Layer:
    """A patch broken out by wear or corrosion: a rough floor with crests and pockets, single pits around it."""
    rng = streams("shape")
    radius = 0.5 * canvas.length
    field = blob(canvas, rng, radius, aspect=float(rng.uniform(1.0, 1.8)), lobes=0.22, rough=0.1)
    size = max(0.22 * radius, 2.2 * canvas.hair)
    noise = surface.grained(canvas, streams("texture"), size, 1.8, 1.2)
    eaten = float(rng.uniform(0.3, 1.1))  # single pits up to one broken-out crater
    level = noise * (1.0 - 0.6 * eaten) + 2.6 * np.clip(field / radius, -2, 0.4) - 0.45 + 0.6 * eaten
    pits = ramp(level, 0.0, 0.5)
    floor = surface.grained(canvas, streams("floor"), max(0.9 * size, 2.5), 1.6, 1.0)
    crests = 1 - np.abs(np.clip(floor, -1.5, 1.5))  # broken metal: sharp ridges between hollows
    edge = 0.28 * canvas.hair
    height = -(0.25 * size + edge) * pits + (0.26 * size + edge) * (0.6 * crests + 0.4 * floor) * pits
    strength = canvas.depth(spec.strength)
    gain = relief_gain(np.asarray(height, np.float32), canvas.light, 1.6 * strength)
    tone = np.clip(1.05 - 0.6 * crests + 0.25 * noise, 0.0, 1.6)
    worn = ramp(field, -0.1 * radius, 0.6 * radius) * (1 - pits)
    gain = np.asarray(gain * np.exp(-strength * (1.15 * tone * pits + 0.15 * worn)), np.float32)
    bright = glint(np.asarray(height, np.float32), canvas.light, 10.0) * pits * min(1.0, strength)
    support = np.maximum(ramp(pits, 0.02, 0.3), 0.5 * worn) * ramp(field, -0.6 * radius, -0.3 * radius)
    rgb = cavity(canvas.base, gain) + (0.35 * canvas.tone) * bright[..., None]
    return Layer(np.asarray(rgb, np.float32), np.asarray(support, np.float32), np.asarray(1 - 0.6 * pits, np.float32))
