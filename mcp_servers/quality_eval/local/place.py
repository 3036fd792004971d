"""Where the defect is: on the part or off it, near its outline, how big, how long, and what else changed."""

from __future__ import annotations

import cv2
import numpy as np

from mcp_servers.mask_gen.local import MaskResult
from mcp_servers.mask_gen.local.shape import ellipse, lab_of
from mcp_servers.vision.scene import Image, Mask, Scene

WORK = 512
"""Longer side, in pixels, of the copies on which places and shapes are measured."""


def measure_place(normal: Image, anomaly: Image, found: MaskResult, scene: Scene) -> dict[str, float]:
    """Place and shape of ``found.mask`` (not empty), in shares and in units of the part's extent.

    on_part: share of the defect on the part (the outline gets 1% of tolerance). floating: share of it in pieces
    that do not touch the part. outline_distance: gap between defect and outline, in extents (0 where it touches
    or where there is no outline). over_outline: share outside the part of those pieces that do touch it.
    area_share: defect area / part area. length_share: longest extension / part extent. elongation:
    perimeter^2 / (4 pi area) of the whole defect, about 1 for a disc, 4 for a 1:12 line. thickness: greatest
    width over length of its pieces, 0-1. boxiness: 0-1, how much the biggest piece is a filled rectangle.
    recolour: median colour difference (dE) outside the defect.
    drift: displacement of the photo in percent of its longer side.
    """
    scale = min(1.0, WORK / max(found.mask.shape))
    mask, part = shrink(found.mask, scale), shrink(scene.part, scale)
    if not mask.any():
        mask = shrink(cv2.dilate(found.mask.astype(np.uint8), ellipse(round(0.5 / scale) + 1)) > 0, scale)
    area, part_area = float(np.count_nonzero(mask)), max(1.0, float(np.count_nonzero(part)))
    extent = float(np.sqrt(part_area))
    out = {"area_share": min(1.0, area / part_area), "boxiness": boxiness(mask)}
    out["elongation"], length = elongation(mask)
    out["thickness"] = thickness(mask)
    out["length_share"] = length / extent
    out["on_part"], out["floating"], out["over_outline"], out["outline_distance"] = 1.0, 0.0, 0.0, 0.0
    if scene.kind == "object":
        near = cv2.dilate(part.astype(np.uint8), ellipse(max(1, round(0.01 * extent)))) > 0
        out["on_part"] = float((mask & near).sum()) / area
        _, labels = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
        touching = np.isin(labels, np.unique(labels[mask & near])) & mask
        out["floating"] = 1 - float(touching.sum()) / area
        out["over_outline"] = float((touching & ~near).sum()) / max(1.0, float(touching.sum()))
        out["outline_distance"] = outline_gap(mask, without_bores(part)) / extent
    out["recolour"] = recolour(normal, anomaly, found.mask)
    out["drift"] = 100 * float(np.hypot(*found.shift)) / max(found.mask.shape)
    return out


def shrink(mask: Mask, scale: float) -> Mask:
    """Reduce a mask (H, W) by ``scale`` <= 1; a pixel stays where at least 40% of it was set."""
    if scale >= 1:
        return mask
    size = (max(1, round(mask.shape[1] * scale)), max(1, round(mask.shape[0] * scale)))
    return np.asarray(cv2.resize(mask.astype(np.float32), size, interpolation=cv2.INTER_AREA) >= 0.4)


def elongation(mask: Mask) -> tuple[float, float]:
    """Shape factor perimeter^2 / (4 pi area), area-weighted over the pieces, and the longest extension in px."""
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    weighted, total = 0.0, 0.0
    for contour in contours:
        perimeter = cv2.arcLength(contour, True) + 3.14  # the contour runs through pixel centres
        area = cv2.contourArea(contour) + 0.5 * perimeter
        weighted += area * max(1.0, perimeter**2 / (4 * np.pi * area))
        total += area
    points = np.concatenate(contours)
    (_, _), (w, h), _ = cv2.minAreaRect(points)
    return weighted / total, float(max(w, h)) + 1


def thickness(mask: Mask) -> float:
    """Greatest width over length of the pieces, area-weighted, 0 to 1: lines stay under 0.1, patches above 0.2."""
    count, labels = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
    depth = cv2.distanceTransform(np.pad(mask, 1).astype(np.uint8), cv2.DIST_L2, 3)[1:-1, 1:-1]
    areas = np.bincount(labels.ravel(), minlength=count)
    weighted, total = 0.0, 0.0
    for label in range(1, count):
        if areas[label] < 0.02 * areas[1:].max():
            continue
        piece = labels == label
        _, (width, height), _ = cv2.minAreaRect(cv2.findNonZero(piece.astype(np.uint8)))
        share = (2 * float(depth[piece].max()) - 1) / (max(width, height) + 1)
        weighted += float(areas[label]) * min(1.0, share)
        total += float(areas[label])
    return weighted / total


def without_bores(part: Mask) -> Mask:
    """The part with its inner openings filled, so that only the outer outline is left."""
    contours, _ = cv2.findContours(part.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    filled = cv2.drawContours(np.zeros(part.shape, np.uint8), contours, -1, 1, cv2.FILLED)
    return np.asarray(filled > 0)


def solidity(part: Mask) -> float:
    """Area over the area of the convex hull (through pixel centres), up to about 1; all pieces together."""
    points = cv2.findNonZero(part.astype(np.uint8))
    return np.count_nonzero(part) / max(1.0, float(cv2.contourArea(cv2.convexHull(points))))


def boxiness(mask: Mask) -> float:
    """How much the biggest piece looks like a filled, possibly rotated rectangle: 0 below 86% fill, 1 from 97%.

    Pieces thinner than 6 px are no evidence: every short line fills its box.
    """
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    biggest = max(contours, key=cv2.contourArea)
    (_, _), (w, h), _ = cv2.minAreaRect(biggest)
    if min(w, h) < 5:
        return 0.0
    fill = float(cv2.contourArea(biggest)) / (w * h)
    return float(np.clip((fill - 0.86) / 0.11, 0, 1) * np.clip((min(w, h) - 4) / 6, 0, 1))


def outline_gap(mask: Mask, part: Mask) -> float:
    """Smallest distance (px) from the defect to the part's outline; 0 where it touches."""
    inside = cv2.distanceTransform(np.pad(part, 1, constant_values=True).astype(np.uint8), cv2.DIST_L2, 3)
    outside = cv2.distanceTransform(np.pad(~part, 1, constant_values=True).astype(np.uint8), cv2.DIST_L2, 3)
    distance = np.maximum(inside, outside)[1:-1, 1:-1]
    return max(0.0, float(distance[mask].min()) - 1.5)


def recolour(normal: Image, anomaly: Image, mask: Mask) -> float:
    """Median colour difference (dE) outside the defect, on copies of at most 256 px."""
    scale = min(1.0, 256 / max(mask.shape))
    size = (max(1, round(mask.shape[1] * scale)), max(1, round(mask.shape[0] * scale)))
    small = [lab_of(cv2.resize(p, size, interpolation=cv2.INTER_AREA)) for p in (normal, anomaly)]
    away = cv2.resize(cv2.dilate(mask.astype(np.uint8), ellipse(3)), size, interpolation=cv2.INTER_AREA) == 0
    if not away.any():
        return 0.0
    return float(np.median(np.linalg.norm(small[1] - small[0], axis=2)[away]))
