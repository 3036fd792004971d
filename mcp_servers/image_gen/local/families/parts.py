"""Damage to the part as a whole: a missing piece, a broken edge, a bent outline, a piece out of its place."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np

from mcp_servers.errors import RegionError
from mcp_servers.image_gen.local.canvas import Canvas, Layer
from mcp_servers.image_gen.local.families import _surface as surface
from mcp_servers.image_gen.local.families.traces import swap
from mcp_servers.image_gen.local.fill import fill
from mcp_servers.image_gen.local.maps import binary, stands_out, two_tone
from mcp_servers.image_gen.local.shading import Colour, cavity, luma, ramp, relief_gain
from mcp_servers.image_gen.local.spec import DefectSpec
from mcp_servers.image_gen.local.streams import Streams, fractal
from mcp_servers.image_gen.local.strokes import sample, smooth
from mcp_servers.vision.scene import Field, Mask


def broken_edge(canvas: Canvas, spec: DefectSpec, streams: Streams) -> Layer:
    """A chip off the outline (or off a conductor's): what lies behind shows, a rough face is left along the break."""
    tones = two_tone(np.sqrt(luma(canvas.base)) * 255)
    if "conductor" in spec.place and tones.any():
        canvas = replace(canvas, part=cv2.GaussianBlur(tones.astype(np.float32), (0, 0), 0.8))
    return _bite(canvas, spec, streams, clean=False)


def missing(canvas: Canvas, spec: DefectSpec, streams: Streams) -> Layer:
    """A piece that is gone: a clean gap in the outline, a gap in a conductor of a binarised scan, else a flake."""
    if canvas.inward is not None:
        return _bite(canvas, spec, streams, clean=True)
    rng = streams("shape")
    radius = 0.46 * canvas.length
    aspect, lobes = float(rng.uniform(1.0, 1.6)), int(rng.integers(3, 6))
    field = surface.patch(canvas, rng, 0.95 * radius, aspect=aspect, lobes=lobes, warp=0.16, rough=0.035)
    tone = np.sqrt(luma(canvas.base)) * 255
    if binary(tone) and two_tone(tone).any():
        return swap(canvas, spec, streams, field, ~two_tone(tone))
    step = max(0.10 * radius, 0.7 * canvas.hair)
    inside = ramp(field, -0.4 * canvas.hair, 0.4 * canvas.hair)
    strong = 0.25 + 0.75 * spec.strength
    grit = fractal(streams("texture"), canvas.shape, max(0.16 * radius, 2.5), 5, 0.75)
    scales = fractal(streams("scales"), canvas.shape, max(0.6 * radius, 4.0), 3, 0.5)
    height = -step * ramp(field, -0.5 * step, 1.1 * step) + (0.30 * scales + 0.13 * grit) * step * inside
    gain = relief_gain(np.asarray(height, np.float32), canvas.light, 0.9 * strong)
    shade = surface.cast_shadow(canvas, 1 - inside, 1.3 * step)
    bed = 0.20 + 0.07 * scales + 0.07 * grit  # a fresh break is rougher and throws less light back
    gain = gain * np.exp(-strong * inside * (1.1 * shade + np.clip(bed, 0, 0.6) + 1.2 * canvas.contrast))
    fine = canvas.base - canvas.lowpass(max(3 * canvas.scale, 2.0))
    rough = np.maximum(canvas.base + (0.5 * strong * inside)[..., None] * fine, 0)
    rgb = cavity(np.asarray(rough, np.float32), np.asarray(gain, np.float32))
    support = np.maximum(ramp(field, -0.9 * canvas.hair, 0.1 * canvas.hair), ramp(np.abs(gain - 1), 0.04, 0.2))
    support = support * ramp(field, -2.5 * step, -step)
    return Layer(rgb, np.asarray(support, np.float32), keep=np.asarray(1 - 0.2 * inside, np.float32))


def _bite(canvas: Canvas, spec: DefectSpec, streams: Streams, clean: bool) -> Layer:
    """The part without a piece of its outline. clean: smooth gap and narrow face instead of a fracture."""
    rng = streams("shape")
    inward = canvas.inward or (0.0, -1.0)
    solid = canvas.part > 0.5
    open_side = bool((canvas.part < 0.05).mean() > 0.01)
    deep = _depth_into(canvas, solid, inward, open_side)
    x, y = canvas.grid()
    along = y * np.float32(inward[0]) - x * np.float32(inward[1])
    row, column = (int(np.clip(v, 0, n - 1)) for v, n in zip(canvas.centre[::-1], canvas.shape, strict=True))
    run = x * np.float32(inward[0]) + y * np.float32(inward[1]) + deep[row, column]
    along = np.where(along < 0, -1, 1) * np.hypot(along, run - deep)  # round corners and bores, not across them
    length = canvas.length
    bite = length * float(rng.uniform(0.34, 0.46)) * (0.55 + 0.45 * spec.strength)
    profile = _break_profile(rng, clean)
    at = np.clip(along / length + 0.5, 0, 1)
    rough = fractal(streams("border"), canvas.shape, max(0.16 * length, 3.0), 5, 0.62)
    torn = 0.009 if clean else 0.016
    limit = bite * sample(profile, np.asarray(at, np.float32)) + torn * length * rough
    limit = limit - np.maximum(np.abs(along) - 0.5 * length, 0)
    field = np.asarray(limit - deep, np.float32)
    soft = 0.4 * canvas.hair
    reach = max(2.0, 2.2 * canvas.blur + 1.2 * canvas.scale + 0.025 * length)
    beyond = cv2.distanceTransform((canvas.part < 0.02).astype(np.uint8), cv2.DIST_L2, 5)
    gone = ramp(field, -soft, soft) * ramp(beyond, 3.0 * reach, reach)
    behind = _behind(canvas, open_side, reach, streams)
    rgb, face = _face(canvas, spec, streams, field, clean)
    rgb = rgb + gone[..., None] * (behind - rgb)
    keep = np.asarray(1 - np.maximum(gone, 0.7 * face), np.float32)
    notes = () if open_side else ("no outline of the part in view: broken at the border of the picture",)
    return Layer(surface.exact(canvas, np.asarray(rgb, np.float32), gone), np.maximum(gone, face), keep, notes)


def _depth_into(canvas: Canvas, solid: Mask, inward: tuple[float, float], open_side: bool) -> Field:
    """Distance (px) from the outline into the part; from the picture's border where no outline is in view.

    Raises RegionError where neither is in view.
    """
    if open_side:
        _, labels = cv2.connectedComponents((~solid).astype(np.uint8))
        near = np.where(solid, 1e9, np.hypot(*canvas.grid()))
        beside = labels == labels.flat[int(np.argmin(near))]
        return np.asarray(cv2.distanceTransform((~beside).astype(np.uint8), cv2.DIST_L2, 5), np.float32)
    x, y = canvas.grid()
    run = x * np.float32(inward[0]) + y * np.float32(inward[1])
    if max(abs(inward[0]), abs(inward[1])) < 0.99 or -float(run.min()) > 0.5 * canvas.length:
        raise RegionError("no edge to break there; set region so that it holds a piece of the part's outline")
    return np.asarray(run - run.min(), np.float32)


def _break_profile(rng: np.random.Generator, clean: bool) -> Field:
    """How deep the break goes (0-1) along the outline, 128 samples: straight facets that meet at angles, or a bowl."""
    t = np.linspace(-1, 1, 128)
    if clean:
        lean, power = float(rng.uniform(-0.35, 0.35)), float(rng.uniform(1.6, 2.6))
        bowl = 1 - np.abs((t - lean) / (1 - lean * np.sign(t - lean))) ** power
        return np.asarray(bowl * np.clip(1 + 0.16 * smooth(rng, 128, 34, 3), 0.6, 1.3) - 0.03, np.float32)
    knots = int(rng.integers(3, 6))
    at = np.sort(np.concatenate([[-1, 1], np.linspace(-0.75, 0.75, knots) + rng.uniform(-0.16, 0.16, knots)]))
    deep = np.concatenate([[-0.05], rng.uniform(0.45, 1.0, knots), [-0.05]])
    return np.asarray(np.interp(t, at, deep / deep.max()), np.float32)


def _behind(canvas: Canvas, open_side: bool, reach: float, streams: Streams) -> Colour:
    """What is seen where the piece was: the background beside it, or the dark behind a part that fills the view."""
    if not open_side:
        dark = np.percentile(canvas.base.reshape(-1, 3), 1, axis=0) * 0.35
        haze = fractal(streams("fill"), canvas.shape, max(0.8 * canvas.length, 8.0), 2)
        return np.asarray(dark[None, None, :] * (1 + 0.10 * haze)[..., None] + 0.003, np.float32)
    ground = (canvas.part < 0.02).astype(np.uint8)
    _, labels, stats, _ = cv2.connectedComponentsWithStats(ground)
    if len(stats) > 2:  # the widest ground, not what shows through bores
        ground = (labels == 1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA]))).astype(np.uint8)
    away = cv2.distanceTransform(ground, cv2.DIST_L2, 5)
    for margin in (reach + 0.07 * canvas.length, reach, 0.0):  # off soft borders and off bits of the part, if it can be
        source = away > margin
        if np.count_nonzero(source) > 0.04 * source.size:
            break
    return fill(canvas.base, ~source, source, streams("fill"))


