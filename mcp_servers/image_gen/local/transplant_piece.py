"""A real defect taken out of its photo: its pixels, its shape, and what in it is the surface's and what its own.

Everything here happens in the example, scaled so that one pixel is one pixel of the photo that gets the defect.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from mcp_servers.errors import ToolInputError
from mcp_servers.image_gen.local import transplant_outline as outlines
from mcp_servers.image_gen.local.fill import push_pull
from mcp_servers.image_gen.local.shading import DARK, Colour, luma, ramp, to_linear, to_srgb
from mcp_servers.image_gen.local.transplant_look import lowpass
from mcp_servers.vision.scene import Scene, analyse
from mcp_servers.vision.types import Field, Image, Mask

LARGEST = 0.9
"""Share of the example that its mask may cover: the surface around the defect must be seen."""

WIDE, WHOLE = 0.15, 0.6
"""Share of the example's part from which a defect is a coat that other things may lie over, and one of all the part."""

WHOLE_REACH = 1.0
"""A coat of the whole part reaches wherever the photo's part is."""

OWN = 12.0, 35.0
"""Colour difference (CIE Lab) to the surface from which pixels are of another stuff, and from which wholly so."""


class ExampleError(ToolInputError):
    """An example that no defect can be taken from; the message names the cure."""


@dataclass(frozen=True, slots=True)
class Example:
    """A photo that shows a real defect, (H, W, 3) uint8 sRGB, and its mask (H, W). Raises ExampleError."""

    rgb: Image
    mask: Mask

    def __post_init__(self) -> None:
        height, width = self.rgb.shape[:2]
        if self.mask.shape != (height, width):
            given = f"{self.mask.shape[1]}x{self.mask.shape[0]}"
            raise ExampleError(f"example_mask is {given}, example_image {width}x{height}: make them the same size")
        share = float(self.mask.mean())
        if share == 0:
            raise ExampleError("example_mask has no bright pixel: paint the example's defect white")
        if share > LARGEST:
            raise ExampleError(
                f"example_mask covers {100 * share:.0f}% of example_image: mark the defect only, so that the surface "
                "around it is seen"
            )


@dataclass(frozen=True, slots=True)
class Piece:
    """A defect with its surroundings, in pixels of the photo that gets it; fields (h, w) in [0, 1] unless said.

    ``rgb``: (h, w, 3) linear light, beyond the part's outline continued from the defect. ``shape``: the mask,
    feathered, and ``outer`` what of it sticks out of the part. ``reach``: the mask and what lies beyond the outline
    next to it. ``surface``: the part, were it whole. ``around``: surface that shows no defect. ``own``: where the
    defect is a stuff of its own colour, not the surface under another light. ``opening``: where the background is seen
    through it. ``plain``: where it cannot be told from the surface's texture. ``shade``: (h, w, 3) change of log light
    in plain places. ``background``: linear colour (3,) beside the part, None where there is none. ``centre``: (x, y).
    ``length``: longest extent (px), ``axis`` its direction (radians, y down), ``slim`` its width as a share.
    ``coat``: whether it covers much of the part. ``bound``: whether it reaches the part's outline or the picture's
    border, ``anchor`` where, relative to the centre. ``blur`` and ``noise``: see Scene.
    """

    rgb: Colour
    shape: Field
    outer: Field
    reach: Field
    surface: Field
    around: Field
    own: Field
    opening: Field
    plain: Field
    shade: Colour
    background: NDArray[np.float32] | None
    centre: tuple[float, float]
    length: float
    axis: float
    slim: float
    coat: bool
    bound: bool
    anchor: tuple[float, float]
    blur: float
    noise: float


