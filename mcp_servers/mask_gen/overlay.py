"""A picture that shows a mask on its image, for people and models to look at."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

COLOUR = (255, 40, 80)


def draw_overlay(rgb: NDArray[np.uint8], mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 with the (H, W) mask outlined and lightly tinted; the defect stays visible."""
    drawn = rgb.copy()
    tint = np.array(COLOUR, np.float32)
    drawn[mask] = np.rint(0.72 * drawn[mask].astype(np.float32) + 0.28 * tint).astype(np.uint8)
    width = max(1, round(max(rgb.shape[:2]) / 400))
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(drawn, contours, -1, COLOUR, width)
    return drawn
