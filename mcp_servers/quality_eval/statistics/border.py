"""The region's border and colours in the edited photo: steps across the rim, the outline's form, colour distances."""

from __future__ import annotations

import cv2
import numpy as np

from mcp_servers.quality_eval.statistics.zones import Zones, log_ratio
from mcp_servers.vision.types import Field


def border_statistics(grey: Field, zones: Zones) -> dict[str, float]:
    """The rim, of a picture of grey levels (H, W).

    border_step: log ratio of the median slope along the rim to the ring's 90th percentile. inner_step: the same to the
    core's median. step_sharpness: to the slope there after a blur of 2 px. raggedness: logarithm of
    perimeter^2 / (4 pi area), near 0 for a disc.
    """
    three = np.ones((3, 3), np.uint8)
    along = cv2.dilate(_slopes(grey), three)
    coarse = cv2.dilate(_slopes(np.asarray(cv2.GaussianBlur(grey, (0, 0), 2.0), np.float32)), three)
    median = float(np.median(along[zones.rim]))
    area, perimeter = float(np.count_nonzero(zones.region)), np.count_nonzero(zones.rim) / 2
    return {
        "border_step": log_ratio(median, float(np.percentile(along[zones.ring], 90)), 1.0),
        "inner_step": log_ratio(median, float(np.median(along[zones.core])), 1.0),
        "step_sharpness": log_ratio(median, float(np.median(coarse[zones.rim])), 1.0),
        "raggedness": float(np.log(perimeter**2 / (4 * np.pi * area) + 0.1)),
    }


def _slopes(grey: Field) -> Field:
    """(H, W): grey levels a pixel, by Scharr's operator."""
    across, down = (cv2.Scharr(grey, cv2.CV_32F, *axes, scale=1 / 32) for axes in ((1, 0), (0, 1)))
    return np.asarray(np.sqrt(across * across + down * down), np.float32)


def colour_statistics(zones: Zones) -> dict[str, float]:
    """Between the median colours (Lab) of core and ring: colour_distance and hue_distance, log(1 + dE).

    Lighter or darker is left out: real defects are either.
    """
    lab = np.asarray(cv2.cvtColor(zones.photo.astype(np.float32) / 255, cv2.COLOR_RGB2LAB), np.float32)
    step = np.median(lab[zones.core], axis=0) - np.median(lab[zones.ring], axis=0)
    return {
        "colour_distance": float(np.log1p(np.linalg.norm(step))),
        "hue_distance": float(np.log1p(np.hypot(step[1], step[2]))),
    }
