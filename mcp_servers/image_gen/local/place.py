"""Where a defect sits: reads the place words against the scene and picks a site that can carry the defect."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np

from mcp_servers.errors import RegionError
from mcp_servers.image_gen.local import maps
from mcp_servers.image_gen.local.maps import bump, clearance, draw, shifted, two_tone
from mcp_servers.image_gen.local.spec import DefectSpec
from mcp_servers.image_gen.local.streams import Streams
from mcp_servers.knowledge.families import Family
from mcp_servers.vision.pixels import magnitude
from mcp_servers.vision.scene import Scene, grey
from mcp_servers.vision.types import Field, Image, Mask

WORK = 288
"""Longer side, in pixels, of the maps on which a site is chosen."""

Habit = Literal["inside", "outline", "line"]
"""Where a family lives: well inside the part, on its outline, or inside and running along ``Site.angle``."""


@dataclass(frozen=True, slots=True)
class Site:
    """A place for one defect, in photo pixels.

    ``x``, ``y`` its centre, ``length`` its extent, ``angle`` the direction in which it runs (radians, y down),
    ``inward`` the unit vector into the part where the site is on the outline, else None.
    """

    x: float
    y: float
    length: float
    angle: float
    inward: tuple[float, float] | None


def region_mask(region: Mask | tuple[int, int, int, int] | None, scene: Scene) -> tuple[Mask, Mask]:
    """Where the defect may sit (the part, limited to the region) and what it may change (the region).

    region: (H, W) bool, or a box (x, y, width, height) in pixels, or None. Raises RegionError.
    """
    height, width = scene.part.shape
    if region is None:
        return scene.part, np.ones((height, width), bool)
    if isinstance(region, tuple):
        x, y, w, h = region
        if w <= 0 or h <= 0 or x >= width or y >= height or x + w <= 0 or y + h <= 0:
            raise RegionError(
                f"region {x},{y},{w},{h} lies outside the picture; give x,y,width,height within {width}x{height}"
            )
        chosen = np.zeros((height, width), bool)
        chosen[max(0, y) : y + h, max(0, x) : x + w] = True
    else:
        chosen = region.astype(bool)
        if chosen.shape != (height, width):
            raise RegionError(
                f"region mask is {chosen.shape[1]}x{chosen.shape[0]}; make it as large as the picture, {width}x{height}"
            )
        if not chosen.any():
            raise RegionError("region mask is empty; mark the pixels where the defect may be")
    allowed = chosen & scene.part
    if np.count_nonzero(allowed) < 9:
        x, y, w, h = scene.box
        raise RegionError(f"region lies off the part; move it into the part's box {x},{y},{w},{h}")
    return allowed, chosen


class Placer:
    """Chooses sites on one photo; the maps are computed once."""

    def __init__(self, rgb: Image, scene: Scene, allowed: Mask) -> None:
        height, width = scene.part.shape
        self.scale = min(1.0, WORK / max(height, width))
        size = (max(8, round(width * self.scale)), max(8, round(height * self.scale)))
        self.scene = scene
        self.allowed = cv2.resize(allowed.astype(np.float32), size, interpolation=cv2.INTER_AREA) > 0.5
        if not self.allowed.any():
            self.allowed = cv2.resize(allowed.astype(np.float32), size, interpolation=cv2.INTER_AREA) > 0
        part = cv2.resize(scene.part.astype(np.float32), size, interpolation=cv2.INTER_AREA)
        self.part = part > 0.5
        self.clearance = clearance(self.part)
        self.room = clearance(self.part & self.allowed)
        self.luma = grey(cv2.resize(rgb, size, interpolation=cv2.INTER_AREA))
        self.extent = scene.extent
        self.drawn = np.zeros(self.part.shape, bool)

    def avoid(self, alpha: Field) -> None:
        """Keep further defects off what is drawn already, (H, W) > 0."""
        small = cv2.resize((alpha > 0).astype(np.float32), self.drawn.shape[::-1], interpolation=cv2.INTER_AREA)
        self.drawn = small > 0

    def _apart(self, weight: Field, length: float) -> Field:
        """The weights where another defect of this length is clear of the drawn ones, where there is such room."""
        if not self.drawn.any():
            return weight
        away = cv2.distanceTransform((~self.drawn).astype(np.uint8), cv2.DIST_L2, 5)
        for share in (0.6, 0.4, 0.2, 0.0):
            clear = weight * (away > share * length + 1)
            if clear.max() > 0:
                return np.asarray(clear, np.float32)
        return weight

    def choose(
        self, spec: DefectSpec, habit: Habit, streams: Streams, share: float, around: Site | None
    ) -> tuple[Site, list[str]]:
        """Pick a site and say what could not be followed.

        share: factor on the length (several defects are smaller each). around: stay near this site.
        Raises RegionError where a family of the outline finds none.
        """
        notes: list[str] = []
        rng, shape = streams("place"), streams("shape")
        length = max(spec.relative_size * share * self.extent * self.scale, 2.0)
        box_side = float(np.sqrt(np.count_nonzero(self.allowed)))
        length = min(length, (1.1 if habit == "line" else 0.9) * box_side)
        if spec.family is Family.MISSING and self._bites(spec):
            habit = "outline"
        everywhere = habit == "inside" and "everywhere" in spec.place
        on_outline = habit == "outline" or (bool(spec.place & {"edge", "corner"}) and not everywhere)
        if on_outline and self.scene.kind == "texture" and habit != "outline":
            notes.append("no rim found on a texture: placed on the surface")
            on_outline = False
        angle = self._angle(spec, shape)
        if spec.family is Family.MISPLACED:
            length = self._size_of_element(spec, length)
        weight = self._weights(spec, habit, on_outline, length, angle, around)
        shrinks = (habit == "line" and not on_outline) or "conductor" in spec.place
        while shrinks and weight.max() <= 0 and length > 3:
            length *= 0.8
            weight = self._weights(spec, habit, on_outline, length, angle, around)
        if weight.max() <= 0:
            if spec.place:
                notes.append("the named place has no room for this defect: placed where it fits")
            weight = self._wherever(spec, habit, length)
        x, y = draw(weight if around is not None else self._apart(weight, length), rng)
        inward = self._inward(x, y, spec) if on_outline else None
        if not on_outline and habit != "line":
            length = min(length, 2.2 * float(self.room[int(y), int(x)]) + 1)
        if inward is not None:
            angle = self._at_outline(spec, habit, inward, angle, float(shape.uniform(50, 130)))
            if habit == "line":
                x, y = maps.into_part(x, y, inward, angle, length)
            elif habit == "inside":
                x, y = x + 0.3 * length * inward[0], y + 0.3 * length * inward[1]
        elif habit == "line" and "whole" in spec.place:
            x, y, length = maps.chord(self.part, x, y, angle)
        elif everywhere:
            x, y, length = maps.around(self.allowed, max(share, 1.0))
        s = 1 / self.scale
        return Site((x + 0.5) * s - 0.5, (y + 0.5) * s - 0.5, length * s, angle, inward), notes

    def _bites(self, spec: DefectSpec) -> bool:
        """Whether a missing piece can be one of the part's outline."""
        if self.scene.kind == "texture" or spec.place & {"centre", "interior"}:
            return False
        return float((maps.outer_outline(self.part, self.luma) * self.allowed * self._frame_free()).max()) > 0.05

    def _size_of_element(self, spec: DefectSpec, length: float) -> float:
        """The length nearest to the asked one at which an element stands out. Raises RegionError."""
        for factor in (1.0, 0.75, 1.35, 0.55, 1.8):
            if (self.allowed * maps.elements(self.luma, self.part, factor * length)).any():
                return factor * length
        raise RegionError("no separate element to misplace; set region around one, or ask for another defect")

    def _outline(self, spec: DefectSpec, length: float) -> Field:
        """Where a family that lives on the outline may sit: the outer outline, on a texture what looks like one."""
        if "conductor" in spec.place and two_tone(self.luma).any():
            solid = two_tone(self.luma)
            return np.asarray(self.allowed * solid * (clearance(solid) <= 1.5), np.float32)
        if self.scene.kind == "object":
            near = self.allowed * (self.clearance <= 2.0) * (self.clearance > 0)
            return np.asarray(near * maps.outer_outline(self.part, self.luma) * self._frame_free(), np.float32)
        border = self.allowed * (self.clearance <= 2.0)
        if spec.family is Family.BROKEN_EDGE:
            border = border * maps.edge_at_border(self.luma, length)
        return np.asarray(border, np.float32)

    def _wherever(self, spec: DefectSpec, habit: Habit, length: float) -> Field:
        """Weights without the place words: roomy pixels, or the outline for a family that lives there."""
        if habit != "outline":
            return np.asarray(self.allowed * np.maximum(self.room, 0.5) ** 2, np.float32)
        weight = self._outline(spec, length)
        if weight.max() <= 0:
            name = spec.family.value.replace("_", " ")
            if self.scene.kind == "texture":
                raise RegionError(f"no edge of the part in view for a {name}; use a photo that shows its outline")
            raise RegionError(
                "the region holds no piece of the part's outline, where this defect lives; move it onto one"
            )
        return weight

    def _angle(self, spec: DefectSpec, rng: np.random.Generator) -> float:
        """Direction in radians, y down."""
        free, wobble, side = rng.uniform(0, 180), rng.normal(0, 4), rng.random()
        wanted = spec.orientation
        grain = self.scene.grain
        if wanted is None:
            degrees = free
        elif wanted.kind == "diagonal":
            degrees = (40 if side < 0.5 else 140) + 2 * wobble
        elif wanted.kind == "along":
            degrees = grain.angle_deg + wobble
        elif wanted.kind == "across":
            degrees = grain.angle_deg + 90 + wobble
        else:
            degrees = wanted.degrees + wobble
        return float(-np.radians(degrees))

    def _at_outline(
        self, spec: DefectSpec, habit: Habit, inward: tuple[float, float], angle: float, crossing: float
    ) -> float:
        """Direction of a defect on the outline: along it, or across it by ``crossing`` degrees."""
        tangent = float(np.arctan2(inward[0], -inward[1]))
        if habit == "outline" or (spec.orientation is not None and spec.orientation.kind == "rim"):
            return tangent
        return angle if spec.orientation is not None else tangent + float(np.radians(crossing))

    def _weights(
        self, spec: DefectSpec, habit: Habit, on_outline: bool, length: float, angle: float, around: Site | None
    ) -> Field:
        """Unnormalised probability of each pixel of the map as the defect's centre."""
        allowed = self.allowed.astype(np.float32)
        if on_outline:
            band = max(2.0, 0.25 * length) if habit == "inside" else 2.0
            weight = allowed * (self.clearance <= band) * (self.clearance > 0) * self._frame_free()
            weight = self._outline(spec, length) if habit == "outline" else weight
        elif habit == "line":
            weight = allowed.copy()
            room = 0.06 * length if self.scene.kind == "texture" and "whole" not in spec.place else 0.0
            for t in (-0.5, -0.4, -0.25, 0.25, 0.4, 0.5):
                weight *= shifted(self.room > 1.5 + room, t * length * np.cos(angle), t * length * np.sin(angle))
            weight *= maps.unbroken(self.luma, self.part, length, angle)
        else:
            need = min(0.55 * length + 1, 0.8 * float(self.room.max()))
            weight = allowed * (self.room >= need)
        if spec.family is Family.MISPLACED:
            weight = allowed * maps.elements(self.luma, self.part, length)
        elif spec.family is Family.MISSING and maps.binary(self.luma):
            weight = allowed * two_tone(self.luma)
        elif "conductor" in spec.place and spec.family is Family.HOLE:
            weight = allowed * (clearance(two_tone(self.luma)) > 0.5 * length + 1)
        elif spec.family in {Family.SHORT, Family.OPEN}:
            weight = allowed * maps.conductors(two_tone(self.luma), spec.family, 0.5 * length + 1)
        else:
            weight *= self._carries(length)
        weight *= self._named(spec)
        if around is not None:
            weight *= bump(weight.shape, around.x * self.scale, around.y * self.scale, 1.2 * length + 6)
        return np.asarray(weight, np.float32)

    def _frame_free(self) -> Field:
        """0 close to the picture's border, where the outline is only the crop's."""
        free = np.zeros_like(self.luma)
        margin = max(2, round(0.015 * max(free.shape)))
        if self.scene.kind == "texture":
            return np.ones_like(free)
        free[margin:-margin, margin:-margin] = 1
        return free

    def _carries(self, length: float) -> Field:
        """Calm, normally lit surface is preferred over busy structure, glare and deep shadow."""
        gx, gy = cv2.Sobel(self.luma, cv2.CV_32F, 1, 0), cv2.Sobel(self.luma, cv2.CV_32F, 0, 1)
        busy = cv2.GaussianBlur(magnitude(gx, gy), (0, 0), max(1.0, 0.2 * length))
        inside = self.part
        typical = float(np.median(busy[inside])) + 1.0
        calm = 1 / (1 + (busy / (2.5 * typical)) ** 4)
        level = cv2.GaussianBlur(self.luma, (0, 0), max(1.0, 0.2 * length))
        middle = float(np.median(level[inside]))
        spread = float(np.median(np.abs(level[inside] - middle))) + 12.0
        usual = 1 / (1 + (np.abs(level - middle) / (3 * spread)) ** 4)
        return np.asarray(0.02 + calm * usual, np.float32)

    def _named(self, spec: DefectSpec) -> Field:
        """Weight of each pixel under the place words."""
        height, width = self.part.shape
        ys, xs = np.nonzero(self.part)
        x0, x1, y0, y1 = xs.min(), xs.max() + 1, ys.min(), ys.max() + 1
        u = (np.arange(width, dtype=np.float32)[None, :] + 0.5 - x0) / (x1 - x0) * np.ones((height, 1), np.float32)
        v = (np.arange(height, dtype=np.float32)[:, None] + 0.5 - y0) / (y1 - y0) * np.ones((1, width), np.float32)
        weight = np.ones((height, width), np.float32)
        for word, along in (("left", u), ("right", 1 - u), ("upper", v), ("lower", 1 - v)):
            if word in spec.place:
                weight *= 1 / (1 + np.exp((along - 0.38) / 0.035))
        if "centre" in spec.place:
            weight *= np.exp(-(((u - 0.5) / 0.16) ** 2 + ((v - 0.5) / 0.16) ** 2))
        if "corner" in spec.place and "edge" not in spec.place:
            weight *= maps.corners(self.part, self.clearance, 0.05 * self.extent * self.scale)
        if "end" in spec.place:
            tall = (y1 - y0) > (x1 - x0)
            far = np.abs((v if tall else u) - 0.5) * 2
            weight *= np.exp(-(((1 - far) / 0.12) ** 2))
        if "interior" in spec.place and self.scene.kind == "object":
            weight *= np.exp(-(((1 - self.clearance / float(self.clearance.max())) / 0.5) ** 2))
        if "near_edge" in spec.place and self.scene.kind == "object":
            deep = float(self.clearance.max())
            weight *= np.exp(-((self.clearance / (0.3 * deep)) ** 2))
        return weight

    def _inward(self, x: float, y: float, spec: DefectSpec) -> tuple[float, float]:
        """Unit vector into the part or the conductor (towards the picture's middle on textures)."""
        solid = two_tone(self.luma) if "conductor" in spec.place else self.part
        if self.scene.kind == "texture" and (solid is self.part or not solid.any()):
            dx, dy = self.part.shape[1] / 2 - x, self.part.shape[0] / 2 - y
            dx, dy = (np.sign(dx), 0.0) if abs(dx) > abs(dy) else (0.0, np.sign(dy) or 1.0)
        else:
            soft = cv2.GaussianBlur(solid.astype(np.float32), (0, 0), 3.0 if solid is self.part else 1.5)
            gx, gy = cv2.Sobel(soft, cv2.CV_32F, 1, 0, ksize=5), cv2.Sobel(soft, cv2.CV_32F, 0, 1, ksize=5)
            dx, dy = float(gx[int(y), int(x)]), float(gy[int(y), int(x)])
        norm = float(np.hypot(dx, dy))
        return (dx / norm, dy / norm) if norm > 1e-6 else (0.0, 1.0)