def _face(canvas: Canvas, spec: DefectSpec, streams: Streams, field: Field, clean: bool) -> tuple[Colour, Field]:
    """The part with the exposed face along a break, and where that face is (H, W)."""
    length = canvas.length
    vary = fractal(streams("face"), canvas.shape, max(0.22 * length, 3.0), 4, 0.6)
    width = length * (0.03 if clean else 0.075) * np.clip(1 + (0.15 if clean else 0.6) * vary, 0.15, 2.2)
    width = np.maximum(width, 0.7 * canvas.hair)
    away = np.maximum(-field, 0)
    soft = 0.5 * canvas.hair
    on_part = ramp(canvas.part, 0.3, 0.9)
    face = ramp(away - width, soft, -soft) * on_part
    grain = fractal(streams("texture"), canvas.shape, max(0.08 * length, 2.5), 4, 0.75)
    strong = 0.3 + 0.7 * spec.strength
    slope = _towards_light(canvas, field)
    here = surface.level(canvas)
    fresh = float(np.interp(here, (0.05, 0.15, 0.3, 0.5, 1.0), (0.45, 0.35, 0.08, -0.12, -0.3)))
    fresh = 0.4 * fresh if clean else fresh
    mean = canvas.lowpass(max(0.05 * length, 1.5))
    matter = 0.7 * mean + 0.3 * luma(mean)[..., None]
    matter = 0.45 * canvas.base + 0.55 * matter
    gain = np.exp(strong * (fresh + 0.38 * slope + (0.05 if clean else 0.17) * grain))
    low = np.exp(-0.35 * strong * ramp(away, 1.5 * canvas.hair, 0.0))
    raw = matter * (gain * low)[..., None]
    edge = np.exp(-(((away - width) / (0.5 * canvas.hair)) ** 2)) * on_part * (field < 0)
    lip = canvas.base * np.exp(0.35 * strong * edge * slope)[..., None]
    rgb = lip + face[..., None] * (raw - lip)
    return np.asarray(rgb, np.float32), np.maximum(face, ramp(edge, 0.3, 0.8))


def _towards_light(canvas: Canvas, field: Field) -> Field:
    """How far a wall that faces the rising side of ``field`` is turned to the lamp (H, W), -1 to 1."""
    smooth = cv2.GaussianBlur(field, (0, 0), max(0.02 * canvas.length, 1.2))
    dx, dy = cv2.Sobel(smooth, cv2.CV_32F, 1, 0), cv2.Sobel(smooth, cv2.CV_32F, 0, 1)
    norm = np.maximum(np.hypot(dx, dy), 1e-4)
    flat = max(float(np.hypot(canvas.light[0], canvas.light[1])), 1e-3)
    return np.asarray((dx * canvas.light[0] + dy * canvas.light[1]) / norm / flat, np.float32)


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
    either = cv2.GaussianBlur(np.maximum(part, canvas.part), (0, 0), max(1.5 * canvas.blur, 1.5))
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
    lit = np.exp(-0.45 * strong * edge * _towards_light(canvas, np.asarray(field, np.float32)))
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
