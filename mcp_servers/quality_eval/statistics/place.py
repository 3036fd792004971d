"""Where the changed region lies on the part and how much of it there is."""

from __future__ import annotations

import cv2
import numpy as np

from mcp_servers.vision.types import Mask

SIDE = 512
"""Longer side, in pixels, of the copies on which places are measured."""
TOLERANCE = 0.015
"""Width, in part sizes, of what still counts as the part outside its outline."""
TYPICAL_DEPTH = 0.15
"""Depth that is told where there is no outline."""


def place_of(region: Mask, part: Mask, has_ground: bool) -> dict[str, float]:
    """Figures of place of a region (H, W), not empty. A part's size is the square root of its area.

    beyond: share of the region outside the part. depth: how deep inside the part the region's middle lies, in part
    sizes, below 0 outside. log_area, log_length: natural logarithms of its area over the part's and of its longest side
    over the part's size.
    """
    scale = min(1.0, SIDE / max(region.shape))
    if scale < 1:
        size = (max(1, round(region.shape[1] * scale)), max(1, round(region.shape[0] * scale)))
        shares, kept = (
            cv2.resize(mask.astype(np.float32), size, interpolation=cv2.INTER_AREA) for mask in (region, part)
        )
        region, part = np.asarray(shares >= min(0.4, float(shares.max()))), np.asarray(kept > 0.5)
    part_area = max(1.0, float(np.count_nonzero(part)))
    whole = float(np.sqrt(part_area))
    _, sides, _ = cv2.minAreaRect(cv2.findNonZero(region.astype(np.uint8)))
    longest = max(float(side) for side in sides) + 1
    out = {
        "beyond": 0.0,
        "depth": TYPICAL_DEPTH,
        "log_area": float(np.log(np.count_nonzero(region) / part_area)),
        "log_length": float(np.log(longest / whole)),
    }
    if has_ground:
        inside = cv2.distanceTransform(part.astype(np.uint8), cv2.DIST_L2, 5)[region] / whole
        outside = cv2.distanceTransform((~part).astype(np.uint8), cv2.DIST_L2, 5)[region] / whole
        out["beyond"] = float(np.mean(outside > TOLERANCE))
        out["depth"] = float(np.median(inside - outside))
    return out
