"""Damage to the part as a whole: a missing piece, a bent outline, a piece out of its place. See also breaks.py."""

from __future__ import annotations

import cv2
import numpy as np

from mcp_servers.errors import RegionError
from mcp_servers.image_gen.local.canvas import Canvas, Layer
from mcp_servers.image_gen.local.families import _surface as surface
from mcp_servers.image_gen.local.families import breaks
from mcp_servers.image_gen.local.families.traces import swap
from mcp_servers.image_gen.local.fill import fill
from mcp_servers.image_gen.local.maps import binary, stands_out, two_tone
from mcp_servers.image_gen.local.shading import cavity, luma, ramp, relief_gain
from mcp_servers.image_gen.local.spec import DefectSpec
from mcp_servers.image_gen.local.streams import Streams, fractal
from mcp_servers.vision.types import Field, Mask


def missing(canvas: Canvas, spec: DefectSpec, streams: Streams) -> Layer:
    """A piece that is gone: a clean gap in the outline, a gap in a conductor of a binarised scan, else a flake."""
    if canvas.inward is not None:
        return breaks.bite(canvas, spec, streams, clean=True)
    rng = streams("shape")
    radius = 0.46 * canvas.length
    aspect, lobes = float(rng.uniform(1.0, 1.6)), int(rng.integers(3, 6))
    field = surface.patch(canvas, rng, 0.95 * radius, aspect=aspect, lobes=lobes, warp=0.16, rough=0.02)
    tone = np.sqrt(luma(canvas.base)) * 255
    if binary(tone) and two_tone(tone).any():
        return swap(canvas, spec, streams, field, ~two_tone(tone))
    step = max(0.10 * radius, 0.7 * canvas.hair)
    inside = ramp(field, -0.4 * canvas.hair, 0.4 * canvas.hair)
    strong = 0.25 + 0.75 * spec.strength
    grit = fractal(streams("texture"), canvas.shape, max(0.16 * radius, 2.5), 5, 0.75)
    scales = fractal(streams("scales"), canvas.shape, max(0.6 * radius, 4.0), 3, 0.5)
    height = -step * ramp(field, -0.5 * step, 1.1 * step) + (0.22 * scales + 0.07 * grit) * step * inside
    gain = relief_gain(np.asarray(height, np.float32), canvas.light, 0.9 * strong)
    shade = surface.cast_shadow(canvas, 1 - inside, 1.3 * step)
    here = surface.level(canvas)
    paler = here < 0.04 or (here < 0.25 and rng.random() < 0.5)
    bed = (-0.55 if paler else 0.35) * float(rng.uniform(0.5, 1.2)) + 0.08 * scales + 0.06 * grit  # the raw material
    gain = gain * np.exp(-strong * inside * (1.1 * shade + bed + (0.0 if paler else 0.8 * canvas.contrast)))
    fine = canvas.base - canvas.lowpass(max(3 * canvas.scale, 2.0))
    rough = np.maximum(canvas.base + (0.35 * strong * inside)[..., None] * fine, 0)
    rgb = cavity(np.asarray(rough, np.float32), np.asarray(gain, np.float32))
    support = np.maximum(ramp(field, -0.9 * canvas.hair, 0.1 * canvas.hair), ramp(np.abs(gain - 1), 0.04, 0.2))
    support = support * ramp(field, -2.5 * step, -step)
    return Layer(rgb, np.asarray(support, np.float32), keep=np.asarray(1 - 0.2 * inside, np.float32))


