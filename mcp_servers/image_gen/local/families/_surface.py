"""What colour, deposit and part families share: organic outlines, pigments, filters and cast shadows."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from mcp_servers.image_gen.local.canvas import Canvas
from mcp_servers.image_gen.local.shading import Colour, luma, to_linear, to_srgb
from mcp_servers.image_gen.local.spec import DefectSpec
from mcp_servers.image_gen.local.streams import fractal
from mcp_servers.vision.types import Field


def patch(
    canvas: Canvas,
    rng: np.random.Generator,
    radius: float,
    *,
    aspect: float = 1.0,
    lobes: int = 4,
    warp: float = 0.22,
    rough: float = 0.0,
    centre: tuple[float, float] = (0.0, 0.0),
) -> Field:
    """A puddle-like outline (H, W): about the distance to it in px, positive inside.

    Overlapping discs on warped coordinates, so that bays and tongues occur, which a radial outline cannot have.
    radius: mean radius (px). warp: how far the plane is distorted, rough: fine raggedness, as shares of the
    radius. centre: offset (px) from canvas.centre along and across canvas.angle.
    """
    along, across = canvas.axes()
    root, period = np.float32(np.sqrt(aspect)), max(0.9 * radius, 3.0)
    wide = np.float32(warp * radius)
    x = (along - np.float32(centre[0]) + wide * fractal(rng, canvas.shape, period, 4, 0.42)) / root
    y = (across - np.float32(centre[1]) + wide * fractal(rng, canvas.shape, period, 4, 0.42)) * root
    field: Field = np.asarray(0.78 * radius - np.hypot(x, y), np.float32)
    for _ in range(lobes):
        turn, share = rng.uniform(0, 2 * np.pi), rng.uniform(0.3, 0.6)
        reach = radius * rng.uniform(0.4, 0.75)
        away = np.hypot(x - np.float32(reach * np.cos(turn)), y - np.float32(reach * np.sin(turn)))
        field = soft_max(field, np.asarray(radius * share - away, np.float32), 0.18 * radius)
    if rough:
        field = field + rough * radius * fractal(rng, canvas.shape, max(0.16 * radius, 2.5), 3, 0.6)
    return np.asarray(field, np.float32)


def soft_max(a: Field, b: Field, width: float) -> Field:
    """Union of two outlines that melt into each other over ``width`` px."""
    h = np.maximum(width - np.abs(a - b), 0) / max(width, 1e-6)
    return np.asarray(np.maximum(a, b) + h * h * (0.25 * width), np.float32)


def pigment(spec: DefectSpec) -> NDArray[np.float32] | None:
    """Linear colour (3,) that the prompt names."""
    if spec.colour is None:
        return None
    return np.asarray(to_linear(np.array([[spec.colour]], np.float32))[0, 0], np.float32)


def linear(srgb: tuple[int, int, int]) -> NDArray[np.float32]:
    """Linear colour (3,) of an sRGB triple 0-255."""
    return np.asarray(to_linear(np.array([[srgb]], np.float32))[0, 0], np.float32)


def filtered(base: Colour, tint: NDArray[np.float32], density: Field) -> Colour:
    """The surface seen through a film that lets ``tint`` (3,) of the light pass where ``density`` is 1."""
    exponent = np.log(np.clip(tint, 0.02, 1.6))[None, None, :] * density[..., None]
    return np.asarray(base * np.exp(exponent), np.float32)


def recoloured(canvas: Canvas, target: NDArray[np.float32], amount: Field) -> Colour:
    """The surface with its mean colour moved towards ``target`` (3,) by factors, its texture untouched."""
    ratio = np.clip(np.log((target + 0.015) / (canvas.tone + 0.015)), -2.2, 1.5)
    gain = np.exp(ratio[None, None, :] * amount[..., None])
    return np.asarray((canvas.base + 0.015) * gain - 0.015 * np.minimum(gain, 1), np.float32)


def level(canvas: Canvas) -> float:
    """Luminance (linear, 0-1) of the surface at the site."""
    return float(luma(canvas.tone[None, None, :])[0, 0])


def pale(canvas: Canvas) -> float:
    """0 up to half-bright surfaces, 1 on white ones: there no highlight shows, so films and scuffs must be deeper."""
    return float(np.clip(2 * level(canvas) - 1, 0, 1))


def blended(canvas: Canvas, matter: NDArray[np.float32], strength: float) -> NDArray[np.float32]:
    """Colour (3,) of foreign matter that stands out from the surface as much as ``strength`` asks for."""
    share = np.float32(0.30 + 0.70 * strength)
    return np.asarray(np.exp(np.log(canvas.tone + 0.004) * (1 - share) + np.log(matter + 0.004) * share), np.float32)


def opposite(canvas: Canvas, rng: np.random.Generator, dark: float, bright: float) -> float:
    """Luminance that stands out from the surface: ``dark`` on pale surfaces, ``bright`` on dark ones."""
    here = level(canvas)
    if here > 0.25:
        return dark
    apart = here > 3 * dark
    return dark if apart and rng.random() < 0.6 else max(bright, 0.06 + 2 * here)


def exposure(canvas: Canvas) -> float:
    """How bright white matter is in this photo, 0-1: a dark photo has no pure white in it."""
    return float(np.clip(2.5 * np.percentile(luma(canvas.base), 90) + 0.12, 0.2, 1.0))


def illumination(canvas: Canvas, sigma: float) -> Field:
    """How strongly each place is lit relative to the site (H, W), about 1: shading without fine texture."""
    smooth = luma(canvas.lowpass(max(sigma, 1.0)))
    return np.asarray(np.clip((smooth + 0.01) / (level(canvas) + 0.01), 0.4, 1.8), np.float32)


def detail(canvas: Canvas, sigma: float) -> Field:
    """The photo's own texture finer than ``sigma`` px as deviations of log luminance, limited to [-1, 1]."""
    tone = np.log(luma(canvas.base) + 0.01)
    return np.asarray(np.clip(tone - cv2.GaussianBlur(tone, (0, 0), max(sigma, 1.0)), -1, 1), np.float32)


