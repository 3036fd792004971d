"""A mask with a margin: people who label defects draw a little wide of what is visible, and include its border."""

from __future__ import annotations

import cv2
import numpy as np

from mcp_servers.vision.types import Mask


def widened(mask: Mask, margin: int) -> Mask:
    """The mask (H, W) grown by ``margin`` pixels (0 or more) on all sides; an empty mask stays empty."""
    if margin <= 0:
        return mask
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * margin + 1, 2 * margin + 1))
    return np.asarray(cv2.dilate(mask.astype(np.uint8), disc) > 0)
