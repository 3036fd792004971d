"""A photo to try the whole loop on, with nothing to download: a turned steel flange, rendered when it is asked for.

Discs at several heights, seen by a camera that stands slightly in front of them, shaded by two lamps with the
anisotropic highlights that turning marks give, then blurred, exposed and grained like a photo. The project
made the picture, so it can be shown and shipped without anybody's permission.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

Plane: TypeAlias = NDArray[np.floating[Any]]
"""(H, W), a length or a brightness per pixel."""
Light: TypeAlias = NDArray[np.floating[Any]]
"""(H, W, 3), linear light."""

# Lengths in half picture widths; x to the right, y towards the camera, z up.
SINE, COSINE = 0.27, 0.963  # of the angle between the camera's axis and the vertical
CAMERA = (0.0, 1.45, 5.0)
LAMP, WINDOW = (-2.6, -2.4, 3.2), (3.2, 0.6, 2.6)
RIM, HUB, BORE = 0.765, 0.375, 0.215  # radii
THICKNESS, HUB_HEIGHT = 0.15, 0.11
BOLTS, BOLT_CIRCLE, BOLT_RADIUS = 6, 0.585, 0.066
STEEL, BENCH = (0.97, 1.0, 1.04), (0.017, 0.0185, 0.021)


def render_demo_photo(size: int = 768) -> Image.Image:
    """Render the flange as an RGB picture of ``size`` x ``size`` pixels.

    Deterministic: the same size gives the same pixels on the same machine. About half a second at the default
    size. Raises ValueError for a size outside 128 to 4096.
    """
    if not 128 <= size <= 4096:
        raise ValueError(f"size {size} is outside 128..4096")
    rng = np.random.default_rng(20)
    axis = (np.arange(size, dtype=np.float32) + 0.5) / np.float32(size / 2) - 1
    x, y = np.meshgrid(axis - np.float32(0.012), axis + np.float32(0.005))

    light = _bench(rng, x, y)
    light = _over(light, _wall(x, y, RIM, 0.30), _swept(x, y, RIM, -THICKNESS, 0.0))
    px, py = _on_plane(x, y, 0.0)
    radius = np.hypot(px, py)
    slope = -0.9 * _bump(radius, RIM, 0.022) + 0.8 * (_bump(radius, 0.486, 0.006) - _bump(radius, 0.470, 0.006))
    face = _turned(rng, px, py, 0.0, slope) * (1 - 0.8 * _hub_shadow(px, py))
    light = _over(light, _tint(face), radius - RIM)
    for step in range(BOLTS):
        angle = 2 * np.pi * (step + 0.3) / BOLTS
        bx, by = BOLT_CIRCLE * np.cos(angle), BOLT_CIRCLE * np.sin(angle) * COSINE
        light = _drill(light, x - np.float32(bx), y - np.float32(by), 0.0, BOLT_RADIUS)

    light = _over(light, _wall(x, y, HUB, 0.55), _swept(x, y, HUB, 0.0, HUB_HEIGHT))
    px, py = _on_plane(x, y, HUB_HEIGHT)
    radius = np.hypot(px, py)
    slope = -0.9 * _bump(radius, HUB, 0.013) + 0.9 * _bump(radius, BORE, 0.02)
    light = _over(light, _tint(_turned(rng, px, py, HUB_HEIGHT, slope)), radius - HUB)
    light = _drill(light, x, y, HUB_HEIGHT, BORE)
    return _expose(rng, light, x, y)


def _on_plane(x: Plane, y: Plane, z: float) -> tuple[Plane, Plane]:
    """Where picture points lie on the horizontal plane at height ``z``."""
    return x, (y + np.float32(SINE * z)) / np.float32(COSINE)


def _swept(x: Plane, y: Plane, radius: float, low: float, high: float) -> Plane:
    """Signed distance (negative inside) to the picture of an upright cylinder between two heights."""
    levels = [np.hypot(*_on_plane(x, y, z)) - np.float32(radius) for z in np.linspace(low, high, 9)]
    return np.asarray(np.minimum.reduce(levels))


def _over(below: Light, above: Light, distance: Plane) -> Light:
    """Lay one layer over another where its signed distance is negative, with smooth edges."""
    pixel = np.float32(2.0 / below.shape[0])
    cover = np.clip(0.5 - distance / pixel, 0, 1)
    return np.asarray(below + (above - below) * cover[..., None])


def _bump(radius: Plane, centre: float, width: float) -> Plane:
    """1 within ``width`` of ``centre``, 0 farther off, with soft shoulders."""
    return np.asarray(np.clip((width - np.abs(radius - np.float32(centre))) / np.float32(0.3 * width), 0, 1))


def _below(distance: Plane, width: float) -> Plane:
    """1 where a signed distance is negative, 0 where positive, soft over ``width``: penumbras."""
    return np.asarray(0.5 - 0.5 * np.tanh(distance / np.float32(2 * width)))


def _tint(grey: Plane) -> Light:
    return np.asarray(grey[..., None] * np.array(STEEL, np.float32))


def _smooth_noise(rng: np.random.Generator, shape: tuple[int, int], cells: int) -> Plane:
    """Noise of about ``cells`` blobs across, standard deviation near 1."""
    coarse = rng.normal(size=(cells, cells)).astype(np.float32)
    return np.asarray(cv2.resize(coarse, shape[::-1], interpolation=cv2.INTER_CUBIC), np.float32)


def _bench(rng: np.random.Generator, x: Plane, y: Plane) -> Light:
    """A dark, slightly mottled bench with the lamp's pool of light and the flange's contact and cast shadow."""
    mottle = sum(weight * _smooth_noise(rng, x.shape, cells) for cells, weight in ((7, 0.05), (60, 0.05), (240, 0.09)))
    pool = 1.7 * np.exp(-((x + 0.55) ** 2 + (y + 0.6) ** 2) / 1.6) + 0.55
    px, py = _on_plane(x, y, -THICKNESS)
    contact = np.hypot(px, py) - np.float32(RIM)
    cast = np.hypot(px - np.float32(0.115), py - np.float32(0.105)) - np.float32(RIM)
    shade = 1 - 0.55 * np.exp(-np.maximum(contact, 0) / 0.035) - 0.5 * _below(cast, 0.022)
    return ((1 + mottle) * pool * np.maximum(shade, 0.05))[..., None].astype(np.float32) * np.array(BENCH, np.float32)


def _turned(rng: np.random.Generator, px: Plane, py: Plane, z: float, slope: Plane) -> Plane:
    """Brightness of a turned face: ``slope`` is dh/dr of its profile, turning marks are added to it."""
    radius = np.hypot(px, py) + np.float32(1e-4)
    ux, uy = px / radius, py / radius
    count = 460
    ridges = np.convolve(rng.normal(size=count), [0.25, 0.5, 0.25], "same")
    ridges += 0.6 * np.interp(np.arange(count), np.arange(0, count, 23), rng.normal(size=20))
    marks = np.interp(radius * (1 + 0.0012 * _smooth_noise(rng, px.shape, 5)), np.linspace(0, 1, count), ridges)
    slope = slope + np.float32(0.07) * marks.astype(np.float32)
    up = 1 / np.sqrt(1 + slope**2)
    total = 0.015 + 0.05 * up - 0.02 * uy * slope
    for lamp, power, along, across in ((LAMP, 1.0, 0.20, 0.50), (WINDOW, 0.16, 0.30, 0.60)):
        lx, ly, lz = _towards(lamp, px, py, z)
        vx, vy, vz = _towards(CAMERA, px, py, z)
        hx, hy, hz = lx + vx, ly + vy, lz + vz
        norm = 1 / np.sqrt(hx**2 + hy**2 + hz**2)
        around = (hx * -uy + hy * ux) * norm
        outwards = (hx * ux + hy * uy) * norm
        across_h = (outwards + hz * norm * slope) * up
        facing = np.maximum((hz * norm - outwards * slope) * up, 0.05)
        lit = np.clip((lz - (lx * ux + ly * uy) * slope) * up, 0, 1)
        lobe = np.exp(-((around / np.float32(along)) ** 2 + (across_h / np.float32(across)) ** 2) / facing**2)
        total = total + np.float32(power) * lit * (1.5 * lobe + 0.085)
    return np.asarray(total * (1 + 0.02 * _smooth_noise(rng, px.shape, 9)), np.float32)


def _towards(point: tuple[float, float, float], px: Plane, py: Plane, z: float) -> tuple[Plane, Plane, Plane]:
    """Unit vectors from the points of a plane to a lamp or the camera."""
    dx, dy, dz = np.float32(point[0]) - px, np.float32(point[1]) - py, np.float32(point[2] - z)
    norm = 1 / np.sqrt(dx**2 + dy**2 + dz**2)
    return dx * norm, dy * norm, dz * norm


def _hub_shadow(px: Plane, py: Plane) -> Plane:
    """How much the hub hides the lamp from the flange's face (0-1), and the dark line at its foot."""
    cast = np.hypot(px - np.float32(0.055), py - np.float32(0.05)) - np.float32(HUB)
    foot = np.exp(-np.maximum(np.hypot(px, py) - np.float32(HUB), 0) / np.float32(0.012))
    return np.maximum(_below(cast, 0.011), 0.6 * foot)


