"""Where the defect is: on the part or off it, near its outline, how far from its middle, how big and how long."""

from __future__ import annotations

import cv2
import numpy as np

from mcp_servers.mask_gen.local import MaskResult
from mcp_servers.mask_gen.local.shape import ellipse
from mcp_servers.vision.scene import Scene
from mcp_servers.vision.types import Mask

WORK = 512
"""Longer side, in pixels, of the copies on which places and shapes are measured."""


def measure_place(found: MaskResult, scene: Scene, good: Mask) -> dict[str, float]:
    """Place and shape of ``found.mask`` (not empty), in shares and in units of the part's extent.

    on_part: share of the defect on the part (the outline gets 1% of tolerance). floating: share of it in pieces
    that do not touch the part. outline_distance: gap between defect and outline, in extents (0 where it touches
    or where there is no outline). over_outline: share outside the part of those pieces that do touch it.
    area_share: defect area / part area. length_share: longest extension / part extent. thickness: greatest width over
    length of its pieces, 0-1. boxiness: 0-1, how much the biggest piece is a filled rectangle, against the outline of
    the ``good`` part (H, W) too. off_centre: see `off_centre`.
    """
    scale = min(1.0, WORK / max(found.mask.shape))
    mask, part = shrink(found.mask, scale), shrink(scene.part, scale)
    if not mask.any():
        mask = shrink(cv2.dilate(found.mask.astype(np.uint8), ellipse(round(0.5 / scale) + 1)) > 0, scale)
    area, part_area = float(np.count_nonzero(mask)), max(1.0, float(np.count_nonzero(part)))
    extent = float(np.sqrt(part_area))
    out = {"area_share": min(1.0, area / part_area), "boxiness": boxiness(mask, part, shrink(good, scale))}
    out["thickness"] = thickness(mask)
    out["length_share"] = longest(mask) / extent
    out["on_part"], out["floating"], out["over_outline"], out["outline_distance"] = 1.0, 0.0, 0.0, 0.0
    if scene.kind == "object":
        near = cv2.dilate(part.astype(np.uint8), ellipse(max(1, round(0.01 * extent)))) > 0
        out["on_part"] = float((mask & near).sum()) / area
        _, labels = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
        touching = np.isin(labels, np.unique(labels[mask & near])) & mask
        out["floating"] = 1 - float(touching.sum()) / area
        out["over_outline"] = float((touching & ~near).sum()) / max(1.0, float(touching.sum()))
        out["outline_distance"] = outline_gap(mask, without_bores(part)) / extent
    out["off_centre"] = off_centre(mask, part) if scene.kind == "object" else 0.0
    return out


def shrink(mask: Mask, scale: float) -> Mask:
    """Reduce a mask (H, W) by ``scale`` <= 1; a pixel stays where at least 40% of it was set."""
    if scale >= 1:
        return mask
    size = (max(1, round(mask.shape[1] * scale)), max(1, round(mask.shape[0] * scale)))
    return np.asarray(cv2.resize(mask.astype(np.float32), size, interpolation=cv2.INTER_AREA) >= 0.4)


def longest(mask: Mask) -> float:
    """The longest extension of all pieces together, in px: the longer side of the smallest box around them."""
    (_, _), (w, h), _ = cv2.minAreaRect(cv2.findNonZero(mask.astype(np.uint8)))
    return float(max(w, h)) + 1


def thickness(mask: Mask) -> float:
    """Greatest width over length of the pieces, area-weighted, 0 to 1: lines stay under 0.1, patches above 0.2."""
    _, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    depth = cv2.distanceTransform(np.pad(mask, 1).astype(np.uint8), cv2.DIST_L2, 3)[1:-1, 1:-1]
    weighted, total = 0.0, 0.0
    for label in 1 + np.flatnonzero(stats[1:, cv2.CC_STAT_AREA] >= 0.02 * stats[1:, cv2.CC_STAT_AREA].max()):
        x, y, across, down, area = (int(v) for v in stats[label])
        box = (slice(y, y + down), slice(x, x + across))
        piece = labels[box] == label
        _, (width, height), _ = cv2.minAreaRect(cv2.findNonZero(piece.astype(np.uint8)))
        share = (2 * float(depth[box][piece].max()) - 1) / (max(width, height) + 1)
        weighted += area * min(1.0, share)
        total += area
    return weighted / total


