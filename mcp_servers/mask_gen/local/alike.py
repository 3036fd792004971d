"""Whether two aligned and matched photos show the same piece: the fine detail of another one lies elsewhere.

An edit, however strong, leaves most of the picture's grain, edges and print where they were; recolouring, softening
and compression leave them correlated. Photos of two different parts share outlines at best.
"""

from __future__ import annotations

import cv2
import numpy as np

from mcp_servers.mask_gen.local.register import high_pass
from mcp_servers.vision.pixels import percentile
from mcp_servers.vision.types import Field

ALIKE = 0.55
"""Agreement below which two photos are not the same. Of 500 edited real photos (recoloured, moved, softened, with and
without a real defect) the lowest had 0.78. Of 793 pairs of different photos of one category two thirds lie below it:
80 to 90% of cookies, boards, leather and toys, half of the ball screws, 15% of plates, which look much alike."""
GRID = 16
"""Blocks along either side."""
DETAIL = 0.5
"""Standard deviation of the detail, in grey levels, from which a block of a photo has any."""
ENOUGH = 24
"""Blocks with detail in both photos, without which nothing can be said; a plain or a wiped surface has fewer."""
WORK = 512
"""Longer side, in pixels, of the copies that are compared."""


def agreement(normal: Field, anomaly: Field) -> float:
    """Upper quartile of the correlation of fine detail in blocks of two photos (H, W, 3) float32 RGB; in [-1, 1].

    They are aligned, and matched in sharpness. The upper quartile, as up to three quarters of the detail may be the
    edit's. 1 where there is too little detail.
    """
    a, b = (_blocks(photo) for photo in (normal, anomaly))
    spread_a, spread_b = a.std(axis=1), b.std(axis=1)
    detailed = np.minimum(spread_a, spread_b) >= DETAIL
    if np.count_nonzero(detailed) < ENOUGH:
        return 1.0
    correlation = (a * b).mean(axis=1) / np.maximum(spread_a * spread_b, 1e-6)
    return percentile(correlation[detailed], 75)


def _blocks(photo: Field) -> Field:
    """(GRID^2, pixels): the high-passed luma of each block, less its mean."""
    scale = min(1.0, WORK / max(photo.shape[:2]))
    size = (max(GRID, round(photo.shape[1] * scale)), max(GRID, round(photo.shape[0] * scale)))
    luma = cv2.cvtColor(cv2.resize(photo, size, interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2GRAY)
    detail = high_pass(np.asarray(luma, np.float32))
    h, w = detail.shape[0] // GRID, detail.shape[1] // GRID
    cut = detail[: GRID * h, : GRID * w].reshape(GRID, h, GRID, w).transpose(0, 2, 1, 3).reshape(GRID * GRID, h * w)
    return np.asarray(cut - cut.mean(axis=1, keepdims=True), np.float32)
