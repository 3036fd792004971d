"""All figures of an edit, by name: those of place, and those of look.

The good photo serves to find the changed region and the part, and for nothing else: the look is measured in the edited
photo alone, so that a good photo that was made by painting a defect over does not show in any figure.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from mcp_servers.quality_eval.statistics.border import border_statistics, colour_statistics
from mcp_servers.quality_eval.statistics.change import Change, compare
from mcp_servers.quality_eval.statistics.ground import part_in
from mcp_servers.quality_eval.statistics.place import place_of
from mcp_servers.quality_eval.statistics.texture import texture_statistics
from mcp_servers.quality_eval.statistics.zones import zones_of
from mcp_servers.vision.types import Image


@dataclass(frozen=True, slots=True)
class Figures:
    """What was measured: the change, and figures of place and of look, all finite; None where no region changed."""

    change: Change
    place: dict[str, float] | None
    look: dict[str, float] | None


def measure(normal: Image, anomaly: Image) -> Figures:
    """The figures of ``anomaly``, an edit of ``normal``; both (H, W, 3) uint8 of one size."""
    change = compare(normal, anomaly)
    if not change.region.any():
        return Figures(change, None, None)
    zones = zones_of(anomaly, change.region)
    grey = np.asarray(cv2.cvtColor(zones.photo, cv2.COLOR_RGB2GRAY), np.float32)
    look = {
        **texture_statistics(grey, zones),
        **border_statistics(grey, zones),
        **colour_statistics(zones),
        "log_peak": float(np.log(change.peak + 1)),
    }
    return Figures(change, place_of(change.region, *part_in(normal, anomaly)), look)