def _wall(x: Plane, y: Plane, radius: float, brightness: float) -> Light:
    """The outside of an upright cylinder: vertical streaks of light where it turns towards lamp and window."""
    across = np.clip(x / np.float32(radius), -1, 1)
    streaks = 0.10 + 0.55 * np.exp(-(((across + 0.62) / 0.20) ** 2)) + 0.25 * np.exp(-(((across - 0.7) / 0.12) ** 2))
    return _tint(np.float32(brightness) * streaks.astype(np.float32))


def _drill(light: Light, x: Plane, y: Plane, z: float, radius: float) -> Light:
    """A through hole with a chamfer: bright where its far wall faces the lamp, the bench in shadow below."""
    px, py = _on_plane(x, y, z)
    distance = np.hypot(px, py) - np.float32(radius)
    turn = (px * 0.73 + py * 0.68) / np.float32(radius)  # 1 at the side that faces the lamp
    light = _over(light, _tint(0.22 + 0.50 * np.clip(turn, 0, 1) ** 2 + 0.03 * turn), distance - 0.11 * radius)
    wall = 0.035 + 0.42 * np.clip(turn, 0, 1) ** 3 * np.clip(1 + distance / np.float32(0.16), 0, 1) ** 4
    light = _over(light, _tint(wall.astype(np.float32)), distance)
    bottom = np.hypot(*_on_plane(x, y, -THICKNESS)) - np.float32(radius)
    floor = np.broadcast_to(np.array(BENCH, np.float32) * 0.25, light.shape)
    return _over(light, floor, np.maximum(distance, bottom))


def _expose(rng: np.random.Generator, light: Light, x: Plane, y: Plane) -> Image.Image:
    """Camera: lens blur, a little bloom and vignetting, a film-like curve, sensor grain."""
    size = light.shape[0]
    light = cv2.GaussianBlur(light, (0, 0), 0.9 * size / 768)
    light = 0.95 * light + 0.05 * cv2.GaussianBlur(light, (0, 0), size / 60)
    light = light * (1 - 0.10 * (x**2 + y**2))[..., None]
    tone = np.clip(1 - np.exp(-1.5 * light), 0, 1) ** (1 / 2.2)
    grain = rng.normal(size=light.shape).astype(np.float32) + rng.normal(size=(size, size, 1)).astype(np.float32)
    pixels = tone * 255 + 1.5 * grain * (0.6 + 0.6 * np.sqrt(tone))
    return Image.fromarray(np.clip(np.rint(pixels), 0, 255).astype(np.uint8))
