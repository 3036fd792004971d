"""Close-ups of the change, for judges that see a large photo only scaled down: a hairline would be lost there."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mcp_servers.mask_gen.local import find_mask
from mcp_servers.vlm.pictures import SIDE, picture_of

MARGIN = 0.5
"""Surroundings that are shown on each side of the change, as a share of its longer side."""
LEAST = 256
"""Shortest side of a close-up in pixels of the photo."""
WORTH = 0.6
"""A close-up that is longer than this share of the photo shows nothing new and is left out."""


def pictures_of(normal: NDArray[np.uint8], anomaly: NDArray[np.uint8]) -> list[tuple[str, bytes]]:
    """Label and PNG of what a judge is shown: both photos, and where they are scaled down, the change at full size.

    Both (H, W, 3) uint8 RGB of the same size.
    """
    shown = [
        ("The photo of the good part:", picture_of(normal)),
        ("The same photo after the edit:", picture_of(anomaly)),
    ]
    if max(normal.shape[:2]) <= SIDE:
        return shown
    found = find_mask(normal, anomaly)
    if not found.found:
        return shown
    rows, columns = (np.flatnonzero(found.mask.any(axis=axis)) for axis in (1, 0))
    longer = max(np.ptp(rows), np.ptp(columns)) + 1
    side = max(LEAST, round(longer * (1 + 2 * MARGIN)))
    if side > WORTH * max(normal.shape[:2]):
        return shown
    window = tuple(_window(int(line[0] + line[-1]) // 2, side, size) for line, size in
                   zip((rows, columns), normal.shape[:2], strict=True))  # fmt: skip
    return [
        *shown,
        ("The place of the change in the good part, enlarged:", picture_of(normal[window])),
        ("The same place after the edit:", picture_of(anomaly[window])),
    ]


def _window(centre: int, side: int, size: int) -> slice:
    """A range of at most ``side`` around a centre, inside 0 to ``size``."""
    start = max(0, min(centre - side // 2, size - side))
    return slice(start, min(size, start + side))