def choose_components(mask: Mask, rng: np.random.Generator) -> Mask:
    """All components of a mask, or as often only some of them; crumbs never come alone."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    areas = stats[1:, cv2.CC_STAT_AREA]
    together, main = rng.random() < 0.5, rng.random()
    kept = rng.random(count - 1) < 0.5
    if count <= 2 or together:
        return mask
    weight = np.where(areas >= 0.25 * areas.max(), areas, 0)
    kept[int(np.searchsorted(np.cumsum(weight), main * weight.sum(), side="right"))] = True
    return np.asarray(np.concatenate([[False], kept])[labels])


def scale_to(example: Scene, scene: Scene) -> float:
    """Pixels of the photo per pixel of the example at which the part is as large in both."""
    if example.kind == scene.kind:
        return scene.extent / example.extent
    return float(np.sqrt(scene.part.size / example.part.size))


def take(example: Example, scene: Scene, chosen: Mask, scale: float, rng: np.random.Generator) -> Piece:
    """Take the chosen components out of the example.

    scene: of the example. scale: photo pixels per example pixel. rng: for texture continued beyond the outline.
    """
    ys, xs = np.flatnonzero(chosen.any(1)), np.flatnonzero(chosen.any(0))
    rim = max(6, round(0.25 * float(np.hypot(len(ys), len(xs)))), round(6 / scale))
    box = (xs[0] - rim, ys[0] - rim, xs[-1] + 1 + rim, ys[-1] + 1 + rim)
    size = (max(8, round((box[2] - box[0]) * scale)), max(8, round((box[3] - box[1]) * scale)))

    def window(plane: NDArray[np.generic]) -> NDArray[np.float32]:
        return _window(plane.astype(np.float32), box, size)

    inside = window(np.ones(example.mask.shape)) > 0.5
    mask = (window(chosen) > 0.5) & inside
    mask = mask if mask.any() else (window(chosen) >= window(chosen).max()) & inside
    others = window(example.mask) > 0.2
    surface = outlines.whole_part(window(scene.part) > 0.5, mask, inside)
    linear = to_linear(_window(example.rgb.astype(np.float32), box, size, border=cv2.BORDER_REPLICATE))
    length, axis, slim, centre = _extent(mask)
    share = np.count_nonzero(chosen) / np.count_nonzero(scene.part | chosen) if scene.kind == "object" else 0.0
    drawn, mask = mask, outlines.closed(mask, 0.06 * length) & inside if share > WIDE else mask
    near = outlines.grown(mask | others, max(1.0, 0.015 * length) + scene.blur * scale)
    around = surface & ~near
    beside = inside & ~surface & ~near
    background = np.median(linear[beside], axis=0).astype(np.float32) if beside.sum() > 20 else None
    reach = outlines.reach_of(mask, surface, WHOLE_REACH if share > WHOLE else 0.3 if share > WIDE else 0.06, length)
    soft = outlines.feather(_lab(linear), mask, surface, length)
    linear = outlines.continued(linear, drawn & surface, (reach > 0) & ~(drawn & surface), scene.blur * scale, rng)
    own, plain = np.ones(mask.shape, np.float32), np.zeros(mask.shape, np.float32)
    smooth = _smooth(linear, around.astype(np.float32)) if around.any() else linear
    change = _log(linear) - _log(smooth)
    shade = lowpass(change, max(1.5, 0.02 * length))
    if around.sum() > 0.03 * mask.sum():
        differs = np.linalg.norm(_lab(cv2.GaussianBlur(linear, (0, 0), 0.8)) - _lab(smooth), axis=2)
        texture = max(0.0, float(np.percentile(differs[around], 95)) - OWN[0])
        own = cv2.GaussianBlur(ramp(differs - texture, *OWN), (0, 0), 0.8)
        plain = _plain(linear, change, shade, own, around)
    contact = mask & (cv2.dilate((~surface).astype(np.uint8), np.ones((5, 5), np.uint8)) > 0)
    bound = bool(contact.sum() > 0.01 * mask.sum())
    at = np.argwhere(contact).mean(0)[::-1] if bound else np.array(centre)
    sigma = max(0.6, 0.6 * scene.blur * scale)
    return Piece(
        rgb=linear,
        shape=cv2.GaussianBlur(mask.astype(np.float32), (0, 0), sigma),
        outer=cv2.GaussianBlur(outlines.sticking_out(mask, surface, length).astype(np.float32), (0, 0), sigma),
        reach=cv2.GaussianBlur(reach * soft, (0, 0), sigma),
        surface=surface.astype(np.float32),
        around=around.astype(np.float32),
        own=own,
        opening=_opening(linear, smooth, background),
        plain=plain,
        shade=shade,
        background=background,
        centre=centre,
        length=length,
        axis=axis,
        slim=slim,
        coat=share > WIDE,
        bound=bound,
        anchor=(float(at[0] - centre[0]), float(at[1] - centre[1])),
        blur=scene.blur * scale,
        noise=scene.noise * min(1.0, scale),
    )


def example_scene(example: Example) -> Scene:
    """What the example shows; the part is found with the defect in the picture."""
    return analyse(example.rgb)


def _window(
    plane: NDArray[np.float32], box: tuple[int, int, int, int], size: tuple[int, int], border: int = cv2.BORDER_CONSTANT
) -> NDArray[np.float32]:
    """The box (left, top, right, bottom; it may reach outside) of a plane, resized to (width, height)."""
    height, width = plane.shape[:2]
    left, top, right, bottom = box
    beyond = (max(0, -top), max(0, bottom - height), max(0, -left), max(0, right - width))
    crop = plane[max(0, top) : bottom, max(0, left) : right]
    crop = cv2.copyMakeBorder(crop, *beyond, border, value=0)
    how = cv2.INTER_AREA if size[0] < crop.shape[1] else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(crop, size, interpolation=how), np.float32)


def _lab(linear: Colour) -> NDArray[np.float32]:
    return np.asarray(cv2.cvtColor(to_srgb(linear) / 255, cv2.COLOR_RGB2LAB), np.float32)


def _opening(linear: Colour, smooth: Colour, background: NDArray[np.float32] | None) -> Field:
    """Where the colour is the background's and the surface's would be another: gaps and missing pieces."""
    if background is None:
        return np.zeros(linear.shape[:2], np.float32)
    behind = _lab(background.reshape(1, 1, 3))
    like = np.linalg.norm(_lab(cv2.GaussianBlur(linear, (0, 0), 1.0)) - behind, axis=2)
    contrast = np.linalg.norm(_lab(smooth) - behind, axis=2)
    return ramp(like, 18, 8) * ramp(contrast, 15, 25)


def _log(linear: Colour) -> Colour:
    return np.asarray(np.log(np.maximum(linear, 0) + DARK), np.float32)


def _smooth(linear: Colour, around: Field) -> Colour:
    """The surface without texture, carried on under the defect."""
    weight = cv2.GaussianBlur(around, (0, 0), 3.0)
    mean = cv2.GaussianBlur(linear * around[..., None], (0, 0), 3.0) / np.maximum(weight, 1e-4)[..., None]
    return push_pull(np.asarray(mean, np.float32), around)


def _plain(linear: Colour, change: Colour, shade: Colour, own: Field, around: Mask) -> Field:
    """1 where light and roughness are within what the surface's own texture does, 0 where they are clearly not.

    change: (h, w, 3) of log light against the surface, ``shade`` the same without texture.
    """
    detail = np.abs(cv2.GaussianBlur(change - shade, (0, 0), 0.7)).max(axis=2)
    tone = np.log(luma(linear) + DARK)
    rough = np.sqrt(cv2.GaussianBlur((tone - cv2.GaussianBlur(tone, (0, 0), 2.0)) ** 2, (0, 0), 2.5)) + 1e-3
    usual = max(float(np.percentile(detail[around], 90)), 0.012)
    odd_light = ramp(detail, 1.0 * usual, 2.0 * usual)
    rougher = np.abs(np.log(rough / float(np.median(rough[around]))))
    limit = max(float(np.percentile(rougher[around], 90)), 0.4)
    odd_texture = ramp(rougher, limit, 2 * limit)
    odd = np.maximum(np.maximum(odd_light, odd_texture), own)
    return np.asarray(1 - cv2.GaussianBlur(odd, (0, 0), 0.8), np.float32)


def _extent(mask: Mask) -> tuple[float, float, float, tuple[float, float]]:
    """Longest extent (px), its direction, width as a share of it, and the middle of a mask's box along them."""
    ys, xs = np.nonzero(mask)
    points = np.column_stack([xs, ys]).astype(np.float32)
    (x, y), (w, h), degrees = cv2.minAreaRect(points)
    axis = np.radians(degrees if w >= h else degrees + 90)
    long, short = max(w, h) + 1, min(w, h) + 1
    return float(long), float(axis), float(short / long), (float(x), float(y))
