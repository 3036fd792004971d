"""Things that lie on the surface and do not belong there: contamination, glue, print, thread."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from mcp_servers.image_gen.local import strokes
from mcp_servers.image_gen.local.canvas import Canvas, Layer
from mcp_servers.image_gen.local.families import _surface as surface
from mcp_servers.image_gen.local.shading import glint, ramp, relief_gain
from mcp_servers.image_gen.local.spec import DefectSpec
from mcp_servers.image_gen.local.streams import Streams, fractal
from mcp_servers.vision.types import Field


def contamination(canvas: Canvas, spec: DefectSpec, streams: Streams) -> Layer:
    """Loose grit: a few angular grains of different size with facets, a lit side and a contact shadow."""
    rng, texture = streams("shape"), streams("texture")
    radius = 0.45 * canvas.length
    body = np.zeros(canvas.shape, np.float32)
    height = np.zeros(canvas.shape, np.float32)
    shade = np.zeros(canvas.shape, np.float32)
    count = int(rng.integers(4, 11))
    for index in range(count):
        size = radius * float(rng.uniform(0.36, 0.52) if index == 0 else 0.34 * rng.uniform(0.12, 1.0) ** 1.6)
        size = max(size, 0.7 * canvas.hair)
        far = 0.0 if index == 0 else radius * float(np.sqrt(rng.uniform(0.15, 0.9)))
        turn = float(rng.uniform(0, 2 * np.pi))
        depth = _grain(canvas, rng, size, (0.3 * radius * (index == 0) + far) * np.cos(turn), far * np.sin(turn))
        mine = ramp(depth, -0.35 * canvas.hair, 0.35 * canvas.hair)
        top = np.clip(depth, 0, 0.55 * size)
        shade = shade + mine * (float(rng.normal(0, 0.22)) - shade)
        height, body = np.maximum(height, top), np.maximum(body, mine)
    rough = fractal(texture, canvas.shape, max(0.22 * radius, 2.5), 4, 0.7)
    albedo = surface.blended(canvas, _matter(canvas, spec, rng), spec.strength)
    gain = relief_gain(
        np.asarray(height * 1.1 + 0.05 * radius * rough * body, np.float32), canvas.light, 0.5 + 0.5 * spec.strength
    )
    lit = gain * np.exp(shade + 0.14 * rough)
    solid = albedo[None, None, :] * np.clip(lit, 0.12, 3.0)[..., None]
    solid = solid + (0.10 * body * glint(height, canvas.light, 30.0))[..., None]
    opaque = body * (0.75 + 0.25 * spec.strength)
    shadow = surface.cast_shadow(canvas, body, max(0.35 * radius, canvas.hair)) * (1 - body)
    contact = np.clip(cv2.GaussianBlur(body, (0, 0), max(0.6 * canvas.hair, 0.8)) - body, 0, 1)
    dark = (0.15 + 0.85 * spec.strength) * (0.8 * shadow + 0.9 * contact)
    ground = canvas.shaded(np.exp(-dark).astype(np.float32))
    rgb = ground + opaque[..., None] * (solid - ground)
    support = np.maximum(body, ramp(dark, 0.02, 0.25))
    return Layer(np.asarray(rgb, np.float32), support, keep=np.asarray(1 - 0.95 * body, np.float32))


def _grain(canvas: Canvas, rng: np.random.Generator, size: float, dx: float, dy: float) -> Field:
    """One angular grain (H, W): height above its outline in px, from the planes that bound it."""
    x, y = canvas.grid()
    x, y = x - np.float32(dx), y - np.float32(dy)
    slim = float(rng.uniform(0.55, 1.0))
    lay = float(rng.uniform(0, np.pi))
    p = (x * np.cos(lay) + y * np.sin(lay)) * np.float32(slim)
    q = y * np.cos(lay) - x * np.sin(lay)
    depth = np.full(canvas.shape, 1e6, np.float32)
    for turn in np.linspace(0, 2 * np.pi, int(rng.integers(5, 9)), endpoint=False) + rng.uniform(0, 1):
        turn = float(turn + rng.normal(0, 0.22))
        reach, steep = size * float(rng.uniform(0.62, 1.0)), float(rng.uniform(0.6, 1.4))
        depth = np.minimum(depth, steep * (reach - p * np.cos(turn) - q * np.sin(turn)))
    return np.asarray(depth + 0.09 * size * fractal(rng, canvas.shape, max(0.5 * size, 2.5), 3, 0.6), np.float32)


def _matter(canvas: Canvas, spec: DefectSpec, rng: np.random.Generator) -> NDArray[np.float32]:
    """Linear colour (3,) of foreign matter: the named one, else dirt that stands out from the surface."""
    pigment = surface.pigment(spec)
    if pigment is not None:
        return pigment
    tint = np.array([1.12, 1.0, 0.84] if rng.random() < 0.6 else [1.0, 1.0, 1.0], np.float32)
    return np.asarray(tint * surface.opposite(canvas, rng, 0.045, 0.30), np.float32)


def glue(canvas: Canvas, spec: DefectSpec, streams: Streams) -> Layer:
    """A clear lump that set on the surface: the texture below is bent by it, the lamp is mirrored in it."""
    rng = streams("shape")
    radius = 0.42 * canvas.length
    field = _lump(canvas, spec, rng, radius)
    thick = max(0.30 * radius, 2.0 * canvas.hair)
    rise = np.clip(field / thick, 0, 1)
    ripple = fractal(streams("texture"), canvas.shape, max(0.7 * radius, 4.0), 2, 0.4)
    height = 0.5 * thick * np.sqrt(1 - (1 - rise) ** 2) + 0.10 * thick * ripple * ramp(rise, 0.1, 0.9)
    height = cv2.GaussianBlur(np.asarray(height, np.float32), (0, 0), max(0.07 * thick, 0.8))
    inside = ramp(field, -0.4 * canvas.hair, 0.4 * canvas.hair)
    dx = cv2.Sobel(height, cv2.CV_32F, 1, 0, scale=1 / 8)
    dy = cv2.Sobel(height, cv2.CV_32F, 0, 1, scale=1 / 8)
    ys, xs = np.mgrid[0 : canvas.shape[0], 0 : canvas.shape[1]].astype(np.float32)
    bent = cv2.remap(canvas.base, xs - 0.45 * height * dx, ys - 0.45 * height * dy, cv2.INTER_LINEAR, borderMode=2)
    pigment = surface.pigment(spec)
    tint = np.array([0.93, 0.88, 0.74], np.float32)
    milky = pigment if pigment is not None else np.array([0.80, 0.77, 0.68], np.float32) * surface.exposure(canvas)
    strong = 0.35 + 0.65 * spec.strength
    film = strong * (1 + 1.5 * surface.pale(canvas))
    rgb = surface.filtered(bent, tint, film * (0.35 + 0.65 * height / (0.5 * thick)) * inside)
    cloud = np.clip(0.07 + 0.04 * ripple, 0, 1) * (1.0 if pigment is None else 3.5)
    rgb = rgb + ((0.3 + 0.7 * spec.strength) * cloud * inside)[..., None] * (milky - rgb)
    away = -(dx * canvas.light[0] + dy * canvas.light[1])
    slope = np.hypot(dx, dy)
    rgb = rgb * np.exp(-film * inside * (0.55 * slope * ramp(away, -0.05, 0.5) + 0.18 * slope))[..., None]
    caustic = 0.45 * strong * inside * slope * ramp(-away, 0.05, 0.6)
    rgb = rgb * (1 + caustic)[..., None]
    flash = glint(height, canvas.light, 60.0) * inside + 0.25 * glint(height, canvas.light, 12.0) * inside
    rgb = rgb + (strong * 0.85 * flash)[..., None] * (0.25 + 0.75 * surface.exposure(canvas))
    shadow = surface.cast_shadow(canvas, inside, 0.5 * thick) * (1 - inside) * 0.45 * strong
    rgb = np.where((inside > 0.01)[..., None], rgb, canvas.base)
    rgb = rgb * np.exp(-shadow)[..., None]
    support = np.maximum(inside, ramp(shadow, 0.02, 0.2))
    return Layer(np.asarray(rgb, np.float32), support, keep=np.asarray(1 - 0.75 * inside, np.float32))


def _lump(canvas: Canvas, spec: DefectSpec, rng: np.random.Generator, radius: float) -> Field:
    """Outline of a lump, or of a string with drops where the prompt says long or thin."""
    stringy = bool({"elongated", "thin", "curved"} & spec.shapes) or rng.random() < 0.25
    if not stringy:
        return surface.patch(canvas, rng, 0.92 * radius, aspect=float(rng.uniform(1.0, 1.8)), warp=0.10, lobes=3)
    points = strokes.path(rng, (0, 0), canvas.angle, 1.9 * radius, bend=float(rng.normal(0, 1.2)), wander=0.25)
    line = strokes.ribbon(strokes.centred(points, canvas.centre), canvas.shape, 0.6 * radius)
    width = np.clip(0.17 + 0.06 * strokes.smooth(rng, 64, 12, 3), 0.07, 0.35) * radius
    width[-14:] += 0.13 * radius * np.sin(np.linspace(0, np.pi, 14))
    return np.asarray(np.maximum(strokes.sample(width.astype(np.float32), line.along), canvas.hair) - line.near)


GLYPHS = "ABCEFHKLNPRSTXZ0123456789"


def misprint(canvas: Canvas, spec: DefectSpec, streams: Streams) -> Layer:
    """Characters stamped where they do not belong: uneven ink, a shifted second strike, one side smeared."""
    rng = streams("shape")
    along, across = canvas.axes()
    size = canvas.length
    text = "".join(rng.choice(list(GLYPHS), int(rng.integers(3, 6))))
    stencil = _stencil(text)
    wobble = fractal(rng, canvas.shape, max(0.25 * size, 3.0), 2)
    to_stencil = stencil.shape[1] / (0.95 * size)
    flip = -1.0 if np.cos(canvas.angle) < 0 else 1.0
    u = (flip * along + 0.008 * size * wobble) * to_stencil + stencil.shape[1] / 2
    v = (flip * across + 0.008 * size * wobble) * to_stencil + stencil.shape[0] / 2
    step = float(rng.uniform(0.015, 0.05)) * size * to_stencil
    turn = float(rng.uniform(0, 2 * np.pi))
    once = _stamped(stencil, u, v)
    twice = _stamped(stencil, u + np.float32(step * np.cos(turn)), v + np.float32(step * np.sin(turn)))
    drag = np.zeros_like(once)
    reach = float(rng.uniform(0.06, 0.18)) * size * to_stencil
    for share in np.linspace(0.1, 1.0, 9):
        drag += (1.0 - float(share)) * _stamped(stencil, u - np.float32(share * reach), v) / 4.5
    streaks = fractal(streams("brush"), canvas.shape, max(0.05 * size, 2.5), 3, 0.6, stretch=(1.6, 1.0))
    patchy = fractal(streams("texture"), canvas.shape, max(0.35 * size, 4.0), 4, 0.6)
    dots = fractal(streams("grit"), canvas.shape, max(1.6 * canvas.hair, 2.5), 2)
    side = ramp(along / size + 0.25 * patchy, -0.3, 0.35)
    valleys = surface.detail(canvas, 3 * canvas.scale) / max(2.5 * canvas.contrast, 0.03)
    press = np.clip(0.85 + 0.30 * patchy + 0.18 * dots + 0.15 * valleys, 0, 1)
    ink = np.maximum(once * press, 0.40 * twice * np.clip(press - 0.15, 0, 1))
    ink = np.maximum(ink, 0.75 * drag * side * np.clip(0.7 + 0.45 * streaks, 0, 1.2))
    pigment = surface.pigment(spec)
    if pigment is None:
        pigment = np.full(3, 0.012 if surface.level(canvas) > 0.07 else 0.55 * surface.exposure(canvas), np.float32)
    cover = np.clip(ink * (0.14 + 0.95 * spec.strength**0.9), 0, 0.97).astype(np.float32)
    shade = np.clip(surface.illumination(canvas, 4 * canvas.scale), 0.6, 1.5)[..., None]
    rgb = canvas.base + cover[..., None] * (pigment * shade - canvas.base)
    return Layer(np.asarray(rgb, np.float32), ramp(ink, 0.02, 0.2), keep=np.asarray(1 - 0.6 * cover, np.float32))


def _stencil(text: str) -> Field:
    """The text as a soft-edged mask with a margin."""
    (width, height), base = cv2.getTextSize(text, cv2.FONT_HERSHEY_DUPLEX, 3.0, 9)
    mask = np.zeros((2 * height + base, width + 2 * height), np.uint8)
    cv2.putText(mask, text, (height, height + height // 2), cv2.FONT_HERSHEY_DUPLEX, 3.0, 255, 9, cv2.LINE_AA)
    return np.asarray(cv2.GaussianBlur(mask.astype(np.float32) / 255, (0, 0), 1.6), np.float32)


def _stamped(stencil: Field, u: Field, v: Field) -> Field:
    """The stencil looked up at (u, v); 0 beyond it."""
    return np.asarray(cv2.remap(stencil, u, v, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT), np.float32)