def without_bores(part: Mask) -> Mask:
    """The part with its inner openings filled, so that only the outer outline is left."""
    contours, _ = cv2.findContours(part.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    filled = cv2.drawContours(np.zeros(part.shape, np.uint8), contours, -1, 1, cv2.FILLED)
    return np.asarray(filled > 0)


def solidity(part: Mask) -> float:
    """Area over the area of the convex hull (through pixel centres), up to about 1; all pieces together."""
    contours, _ = cv2.findContours(part.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    return np.count_nonzero(part) / max(1.0, float(cv2.contourArea(cv2.convexHull(np.concatenate(contours)))))


def boxiness(mask: Mask, part: Mask, good: Mask) -> float:
    """How much the biggest piece looks like a filled, possibly rotated rectangle: 0 below 86% fill, 1 from 97%.

    Pieces thinner than 6 px are no evidence: every short line fills its box. Nor is an outline that is the part's own
    or the picture's: it counts in full where 55% of it lie free, and not at all below 20%. An outline that the part has
    in the edited photo only (``part``, against ``good``) might be the patch's own: that excuses 30%.
    """
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    biggest = max(contours, key=cv2.contourArea)
    (_, _), (w, h), _ = cv2.minAreaRect(biggest)
    if min(w, h) < 5:
        return 0.0
    fill = float(cv2.contourArea(biggest)) / (w * h)
    free, was_free = (float(clear_of(p)[biggest[:, 0, 1], biggest[:, 0, 0]].mean()) for p in (part, good))
    evidence = max(np.clip((free - 0.2) / 0.35, 0, 1), 0.7 * np.clip((was_free - 0.2) / 0.35, 0, 1))
    return float(np.clip((fill - 0.86) / 0.11, 0, 1) * np.clip((min(w, h) - 4) / 6, 0, 1) * evidence)


def clear_of(part: Mask) -> Mask:
    """Pixels more than 3 px away from the part's outline and from the picture's border."""
    solid = part.astype(np.uint8)
    inside, outside = cv2.erode(solid, ellipse(3), borderValue=1) > 0, cv2.dilate(solid, ellipse(3)) == 0
    clear = inside | outside
    for side in (clear[:3], clear[-3:], clear[:, :3], clear[:, -3:]):
        side[:] = False
    return np.asarray(clear)


def outline_gap(mask: Mask, part: Mask) -> float:
    """Smallest distance (px) from the defect to the part's outline; 0 where it touches."""
    inside = cv2.distanceTransform(np.pad(part, 1, constant_values=True).astype(np.uint8), cv2.DIST_L2, 3)
    outside = cv2.distanceTransform(np.pad(~part, 1, constant_values=True).astype(np.uint8), cv2.DIST_L2, 3)
    distance = np.maximum(inside, outside)[1:-1, 1:-1]
    return max(0.0, float(distance[mask].min()) - 1.5)


def off_centre(mask: Mask, part: Mask) -> float:
    """How far the defect's middle lies from the part's, 0 (in the middle) to 1 (at the corner of the part's box)."""
    away = 0.0
    for axis in (0, 1):
        covered = np.flatnonzero(part.any(axis=axis))
        low, high = float(covered[0]), float(covered[-1])
        middle = float(np.mean(np.nonzero(mask)[1 - axis]))
        away = max(away, abs(2 * (middle - low) / max(1.0, high - low) - 1))
    return min(1.0, away)
