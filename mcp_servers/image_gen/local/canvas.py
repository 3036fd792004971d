"""The window in which one defect is drawn: cut out of the photo, drawn on finer pixels, and put back.

``cut`` makes a ``Canvas`` around a site: linear light, up to three times finer than a small photo and coarser
than a huge one, so that strokes are antialiased and a 4000 x 3000 photo costs no more than a small one.
Families return a ``Layer``; ``paste`` lays it over the photo with the photo's own sharpness and noise.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from mcp_servers.image_gen.local.place import Site
from mcp_servers.image_gen.local.shading import Colour, apply_gain, luma, ramp, to_linear, to_srgb
from mcp_servers.vision.scene import Grain, Scene
from mcp_servers.vision.types import Field, Mask

SIDE = 560
"""Longer side, in canvas pixels, that a window is scaled to (never more than three times finer)."""


@dataclass(frozen=True, slots=True)
class Layer:
    """What a family drew.

    ``rgb``: (h, w, 3) linear light, the finished look of the defect. ``alpha``: (h, w) in [0, 1], where and
    how much of it replaces the photo, 0 outside. ``keep``: 1 where the photo's finest texture shows through
    (shading, tints), 0 where it is covered or gone (a foreign body, a missing piece); a field or one value.
    ``notes``: what could not be done as asked.
    """

    rgb: Colour
    alpha: Field
    keep: Field | float = 1.0
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Canvas:
    """A window of the photo, in canvas pixels.

    ``base``: (h, w, 3) linear light. ``part``: (h, w) in [0, 1], 1 on the part; ``allowed`` the same for where
    the defect may be (part and the caller's region). ``scale``: canvas pixels per photo pixel. ``centre``:
    (x, y) of the defect. ``length``: its extent. ``angle``: direction in which it runs (radians, y down).
    ``inward``: unit vector into the part at a site on the outline, else None. ``light``: unit vector towards
    the lamp (x right, y down, z to the viewer). ``hair``: width of the thinnest stroke that is still visible,
    ``stroke`` of one that is visible when the whole photo is looked at.
    ``contrast``: standard deviation of the natural logarithm of the surface's fine texture. ``grain``: see
    Scene. ``tone``: mean linear colour (3,) of the surface at the site. ``blur``: the photo's sharpness
    (Gaussian sigma, canvas px). ``noise``: the photo's grain (sRGB levels). ``window``: (x, y, width, height) in
    the photo. ``fence``: (height, width) photo pixels that may change at all, None for no limit.
    """

    base: Colour
    part: Field
    allowed: Field
    scale: float
    centre: tuple[float, float]
    length: float
    angle: float
    inward: tuple[float, float] | None
    light: tuple[float, float, float]
    hair: float
    stroke: float
    contrast: float
    grain: Grain
    tone: NDArray[np.float32]
    blur: float
    noise: float
    window: tuple[int, int, int, int]
    fence: Mask | None

    @property
    def shape(self) -> tuple[int, int]:
        return self.base.shape[0], self.base.shape[1]

    @property
    def softness(self) -> float:
        """Sigma (px) by which a drawn change is blurred, so that its borders are as sharp as the photo's."""
        return min(self.blur * 0.42, 2.0 * self.scale)

    def grid(self) -> tuple[Field, Field]:
        """x and y of every pixel relative to the defect's centre (px)."""
        height, width = self.shape
        ys, xs = np.mgrid[0:height, 0:width].astype(np.float32)
        return xs - np.float32(self.centre[0]), ys - np.float32(self.centre[1])

    def axes(self) -> tuple[Field, Field]:
        """Coordinates along and across the direction in which the defect runs (px)."""
        x, y = self.grid()
        c, s = np.float32(np.cos(self.angle)), np.float32(np.sin(self.angle))
        return x * c + y * s, y * c - x * s

    def depth(self, strength: float) -> float:
        """Change of log brightness that reads as ``strength`` (0-1) on this surface: more on rough texture."""
        return float(min(strength * (0.62 + 2.2 * self.contrast), 2.2))

    def shaded(self, gain: Field) -> Colour:
        """The surface with its light multiplied by ``gain``."""
        return apply_gain(self.base, gain)

    def lowpass(self, sigma: float) -> Colour:
        """The surface's colour without texture finer than ``sigma`` px, averaged over the part only."""
        weight = np.maximum(self.part, 1e-4)
        total = cv2.GaussianBlur(self.base * weight[..., None], (0, 0), sigma)
        return np.asarray(total / cv2.GaussianBlur(weight, (0, 0), sigma)[..., None], np.float32)


def cut(
    rgb: NDArray[np.float32], scene: Scene, allowed: Mask, site: Site, *, strict: bool = False, wider: float = 1.0
) -> Canvas:
    """Cut the window around a site.

    rgb: (H, W, 3) sRGB 0-255. allowed: (H, W), where the defect may be; ``strict`` forbids even its blur to
    leave it. The window reaches ``wider`` times 0.8 of the site's length (and at least 12 px) beyond its centre
    on all sides, clipped to the photo.
    """
    height, width = rgb.shape[:2]
    reach = wider * max(12.0, 0.8 * site.length + 6)
    left, top = max(0, int(site.x - reach)), max(0, int(site.y - reach))
    right, bottom = min(width, int(site.x + reach) + 1), min(height, int(site.y + reach) + 1)
    scale = min(3.0, SIDE / max(right - left, bottom - top))
    size = (max(4, round((right - left) * scale)), max(4, round((bottom - top) * scale)))
    crop = rgb[top:bottom, left:right]
    base = to_linear(_resize(crop, size))
    part = np.clip(_resize(scene.part[top:bottom, left:right].astype(np.float32), size), 0, 1)
    inside = np.clip(_resize(allowed[top:bottom, left:right].astype(np.float32), size), 0, 1)
    centre = ((site.x - left + 0.5) * scale - 0.5, (site.y - top + 0.5) * scale - 0.5)
    tone = _tone(base, part * inside, centre, site.length * scale)
    elevation = np.radians(42.0)
    flat = float(np.cos(elevation))
    return Canvas(
        base=base,
        part=part,
        allowed=inside,
        scale=scale,
        centre=centre,
        length=site.length * scale,
        angle=site.angle,
        inward=site.inward,
        light=(scene.light[0] * flat, scene.light[1] * flat, float(np.sin(elevation))),
        hair=scale * (0.7 + 0.55 * scene.blur),
        stroke=scale * max(0.7 + 0.55 * scene.blur, 0.0024 * max(height, width)),
        contrast=_contrast(base, part, scale),
        grain=scene.grain,
        tone=tone,
        blur=scene.blur * scale,
        noise=scene.noise,
        window=(left, top, right - left, bottom - top),
        fence=allowed[top:bottom, left:right] if strict else None,
    )


def paste(
    rgb: NDArray[np.float32],
    alpha: Field,
    canvas: Canvas,
    layer: Layer,
    noise: np.random.Generator,
    grey: bool,
    softer: bool,
) -> bool:
    """Lay a drawn layer over the photo, in place; says whether anything of it is visible there.

    rgb: (H, W, 3) sRGB 0-255 and alpha: (H, W), both changed inside the canvas's window only. The change is
    blurred as the photo is, covered texture gets the photo's noise, ``grey`` keeps the channels equal, and
    ``softer`` gives the defect a softer border than the photo's sharpness asks for.
    """
    left, top, width, height = canvas.window
    soft = canvas.softness
    cover = np.clip(layer.alpha, 0, 1) * ramp(canvas.allowed, 0.25, 0.75)
    if softer:
        soft += 0.6 * canvas.scale + 0.012 * canvas.length
    after = canvas.base + cover[..., None] * (np.clip(layer.rgb, 0, 1) - canvas.base)
    change = to_srgb(after) - to_srgb(canvas.base)
    keep = np.broadcast_to(np.asarray(layer.keep, np.float32), cover.shape)
    covered = cover * (1 - keep)
    if soft > 0.3:
        change = cv2.GaussianBlur(change, (0, 0), soft)
        cover, covered = cv2.GaussianBlur(cover, (0, 0), soft), cv2.GaussianBlur(covered, (0, 0), soft)
    limit = canvas.allowed > 0.02
    cover, covered = cover * limit, covered * limit
    size = (width, height)
    change, cover, covered = (_resize(f, size) for f in (change, cover, covered))
    cover = ramp(cover, 0.01, 1.0) ** 0.5 * (cover > 0.012)
    if canvas.fence is not None:
        cover = cover * canvas.fence
    rows, columns = np.flatnonzero(cover.any(1)), np.flatnonzero(cover.any(0))
    if len(rows) == 0:
        return False
    used = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
    part = (slice(top + rows[0], top + rows[-1] + 1), slice(left + columns[0], left + columns[-1] + 1))
    photo, change, cover, covered = rgb[part], change[used], cover[used], covered[used]
    if covered.any():
        texture = photo - _resize(to_srgb(canvas.base), size)[used]
        fresh = noise.standard_normal((*cover.shape, 1), np.float32)
        if not grey:
            fresh = 0.8 * fresh + 0.6 * noise.standard_normal((*cover.shape, 3), np.float32)
        change = change + covered[..., None] * (canvas.noise * fresh - texture)
    change = change * ramp(cover, 0.0, 0.12)[..., None]
    if grey:
        change = np.repeat(change.mean(2, keepdims=True), 3, 2)
    touched = cover > 0
    photo[touched] = np.clip(photo + change, 0, 255)[touched]
    np.maximum(alpha[part], np.where(touched, cover, 0), out=alpha[part])
    return bool(touched.any())


def _resize(image: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    """To (width, height): averaging where it shrinks, cubic where it grows."""
    shrinks = size[0] < image.shape[1]
    how = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(image, size, interpolation=how), np.float32)


def _tone(base: Colour, weight: Field, centre: tuple[float, float], length: float) -> NDArray[np.float32]:
    ys, xs = np.mgrid[0 : base.shape[0], 0 : base.shape[1]].astype(np.float32)
    near = np.exp(-((xs - centre[0]) ** 2 + (ys - centre[1]) ** 2) / (0.35 * length + 4) ** 2)
    total = near * np.maximum(weight, 1e-3)
    return np.asarray((base * total[..., None]).sum((0, 1)) / total.sum(), np.float32)


def _contrast(base: Colour, part: Field, scale: float) -> float:
    """Deviation of log luminance finer than about 6 photo pixels, inside the part, without outliers."""
    tone = np.log(luma(base) + 0.004)
    detail = tone - cv2.GaussianBlur(tone, (0, 0), max(1.0, 3.0 * scale))
    inner = cv2.erode(part, np.ones((5, 5), np.uint8)) > 0.9
    values = np.abs(detail[inner] if np.count_nonzero(inner) > 30 else detail.ravel())
    return float(min(np.percentile(values, 68), 0.5))
