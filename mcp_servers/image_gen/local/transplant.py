"""A real defect out of an example photo, transplanted onto the photo of a good part.

The defect is taken out (transplant_piece.py), finds where it fits (transplant_pose.py), and is laid in: what is of its
own stuff keeps its colour, what is the surface under another light is lit anew on the photo's surface, and where there
is nothing but texture, the photo's texture goes on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from mcp_servers.errors import RegionError
from mcp_servers.image_gen.local import transplant_look as looks
from mcp_servers.image_gen.local import transplant_piece as pieces
from mcp_servers.image_gen.local import transplant_pose as posing
from mcp_servers.image_gen.local.place import Placer
from mcp_servers.image_gen.local.shading import DARK, ramp, to_linear, to_srgb
from mcp_servers.image_gen.local.spec import DefectSpec
from mcp_servers.image_gen.local.streams import Streams, fractal
from mcp_servers.image_gen.local.transplant_piece import Example, Piece
from mcp_servers.knowledge.families import SEVERITIES, SIZES, Family
from mcp_servers.vision.scene import Scene
from mcp_servers.vision.types import Field, Image, Mask

SCALES = 0.7, 0.85, 1.0, 1.2, 1.4
"""Size of each word of the size ladder, as a factor on the example's own."""

STRENGTHS = 0.5, 0.75, 1.0, 1.4, 1.8
"""Strength of each word of the severity ladder, as a factor on the example's own."""

SITES = 10
"""Sites of which the one is taken where the surroundings are most like the example's."""

OFF = 0.3
"""Share of a defect that may come to lie where it must not (it is cut off there) before it is made smaller."""

OURS, THEIRS = 0.8, 0.6
"""How much of the photo's texture and of the example's is kept where only texture is: together as rough as one."""

ORIENTED = 0.35
"""Coherence of the surface's texture from which defects keep their direction to it."""


@dataclass(frozen=True, slots=True)
class Patient:
    """The photo under change: ``rgb`` (H, W, 3) float32 sRGB 0-255 and ``alpha`` (H, W), both written to.

    ``photo``: (H, W, 3) uint8, ``scene`` and ``placer`` of it, ``allowed``: (H, W) part where the defect may be,
    ``fence``: (H, W) pixels that may change at all, ``grey``: whether the channels stay equal.
    """

    rgb: NDArray[np.float32]
    alpha: Field
    photo: Image
    scene: Scene
    placer: Placer
    allowed: Mask
    fence: Mask
    grey: bool


def transplant(patient: Patient, example: Example, spec: DefectSpec, seed: int) -> list[str]:
    """Lay the example's defect into the photo ``spec.count`` times; says what could not be done as asked.

    Raises RegionError where it does not fit.
    """
    notes: list[str] = []
    donor = pieces.example_scene(example)
    for index in range(spec.count):
        streams = Streams(seed).part(index)
        free = patient.allowed & (cv2.dilate(patient.alpha, np.ones((9, 9), np.uint8)) == 0)
        piece, pose, said = _placed(patient, free, example, donor, spec, streams)
        _lay(patient, piece, pose, STRENGTHS[SEVERITIES.index(spec.severity)], streams)
        notes += [note for note in said if note not in notes]
    return notes


def _placed(
    patient: Patient, free: Mask, example: Example, donor: Scene, spec: DefectSpec, streams: Streams
) -> tuple[Piece, posing.Poses, list[str]]:
    """The piece at its size and its pose. Raises RegionError."""
    rng = streams("shape")
    chosen = pieces.choose_components(example.mask, rng)
    scale = pieces.scale_to(donor, patient.scene) * SCALES[SIZES.index(spec.size)] * float(np.exp(rng.normal(0, 0.08)))
    ground = posing.ground_of(patient.photo, patient.scene, free)
    piece = pieces.take(example, donor, chosen, scale, streams("texture"))
    for _ in range(5):
        pose, said = _pose(patient, piece, donor, ground, spec, streams)
        probe = posing.probe_of(piece, ground, streams("probe"))
        if posing.outside(pose, probe, ground) <= OFF:
            return piece, pose, said
        scale *= 0.8
        piece = pieces.take(example, donor, chosen, scale, streams("texture"))
    raise RegionError(
        f"the example's defect, about {round(piece.length)} pixels long here, does not fit; allow a larger region, or "
        "ask for a smaller size"
    )


def _pose(
    patient: Patient, piece: Piece, donor: Scene, ground: posing.Ground, spec: DefectSpec, streams: Streams
) -> tuple[posing.Poses, list[str]]:
    """Where and how turned the piece lies."""
    scene = patient.scene
    outline = piece.bound and scene.kind == "object" and donor.kind == "object"
    need = piece.length * float(np.sqrt(piece.slim)) / scene.extent
    asked = replace(spec, family=Family.STAIN, relative_size=need, shapes=frozenset())
    wanted, axis = None, piece.axis
    if spec.orientation is not None and piece.slim < 0.5:
        wanted = -np.radians(spec.orientation.degrees)
    elif min(donor.grain.coherence, scene.grain.coherence) > ORIENTED and not outline:
        wanted, axis = -np.radians(scene.grain.angle_deg), -np.radians(donor.grain.angle_deg)
    sites, notes = [], []
    for index in range(SITES):
        site, said = patient.placer.choose(asked, "outline" if outline else "inside", streams.part(index), 1.0, None)
        sites.append((site.x, site.y))
        if spec.orientation is not None and spec.orientation.kind != "angle" and wanted is not None:
            wanted = site.angle
        notes += [note for note in said if note not in notes]
    probe = posing.probe_of(piece, ground, streams("probe"))
    pose, _ = posing.best_pose(
        posing.more_sites(np.array(sites), ground, streams("sites")),
        posing.turns_of(axis, wanted),
        piece.anchor if outline else (0.0, 0.0),
        probe,
        ground,
        reach=0.3 * piece.length if piece.bound else 0.12 * piece.length + 2 / ground.scale,
        wobble=0.14 if wanted is None else 0.05,
        rng=streams("pose"),
    )
    return pose, notes


