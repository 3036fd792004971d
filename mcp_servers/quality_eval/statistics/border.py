"""The region's border and colours in the edited photo: steps across the rim, the outline's form, colour distances."""

from __future__ import annotations

import cv2
import numpy as np

from mcp_servers.quality_eval.statistics.zones import Zones, log_ratio
from mcp_servers.vision.types import Field


def border_statistics(grey: Field, zones: Zones) -> dict[str, float]:
    """The rim, of a picture of grey levels (H, W).

    weakest_step: log ratio of the 20th percentile of the slopes along the rim to the ring's median: a pasted piece has
    a step all around. border_step: median along the rim to the ring's 90th percentile. inner_step: the same to the
    core's median. step_sharpness: to slopes after a blur of 2 px. squareness: 0 to 1, how far the outline runs in two
    directions at right angles. raggedness: logarithm of perimeter^2 / (4 pi area), near 0 for a disc.
    """
    slopes = _slopes(grey)
    along = cv2.dilate(slopes, np.ones((3, 3), np.uint8))
    coarse = cv2.dilate(_slopes(np.asarray(cv2.GaussianBlur(grey, (0, 0), 2.0), np.float32)), np.ones((3, 3), np.uint8))
    weakest, median = (float(np.percentile(along[zones.rim], share)) for share in (20, 50))
    usual, strong = (float(np.percentile(along[zones.ring], share)) for share in (50, 90))
    area = float(np.count_nonzero(zones.region))
    perimeter = np.count_nonzero(zones.rim) / 2
    return {
        "weakest_step": log_ratio(weakest, usual, 1.0),
        "border_step": log_ratio(median, strong, 1.0),
        "inner_step": log_ratio(median, float(np.median(along[zones.core])), 1.0),
        "step_sharpness": log_ratio(median, float(np.median(coarse[zones.rim])), 1.0),
        "squareness": _squareness(zones) * min(1.0, area / 100),
        "raggedness": float(np.log(perimeter**2 / (4 * np.pi * area) + 0.1)),
    }


def _slopes(grey: Field) -> Field:
    """(H, W): grey levels a pixel, by Scharr's operator."""
    across, down = (cv2.Scharr(grey, cv2.CV_32F, *axes, scale=1 / 32) for axes in ((1, 0), (0, 1)))
    return np.asarray(np.sqrt(across * across + down * down), np.float32)


def _squareness(zones: Zones) -> float:
    """Fourth harmonic of the outline's directions less the second: a rectangle's, and not a line's."""
    soft = cv2.GaussianBlur(zones.region.astype(np.float32), (0, 0), 1.5)
    across, down = cv2.Sobel(soft, cv2.CV_32F, 1, 0), cv2.Sobel(soft, cv2.CV_32F, 0, 1)
    angles, weights = np.arctan2(down, across), np.hypot(across, down)
    total = float(weights.sum()) + 1e-6
    two, four = (abs(complex((weights * np.exp(1j * times * angles)).sum())) / total for times in (2, 4))
    return four * (1 - two)


def colour_statistics(zones: Zones) -> dict[str, float]:
    """Median colours (Lab) of core and ring: colour_distance and colour_distance_relative (to the ring's variation),
    hue_distance, all log(1 + dE); tones: log ratio of what lightness varies by. Lighter or darker is left out: real
    defects are either.
    """
    lab = np.asarray(cv2.cvtColor(zones.photo.astype(np.float32) / 255, cv2.COLOR_RGB2LAB), np.float32)
    core, ring = lab[zones.core], lab[zones.ring]
    step = np.median(core, axis=0) - np.median(ring, axis=0)
    distance = float(np.linalg.norm(step))
    variation = float(np.sqrt(np.mean(np.var(ring, axis=0))))
    return {
        "colour_distance": float(np.log1p(distance)),
        "colour_distance_relative": float(np.log1p(distance / (variation + 1))),
        "hue_distance": float(np.log1p(np.hypot(step[1], step[2]))),
        "tones": log_ratio(float(core[:, 0].std()), float(ring[:, 0].std()), 1.0),
    }