def bend(canvas: Canvas, spec: DefectSpec, streams: Streams) -> Layer:
    """The outline (or the lines of a texture) pushed out of its course, with the light of the new slope."""
    rng = streams("shape")
    inward = canvas.inward or (float(-np.sin(canvas.angle)), float(np.cos(canvas.angle)))
    x, y = canvas.grid()
    along = y * np.float32(inward[0]) - x * np.float32(inward[1])
    run = x * np.float32(inward[0]) + y * np.float32(inward[1])
    length = canvas.length
    outlined = bool((canvas.part < 0.05).mean() > 0.01)
    run = run if outlined else run - np.float32(0.45 * length * (canvas.inward is not None))  # off the picture's border
    skew = float(rng.uniform(-0.35, 0.35))
    spread = 0.24 * length * (1 + skew * np.tanh(along / (0.2 * length)))
    bump = np.exp(-((along / spread) ** 2))
    fade = np.cos(0.5 * np.pi * np.clip(run / (0.62 * length), -1, 1)) ** 2
    side = 1.0 if rng.random() < 0.65 else -1.0
    amount = side * length * (0.05 + 0.17 * spec.strength)
    push = np.asarray(amount * bump * fade, np.float32)
    ys, xs = np.mgrid[0 : canvas.shape[0], 0 : canvas.shape[1]].astype(np.float32)
    from_x, from_y = xs - push * np.float32(inward[0]), ys - push * np.float32(inward[1])
    moved = cv2.remap(canvas.base, from_x, from_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    part = cv2.remap(canvas.part, from_x, from_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    gain = relief_gain(
        np.asarray((-0.30 if outlined else -0.6) * np.abs(push), np.float32), canvas.light, 0.35 + 0.65 * spec.strength
    )
    rgb = moved * (1 + part * (gain - 1))[..., None]
    rim = 2 * round(1.2 * canvas.scale + 1.5 * canvas.blur + 0.012 * length) + 1  # what an outline leaves beyond it
    either = cv2.dilate(np.maximum(part, canvas.part), cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (rim, rim)))
    either = cv2.GaussianBlur(either, (0, 0), max(1.5 * canvas.blur, 1.5))
    support = ramp(np.abs(push), 0.15 * canvas.scale, 0.9 * canvas.scale) * ramp(either, 0.03, 0.2)
    moved_by = ramp(np.abs(push), 0.3 * canvas.scale, 1.5 * canvas.scale)
    keep = np.asarray(1 - 0.9 * moved_by, np.float32)
    notes = () if outlined else ("no outline of the part in view: the surface itself is bent",)
    return Layer(surface.exact(canvas, np.asarray(rgb, np.float32), support), support, keep, notes)


def misplaced(canvas: Canvas, spec: DefectSpec, streams: Streams) -> Layer:
    """A piece shifted and turned as a whole; its empty seat shows beside it."""
    rng = streams("shape")
    radius = 0.36 * canvas.length
    seat = _element(canvas, radius)
    if seat is None:
        raise RegionError("no separate element to misplace; set region around one, or ask for another defect")
    turn = float(np.pi if rng.random() < 0.3 else rng.choice([-1, 1]) * rng.uniform(0.25, 0.9))
    heading = float(rng.uniform(0, 2 * np.pi))
    step = radius * (0.20 + 0.45 * spec.strength)
    inside = ramp(seat, -0.4 * canvas.hair, 0.4 * canvas.hair)
    middle = _middle(inside)
    c, s = np.cos(-turn), np.sin(-turn)
    ys, xs = np.mgrid[0 : canvas.shape[0], 0 : canvas.shape[1]].astype(np.float32)
    px = xs - np.float32(middle[0] + step * np.cos(heading))
    py = ys - np.float32(middle[1] + step * np.sin(heading))
    from_x = (px * c - py * s + middle[0]).astype(np.float32)
    from_y = (px * s + py * c + middle[1]).astype(np.float32)
    piece = cv2.remap(canvas.base, from_x, from_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
    field = cv2.remap(seat, from_x, from_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=-1e3)
    lies = ramp(field, -0.4 * canvas.hair, 0.4 * canvas.hair)
    hole = seat > -0.8 * canvas.hair
    source = (seat < -1.5 * canvas.hair) & _interior(canvas)
    empty = fill(canvas.base, hole, source, streams("fill"), detail=0.8)
    strong = 0.25 + 0.75 * spec.strength
    sunk = surface.cast_shadow(canvas, 1 - inside, 0.16 * radius) * inside
    ground = np.where(hole[..., None], empty, canvas.base) * np.exp(-strong * (0.35 * inside + 0.6 * sunk))[..., None]
    shadow = surface.cast_shadow(canvas, lies, max(0.14 * radius, 1.2 * canvas.hair)) * (1 - lies)
    ground = ground * np.exp(-0.9 * strong * shadow)[..., None]
    edge = np.exp(-(((field - 0.4 * canvas.hair) / (0.6 * canvas.hair)) ** 2))
    lit = np.exp(-0.45 * strong * edge * surface.towards_light(canvas, np.asarray(field, np.float32)))
    rgb = ground + lies[..., None] * (piece * lit[..., None] - ground)
    support = np.maximum(np.maximum(ramp(seat, -canvas.hair, 0.0), lies), ramp(shadow, 0.03, 0.3))
    return Layer(np.asarray(rgb, np.float32), support, keep=np.asarray(1 - 0.8 * np.maximum(inside, lies), np.float32))


def _element(canvas: Canvas, radius: float) -> Field | None:
    """Distance field of the compact element at the site, which stands out; None where there is none."""
    apart = stands_out(np.sqrt(luma(canvas.base)) * 255, canvas.part > 0.5, canvas.length)
    row, column = (int(np.clip(v, 0, n - 1)) for v, n in zip(canvas.centre[::-1], canvas.shape, strict=True))
    near = max(1, round(0.12 * radius))
    patch = (slice(max(0, row - near), row + near + 1), slice(max(0, column - near), column + near + 1))
    here = float(np.median(apart[patch]))
    if abs(here) < 12:
        return None
    differs = (apart / here > 0.5).astype(np.uint8)
    differs[patch] = 1
    closed = cv2.morphologyEx(differs, cv2.MORPH_CLOSE, np.ones((5, 5), np.uint8))
    _, labels, stats, _ = cv2.connectedComponentsWithStats(closed)
    left, top, w, h, area = stats[labels[row, column]]
    inner = left > 1 and top > 1 and left + w < canvas.shape[1] - 1 and top + h < canvas.shape[0] - 1
    if not inner or not 0.4 * radius**2 < area < 7 * radius**2 or area < 0.4 * w * h:
        return None
    mask = (labels == labels[row, column]).astype(np.uint8)
    field = cv2.distanceTransform(mask, cv2.DIST_L2, 5) - cv2.distanceTransform(1 - mask, cv2.DIST_L2, 5)
    return np.asarray(field + 1.5 * canvas.hair, np.float32)


def _interior(canvas: Canvas) -> Mask:
    """The part without the bevels and highlights along its outline."""
    deep = cv2.distanceTransform((canvas.part > 0.98).astype(np.uint8), cv2.DIST_L2, 5)
    inner = deep > 0.08 * canvas.length + 2 * canvas.hair
    return np.asarray(inner if inner.mean() > 0.1 else canvas.part > 0.98)


def _middle(weight: Field) -> tuple[float, float]:
    """Centre of mass (x, y)."""
    total = max(float(weight.sum()), 1e-6)
    ys, xs = np.mgrid[0 : weight.shape[0], 0 : weight.shape[1]]
    return float((weight * xs).sum() / total), float((weight * ys).sum() / total)
