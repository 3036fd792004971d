"""How a piece of an example lies on the photo: where what surrounds it there is like what surrounds it here.

Candidate sites come from the Placer, which knows place words and region. Around each the piece is turned, mirrored
and moved a little, and points of the piece are held against the photo: the part's outline should run on, and the
pattern beside the defect should be the one it grew in.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from mcp_servers.image_gen.local.shading import to_srgb
from mcp_servers.image_gen.local.transplant_piece import Piece
from mcp_servers.vision.scene import Scene
from mcp_servers.vision.types import Image, Mask

SIDE = 640
"""Longer side, in pixels, of the copy of the photo on which poses are compared."""

POINTS = 200
"""Points of the piece that are held against the photo, half of them on the defect."""

ROUNDS = 4
"""How often the best poses are varied, ever less."""

PATTERNED, MORE = 15.0, 12
"""Deviation of lightness on a part from which it shows a pattern, and how many more sites are then tried."""

FAR = 25.0
"""Difference in colour (Lab) from which two surroundings are simply different."""

Poses = NDArray[np.float64]
"""(N, 4): x and y of the piece's centre in the photo, angle by which it is turned (radians, y down), 1 or -1 (mirrored
in its own x axis before it is turned)."""


@dataclass(frozen=True, slots=True)
class Ground:
    """The photo as poses see it: ``lab`` (h, w, 3), ``part`` and ``allowed`` (h, w), ``scale`` of it to the photo."""

    lab: NDArray[np.float32]
    part: Mask
    allowed: Mask
    scale: float


@dataclass(frozen=True, slots=True)
class Probe:
    """Points of a piece, relative to its centre, in photo pixels: what each of them should find.

    ``at``: (P, 2). ``on_part``: (P,) whether the part is there. ``lab``: (P, 3) colour. ``defect``: (P,) on the defect.
    ``clean``: (P,) whether the colour is the surface's or the background's, not the defect's.
    """

    at: NDArray[np.float64]
    on_part: Mask
    lab: NDArray[np.float32]
    defect: Mask
    clean: Mask


def ground_of(rgb: Image, scene: Scene, allowed: Mask) -> Ground:
    """The photo at the size on which poses are compared."""
    height, width = rgb.shape[:2]
    scale = min(1.0, SIDE / max(height, width))
    size = (max(8, round(width * scale)), max(8, round(height * scale)))
    small = cv2.resize(rgb, size, interpolation=cv2.INTER_AREA).astype(np.float32) / 255
    lab = cv2.cvtColor(cv2.GaussianBlur(small, (0, 0), 1.0), cv2.COLOR_RGB2LAB)
    part, free = (
        cv2.resize(mask.astype(np.float32), size, interpolation=cv2.INTER_AREA) > 0.5 for mask in (scene.part, allowed)
    )
    return Ground(np.asarray(lab, np.float32), part, free, scale)


def probe_of(piece: Piece, ground: Ground, rng: np.random.Generator) -> Probe:
    """Points drawn on the defect and in its surroundings."""
    defect = piece.shape > 0.5
    blurred = cv2.GaussianBlur(to_srgb(piece.rgb) / 255, (0, 0), 1.0 / ground.scale)
    lab = cv2.cvtColor(blurred, cv2.COLOR_RGB2LAB)
    chosen = []
    for where in (defect, piece.reach < 0.02):
        ys, xs = np.nonzero(where)
        if len(ys):
            chosen.append(np.column_stack([xs, ys])[rng.integers(len(ys), size=POINTS // 2)])
    xy = np.concatenate(chosen)
    x, y = xy[:, 0], xy[:, 1]
    on_part = piece.surface[y, x] > 0.5
    clean = (piece.around[y, x] > 0.5) | (~on_part & ~defect[y, x])
    return Probe(xy - np.array(piece.centre), on_part, np.asarray(lab[y, x], np.float32), defect[y, x], clean)


def cost(poses: Poses, probe: Probe, ground: Ground) -> NDArray[np.float64]:
    """How badly each pose fits (N,): 0 where the surroundings are the same, above 1 where it should not lie."""
    c, s = np.cos(poses[:, 2:3]), np.sin(poses[:, 2:3])
    px, py = probe.at[None, :, 0] * poses[:, 3:4], probe.at[None, :, 1]
    x = ((poses[:, 0:1] + c * px - s * py) * ground.scale).round().astype(int)
    y = ((poses[:, 1:2] + s * px + c * py) * ground.scale).round().astype(int)
    height, width = ground.part.shape
    inside = (x >= 0) & (y >= 0) & (x < width) & (y < height)
    x, y = x.clip(0, width - 1), y.clip(0, height - 1)
    on_part = ground.part[y, x] & inside
    differs = (on_part != probe.on_part).astype(np.float64)
    off = (~(ground.allowed[y, x] & inside) & probe.defect & probe.on_part).sum(1) / max(
        1, np.count_nonzero(probe.defect & probe.on_part)
    )
    compare = (probe.clean & inside & (on_part == probe.on_part)).astype(np.float64)[..., None]
    gap = ground.lab[y, x] - probe.lab
    level = (gap * compare).sum(1) / np.maximum(compare.sum(1), 1)
    rest = np.minimum(np.linalg.norm(gap - level[:, None], axis=2), FAR) / FAR
    pattern = (rest * compare[..., 0]).sum(1) / np.maximum(compare[..., 0].sum(1), 1)
    shift = np.minimum(np.linalg.norm(level, axis=1), 2 * FAR) / (2 * FAR)
    return np.asarray(1.5 * differs.mean(1) + pattern + shift + 2.0 * off)


def outside(pose: Poses, probe: Probe, ground: Ground) -> float:
    """Share of the defect on the part that one pose (4,) would put where it must not be."""
    c, s = np.cos(pose[2]), np.sin(pose[2])
    points = probe.at[probe.defect & probe.on_part]
    if len(points) == 0:
        return 0.0
    px, py = points[:, 0] * pose[3], points[:, 1]
    x = ((pose[0] + c * px - s * py) * ground.scale).round().astype(int)
    y = ((pose[1] + s * px + c * py) * ground.scale).round().astype(int)
    height, width = ground.part.shape
    inside = (x >= 0) & (y >= 0) & (x < width) & (y < height)
    return float(1 - (ground.allowed[y.clip(0, height - 1), x.clip(0, width - 1)] & inside).mean())


def best_pose(
    sites: NDArray[np.float64],
    turns: NDArray[np.float64],
    anchor: tuple[float, float],
    probe: Probe,
    ground: Ground,
    reach: float,
    wobble: float,
    rng: np.random.Generator,
) -> tuple[Poses, float]:
    """The pose (4,) that fits best near the sites, and its cost.

    sites: (K, 2) in photo pixels, where ``anchor`` (relative to the piece's centre) should come to lie. turns: (A, 2)
    angles and mirrorings to try. reach: how far (px) it may move from there. wobble: how far (radians) it may turn.
    """
    c, s, flip = np.cos(turns[:, 0]), np.sin(turns[:, 0]), turns[:, 1]
    ax, ay = anchor[0] * flip, anchor[1]
    offsets = np.column_stack([c * ax - s * ay, s * ax + c * ay])
    poses = np.array([(*(site - offset), *turn) for site in sites for turn, offset in zip(turns, offsets, strict=True)])
    costs = cost(poses, probe, ground)
    for level in range(ROUNDS):
        order = np.argsort(costs, kind="stable")[: max(3, 12 >> level)]
        best, best_costs = poses[order], costs[order]
        step = reach * 0.5**level
        near = np.repeat(best, 32, axis=0)
        near[:, 0:2] += rng.uniform(-step, step, (len(near), 2))
        near[:, 2] += rng.uniform(-1, 1, len(near)) * wobble * 0.6**level
        poses = np.concatenate([best, near])
        costs = np.concatenate([best_costs, cost(near, probe, ground)])
    first = int(np.argmin(costs))
    return poses[first], float(costs[first])


def more_sites(sites: NDArray[np.float64], ground: Ground, rng: np.random.Generator) -> NDArray[np.float64]:
    """The sites, and on a part that shows a pattern many more around them: the same place in it is looked for."""
    if float(ground.lab[ground.part, 0].std()) < PATTERNED:
        return sites
    spread = 0.15 * float(np.sqrt(np.count_nonzero(ground.part))) / ground.scale
    more = np.repeat(sites, MORE, axis=0) + rng.normal(0, spread, (len(sites) * MORE, 2))
    height, width = ground.part.shape
    x, y = (more[:, 0] * ground.scale).astype(int), (more[:, 1] * ground.scale).astype(int)
    kept = (x >= 0) & (y >= 0) & (x < width) & (y < height)
    kept &= ground.allowed[y.clip(0, height - 1), x.clip(0, width - 1)]
    return np.concatenate([sites, more[kept]])


def turns_of(axis: float, wanted: float | None) -> NDArray[np.float64]:
    """(A, 2) angles by which a piece may be turned (radians, y down), each plain (1) and mirrored (-1).

    axis: a direction in the piece. wanted: the direction that it must get, up to half a turn; None where any is right.
    """
    if wanted is None:
        return np.array([(turn, flip) for turn in np.linspace(0, 2 * np.pi, 24, endpoint=False) for flip in (1, -1)])
    return np.array([(wanted - flip * axis + half, flip) for flip in (1, -1) for half in (0.0, np.pi)])