def exact(canvas: Canvas, rgb: Colour, alpha: Field) -> Colour:
    """The colour to hand to the canvas so that ``rgb`` comes out although paste softens every change.

    Without it a faint line stays where a sharp outline of the photo is painted over. alpha: (H, W).
    """
    sigma = max(canvas.softness, 0.3)
    before = to_srgb(canvas.base)
    change = (to_srgb(rgb) - before) * alpha[..., None]
    sharper = 2 * change - cv2.GaussianBlur(change, (0, 0), sigma)
    return np.where(alpha[..., None] > 0.5, to_linear(before + sharper), rgb).astype(np.float32)


def cast_shadow(canvas: Canvas, body: Field, height: float) -> Field:
    """Shadow (H, W) in [0, 1] that a body (H, W) of ``height`` px throws on the surface, away from the lamp."""
    lx, ly, lz = canvas.light
    reach = height * float(np.hypot(lx, ly)) / max(lz, 0.2)
    norm = max(float(np.hypot(lx, ly)), 1e-3)
    total = np.zeros_like(body)
    for share, weight in ((0.35, 0.4), (0.7, 0.35), (1.1, 0.25)):
        dx, dy = -lx / norm * reach * share, -ly / norm * reach * share
        matrix = np.array([[1, 0, dx], [0, 1, dy]], np.float32)
        moved = cv2.warpAffine(body, matrix, (body.shape[1], body.shape[0]), flags=cv2.INTER_LINEAR)
        total += weight * cv2.GaussianBlur(moved, (0, 0), max(0.25 * height * (0.5 + share), 0.7))
    return np.asarray(np.clip(total, 0, 1), np.float32)


def grained(canvas: Canvas, rng: np.random.Generator, size: float, along: float, free: float) -> Field:
    """Noise of ``size`` px, stretched by ``along`` in the direction of the grain, by ``free`` where there is none."""
    grained = canvas.grain.coherence > 0.3
    angle = -np.radians(canvas.grain.angle_deg) if grained else canvas.angle
    side = int(np.hypot(*canvas.shape)) + 4
    noise = fractal(rng, (side, side), size, 3, 0.6, (along if grained else free, 1.0))
    turn = cv2.getRotationMatrix2D((side / 2, side / 2), -float(np.degrees(angle)), 1.0)
    turned = cv2.warpAffine(noise, turn, (side, side), borderMode=cv2.BORDER_REFLECT)
    return np.asarray(turned[: canvas.shape[0], : canvas.shape[1]], np.float32)


def towards_light(canvas: Canvas, field: Field) -> Field:
    """How far a wall that faces the rising side of ``field`` is turned to the lamp (H, W), -1 to 1."""
    smooth = cv2.GaussianBlur(field, (0, 0), max(0.02 * canvas.length, 1.2))
    dx, dy = cv2.Sobel(smooth, cv2.CV_32F, 1, 0), cv2.Sobel(smooth, cv2.CV_32F, 0, 1)
    norm = np.maximum(np.hypot(dx, dy), 1e-4)
    flat = max(float(np.hypot(canvas.light[0], canvas.light[1])), 1e-3)
    return np.asarray((dx * canvas.light[0] + dy * canvas.light[1]) / norm / flat, np.float32)
