"""Mask generation without a model: what differs between a normal photo and its edited version.

``find_mask`` works from the two photos alone. Where most pixels are identical the difference itself tells
(exact.py); else the photos are registered and matched first (register.py, registered.py). It may find nothing,
and says so.
"""

from __future__ import annotations

import numpy as np

from mcp_servers.mask_gen.local.exact import find_exact, same_photo
from mcp_servers.mask_gen.local.margin import widened
from mcp_servers.mask_gen.local.registered import find_registered
from mcp_servers.mask_gen.local.result import MaskResult
from mcp_servers.vision.memo import remember
from mcp_servers.vision.pixels import differs
from mcp_servers.vision.types import Image

__all__ = ["MaskResult", "check_pair", "find_mask", "widened"]


def find_mask(normal: Image, anomaly: Image) -> MaskResult:
    """Find the defect that was edited into ``normal`` to give ``anomaly``.

    Both (H, W, 3) uint8 sRGB of the same size, at least 32 x 32 pixels. Deterministic. The results for the latest
    pairs are kept and shared (the judge asks before mask_gen does), so ``mask`` is read-only.
    Raises ValueError, with the cure, where the photos cannot be compared.
    """
    check_pair(normal, anomaly)
    return _compare(normal, anomaly)


def check_pair(normal: Image, anomaly: Image) -> None:
    """Raises ValueError, with the cure, unless both are (H, W, 3) uint8 of one size, at least 32 x 32 pixels."""
    for name, picture in (("normal", normal), ("anomaly", anomaly)):
        if picture.ndim != 3 or picture.shape[2] != 3 or picture.dtype != np.uint8:
            raise ValueError(
                f"The {name} image must be (H, W, 3) uint8 RGB, not {picture.shape} {picture.dtype}: convert it first."
            )
        if min(picture.shape[:2]) < 32:
            raise ValueError(f"The {name} image is {picture.shape[1]} x {picture.shape[0]} px: give at least 32 x 32.")
    if normal.shape != anomaly.shape:
        raise ValueError(
            f"The images differ in size ({normal.shape[1]} x {normal.shape[0]} and "
            f"{anomaly.shape[1]} x {anomaly.shape[0]} px): resize the anomaly image to the normal one's size."
        )


@remember(4)
def _compare(normal: Image, anomaly: Image) -> MaskResult:
    """`find_mask` on photos that can be compared."""
    changed = differs(normal, anomaly)
    same = same_photo(normal, changed)
    result = find_exact(normal, anomaly, changed) if same else find_registered(normal, anomaly)
    result.mask.setflags(write=False)
    return result
