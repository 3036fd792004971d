"""The region of interest of an edit: a box in pixels or a mask image."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mcp_servers.errors import RegionError
from mcp_servers.image_gen.marks import marked
from mcp_servers.images import Photo
from mcp_servers.store import Store


def read_region(text: str, photo: Photo, store: Store) -> NDArray[np.bool_] | None:
    """(H, W) bool of where the defect may go, None for an empty text.

    ``text`` is "x,y,width,height" in pixels of the upright photo, or an image reference whose bright pixels
    mark the region (see `marked`). Raises RegionError for a box outside the photo, an empty box or mask, or a
    mask of another size; ImageError where the mask image cannot be read.
    """
    if not text.strip():
        return None
    size = f"{photo.width}x{photo.height}"
    numbers = _numbers(text)
    if numbers is not None:
        if len(numbers) != 4:
            raise RegionError(f'region "{text[:80]}" is not a box: give x,y,width,height in pixels, e.g. 40,60,120,80')
        x, y, width, height = numbers
        if width <= 0 or height <= 0:
            raise RegionError(f'region "{text[:80]}" is empty: width and height must be above 0')
        if x < 0 or y < 0 or x + width > photo.width or y + height > photo.height:
            raise RegionError(f'region "{text[:80]}" reaches outside the image ({size}): give a box inside it')
        region = np.zeros((photo.height, photo.width), bool)
        region[y : y + height, x : x + width] = True
        return region
    _, mask = store.resolve(text)
    if (mask.width, mask.height) != (photo.width, photo.height):
        raise RegionError(f"the region mask is {mask.width}x{mask.height}, the image {size}: make them the same size")
    region = marked(mask, "the region mask")
    if not region.any():
        raise RegionError("the region mask has no bright pixel: paint the allowed place white")
    return np.asarray(region)


def _numbers(text: str) -> list[int] | None:
    """The integers of a comma-separated text, [] where some are not integers; None for a path or a handle."""
    parts = text.strip().strip("[]()").split(",")
    try:
        return [int(part) for part in parts]
    except ValueError:
        return [] if len(parts) == 4 and "/" not in text else None