def _lay(patient: Patient, piece: Piece, pose: posing.Poses, strength: float, streams: Streams) -> None:
    """Change the photo under the piece."""
    left, top, right, bottom = _window(piece, pose, patient.alpha.shape)
    here = (slice(top, bottom), slice(left, right))
    photo = patient.rgb[here]
    base = to_linear(photo)
    part, under = looks.matte(base, patient.scene.part[here])
    warp = _warp(piece, pose, (left, top), base.shape[:2], streams("warp"))
    fields = {name: warp(getattr(piece, name)) for name in ("outer", "reach", "around", "own", "opening", "plain")}
    rgb, shade = np.maximum(warp(piece.rgb), 0), warp(piece.shade)
    gain = looks.relighting(rgb, base, fields["around"] * (part > 0.9), fields["own"])
    behind = part < 0.1
    if piece.background is not None and behind.any():
        there = np.median(base[behind], axis=0)
        gain += fields["opening"][..., None] * (np.log((there + DARK) / (piece.background + DARK)) - gain)
    cover = fields["reach"] * part
    if piece.coat:
        ours, shadow = looks.bare(under, part)
        cover, gain = cover * ours, gain + shadow[..., None]
    outer = fields["outer"] * (1 - part)
    fence = patient.fence[here] * (cover + outer > 0.02)
    cover, outer = np.clip(cover, 0, 1) * fence, np.clip(outer, 0, 1) * fence
    own = np.log(rgb + DARK) + gain
    relit = np.log(under + DARK) + shade
    level = looks.lowpass(relit, max(1.5, 0.02 * piece.length))
    plain = level + OURS * (relit - level) + THEIRS * (own - level)
    look = np.exp(own + fields["plain"][..., None] * (plain - own)) - DARK
    beside = base - cover[..., None] * under  # what a pixel on the outline shows of the background
    beside = np.where((beside < 0).any(2, keepdims=True), base * (1 - cover[..., None]), beside)
    after = beside + cover[..., None] * look + outer[..., None] * (look - base)
    bold = strength + (min(strength, 1.0) - strength) * fields["own"]  # stuff of its own is never bolder than it is
    bold *= np.exp(streams("tone").normal(0, 0.06) * (1 - fields["own"]))
    change = bold[..., None] * (to_srgb(after) - to_srgb(base))
    cover = np.maximum(cover, outer)
    change = looks.as_sharp(change, piece.blur, patient.scene.blur)
    noise = float(np.sqrt(max(patient.scene.noise**2 - piece.noise**2, 0)))
    fresh = streams("noise").standard_normal((*cover.shape, 1 if patient.grey else 3), np.float32)
    change = change + (cover * (1 - fields["plain"]))[..., None] * noise * fresh
    if patient.grey:
        change = np.repeat(change.mean(2, keepdims=True), 3, 2)
    change *= ramp(cover, 0.0, 0.1)[..., None]
    touched = cover > 0
    photo[touched] = np.clip(photo + change, 0, 255)[touched]
    np.maximum(patient.alpha[here], cover, out=patient.alpha[here])


def _window(piece: Piece, pose: posing.Poses, shape: tuple[int, ...]) -> tuple[int, int, int, int]:
    """Box (left, top, right, bottom) of the photo that the piece covers."""
    height, width = piece.shape.shape
    corners = np.array([(x, y) for x in (0, width) for y in (0, height)]) - np.array(piece.centre)
    c, s = np.cos(pose[2]), np.sin(pose[2])
    x = pose[0] + c * corners[:, 0] * pose[3] - s * corners[:, 1]
    y = pose[1] + s * corners[:, 0] * pose[3] + c * corners[:, 1]
    left, right = (int(np.clip(round(v), 0, shape[1])) for v in (x.min(), x.max() + 1))
    top, bottom = (int(np.clip(round(v), 0, shape[0])) for v in (y.min(), y.max() + 1))
    return left, top, right, bottom


def _warp(
    piece: Piece, pose: posing.Poses, corner: tuple[int, int], shape: tuple[int, ...], rng: np.random.Generator
) -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
    """What moves a field of the piece into the photo's window: turn, mirror, and a slight elastic bend."""
    ys, xs = np.mgrid[0 : shape[0], 0 : shape[1]].astype(np.float32)
    bend = [
        0.012 * piece.length * fractal(rng, (shape[0], shape[1]), max(8.0, 0.6 * piece.length), 2) for _ in range(2)
    ]
    dx, dy = xs + corner[0] - pose[0] + bend[0], ys + corner[1] - pose[1] + bend[1]
    c, s = np.cos(pose[2]), np.sin(pose[2])
    at_x = ((c * dx + s * dy) * pose[3] + piece.centre[0]).astype(np.float32)
    at_y = (c * dy - s * dx + piece.centre[1]).astype(np.float32)

    def warp(field: NDArray[np.float32]) -> NDArray[np.float32]:
        how = cv2.INTER_CUBIC if field.ndim == 3 else cv2.INTER_LINEAR
        edge = cv2.BORDER_REPLICATE if field.ndim == 3 else cv2.BORDER_CONSTANT
        return np.asarray(cv2.remap(field, at_x, at_y, how, borderMode=edge), np.float32)

    return warp
