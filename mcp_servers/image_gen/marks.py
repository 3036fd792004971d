"""Masks that people hand in: which of their pixels are marked."""

from __future__ import annotations

import numpy as np

from mcp_servers.images import ImageError, Photo
from mcp_servers.vision.types import Mask

LABELS = 40
"""Most different values that a mask of label numbers holds (few on purpose: more means a dark photo)."""


def marked(mask: Photo, name: str) -> Mask:
    """(H, W) bool, True on bright pixels (above 127 of 255); above 0 where the mask holds only 0/1 or label numbers.

    Raises ImageError for a picture with too many tones to be a mask, naming it ``name``.
    """
    values = mask.view().max(axis=2)
    if values.max() < 128:
        if len(np.unique(values)) > LABELS:
            raise ImageError(f"{name} looks like a photo, not a mask: paint the marked place white and the rest black")
        return np.asarray(values > 0)
    if np.count_nonzero((values > 40) & (values < 215)) > 0.2 * values.size:
        raise ImageError(f"{name} looks like a photo, not a mask: paint the marked place white and the rest black")
    return np.asarray(values > 127)
