"""Pieces broken away: a bite out of the outline, a gap right through the part."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np

from mcp_servers.errors import RegionError
from mcp_servers.image_gen.local import strokes
from mcp_servers.image_gen.local.canvas import Canvas, Layer
from mcp_servers.image_gen.local.families import _surface as surface
from mcp_servers.image_gen.local.fill import fill
from mcp_servers.image_gen.local.maps import two_tone
from mcp_servers.image_gen.local.shading import Colour, luma, ramp, to_srgb
from mcp_servers.image_gen.local.spec import DefectSpec
from mcp_servers.image_gen.local.streams import Streams, fractal
from mcp_servers.image_gen.local.strokes import sample, smooth
from mcp_servers.vision.types import Field, Mask


def broken_edge(canvas: Canvas, spec: DefectSpec, streams: Streams) -> Layer:
    """A chip off the outline (or off a conductor's): what lies behind shows, a rough face is left along the break."""
    tones = two_tone(np.sqrt(luma(canvas.base)) * 255)
    if "conductor" in spec.place and tones.any():
        canvas = replace(canvas, part=cv2.GaussianBlur(tones.astype(np.float32), (0, 0), 0.8))
    return bite(canvas, spec, streams, clean=False)


def gap(canvas: Canvas, spec: DefectSpec, streams: Streams) -> Layer:
    """The part broken in two: a ragged gap, often wider at one end, through which what lies behind shows."""
    rng = streams("shape")
    length = canvas.length
    points = strokes.path(rng, (0, 0), canvas.angle, 1.1 * length, wander=0.16, kinks=0.42, count=48)
    points = strokes.splintered(rng, strokes.centred(points, canvas.centre), 0.10)
    line = strokes.ribbon(points, canvas.shape, 0.5 * length)
    width = length * (0.03 + 0.07 * spec.strength) * float(np.exp(rng.uniform(-1.4, 0.5)))
    width = max(width, 2.5 * canvas.hair)
    ends = rng.permutation([1.0, float(rng.uniform(0.1, 1.0))])
    t = np.linspace(0, 1, 96)
    wedge = ends[0] + (ends[1] - ends[0]) * t
    lost = float(rng.uniform(0, 1)) < 0.5  # a corner between the pieces crumbled away as well
    reach = float(rng.uniform(0.12, 0.3))
    flare = lost * float(rng.uniform(1.0, 3.0)) * np.clip(1 - (t if ends[0] > ends[1] else 1 - t) / reach, 0, 1)
    lean = float(rng.uniform(0.2, 0.8))
    rough = fractal(streams("border"), canvas.shape, max(0.12 * length, 3.0), 5, 0.65)
    sides = []
    for share in (lean, 1 - lean):
        profile = width * (share * (wedge + flare) * np.clip(1 + 0.35 * smooth(rng, 96, 12, 3), 0.2, 2.0))
        sides.append(sample(profile.astype(np.float32), line.along))
    half = np.where(line.offset > 0, sides[0], sides[1])
    field = np.asarray(half - line.near + 0.016 * length * rough, np.float32)
    field = np.where(line.near > 0.45 * length, -length, field).astype(np.float32)
    soft = 0.4 * canvas.hair
    gone = ramp(field, -soft, soft)
    behind = _behind(canvas, True, _border(canvas), streams)
    calm = cv2.GaussianBlur(canvas.base, (0, 0), 1.2 * canvas.scale)
    apart = np.linalg.norm(to_srgb(calm) - to_srgb(behind), axis=2)
    part = ramp(apart, 10.0, 30.0)  # not where the outline took in a piece of the ground
    shade = surface.cast_shadow(canvas, (1 - gone) * canvas.part, max(0.03 * length, 1.5 * canvas.hair))
    deep = np.exp(-np.maximum(field, 0) / (0.025 * length))  # little light reaches the foot of the walls
    within = ramp(cv2.GaussianBlur(canvas.part, (0, 0), 0.02 * length), 0.45, 0.85)  # open to the light at its ends
    behind = behind * np.exp(-(0.7 * shade + 1.3 * deep) * gone * within)[..., None]
    rgb, face = _face(canvas, spec, streams, field, 0.3 * width, clean=False)
    rgb = rgb + gone[..., None] * (behind - rgb)
    beyond = cv2.distanceTransform((canvas.part < 0.02).astype(np.uint8), cv2.DIST_L2, 5)
    gone = gone * part * ramp(beyond, 3.0 * _border(canvas), _border(canvas))
    face = np.asarray(face * part, np.float32)
    keep = np.asarray(1 - np.maximum(gone, 0.7 * face), np.float32)
    return Layer(surface.exact(canvas, np.asarray(rgb, np.float32), gone), np.maximum(gone, face), keep)


def shows_ground(canvas: Canvas) -> bool:
    """Whether the window holds something that is not the part."""
    return bool((canvas.part < 0.05).mean() > 0.01)


def _border(canvas: Canvas) -> float:
    """Width (px) of the soft rim that the part's outline leaves on its background."""
    return max(2.0, 2.2 * canvas.blur + 1.2 * canvas.scale + 0.025 * canvas.length)


def bite(canvas: Canvas, spec: DefectSpec, streams: Streams, clean: bool) -> Layer:
    """The part without a piece of its outline. clean: smooth gap and narrow face instead of a fracture."""
    rng = streams("shape")
    inward = canvas.inward or (0.0, -1.0)
    solid = canvas.part > 0.5
    open_side = shows_ground(canvas)
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
    uneven = (0.0 if clean else 0.03) * fractal(streams("facets"), canvas.shape, max(0.4 * length, 4.0), 3, 0.6)
    limit = bite * sample(profile, np.asarray(at, np.float32)) + length * (torn * rough + uneven)
    limit = limit - np.maximum(np.abs(along) - 0.5 * length, 0)
    field = np.asarray(limit - deep, np.float32)
    soft = 0.4 * canvas.hair
    reach = _border(canvas)
    beyond = cv2.distanceTransform((canvas.part < 0.02).astype(np.uint8), cv2.DIST_L2, 5)
    gone = ramp(field, -soft, soft) * ramp(beyond, 3.0 * reach, reach)
    behind = _behind(canvas, open_side, reach, streams)
    rgb, face = _face(canvas, spec, streams, field, length * (0.03 if clean else 0.075), clean)
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
    bowl = (1 - np.abs(at[1:-1]) ** 2.4) * rng.uniform(0.6, 1.0, knots)
    deep = np.concatenate([[-0.05], bowl, [-0.05]])
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


def _face(
    canvas: Canvas, spec: DefectSpec, streams: Streams, field: Field, width: float, clean: bool
) -> tuple[Colour, Field]:
    """The part with the exposed face, about ``width`` px wide, along a break, and where that face is (H, W)."""
    vary = fractal(streams("face"), canvas.shape, max(3.0 * width, 3.0), 4, 0.6)
    wide = np.maximum(width * np.clip(1 + (0.15 if clean else 0.6) * vary, 0.15, 2.2), 0.7 * canvas.hair)
    away = np.maximum(-field, 0)
    soft = 0.5 * canvas.hair
    on_part = ramp(canvas.part, 0.3, 0.9)
    face = ramp(away - wide, soft, -soft) * on_part
    grain = fractal(streams("texture"), canvas.shape, max(1.1 * width, 2.5), 4, 0.75)
    strong = 0.3 + 0.7 * spec.strength
    slope = surface.towards_light(canvas, field)
    here = surface.level(canvas)
    fresh = float(np.interp(here, (0.05, 0.15, 0.3, 0.5, 1.0), (0.45, 0.35, 0.08, -0.12, -0.3)))
    fresh = 0.4 * fresh if clean else fresh
    mean = canvas.lowpass(max(0.7 * width, 1.5))
    matter = 0.85 * mean + 0.15 * luma(mean)[..., None]
    matter = 0.45 * canvas.base + 0.55 * matter
    gain = np.exp(strong * (fresh + 0.38 * slope + (0.05 if clean else 0.17) * grain))
    low = np.exp(-0.35 * strong * ramp(away, 1.5 * canvas.hair, 0.0))
    raw = matter * (gain * low)[..., None]
    edge = np.exp(-(((away - wide) / (0.5 * canvas.hair)) ** 2)) * on_part * (field < 0)
    lip = canvas.base * np.exp(0.35 * strong * edge * slope)[..., None]
    rgb = lip + face[..., None] * (raw - lip)
    return np.asarray(rgb, np.float32), np.maximum(face, ramp(edge, 0.3, 0.8))
