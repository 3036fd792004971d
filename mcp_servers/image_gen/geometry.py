"""A photo at the size and proportions that an editor takes, and the way back.

The photo is padded with its own mirror image to the editor's proportions, then scaled. Both steps keep the middle of
every pixel where it belongs, so that the way back is exact up to resampling.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from mcp_servers.vision.types import Image, Mask

MEGAPIXEL = 1024 * 1024
"""Pixels that today's editors work at."""


@dataclass(frozen=True, slots=True)
class Frame:
    """Where a photo lies in what the editor is shown.

    ``width``, ``height``: the photo; ``left``, ``top``, ``right``, ``bottom``: padding; ``size``: (width, height) of
    the padded photo as the editor gets it. All in px, the padding at the photo's scale.
    """

    width: int
    height: int
    left: int
    top: int
    right: int
    bottom: int
    size: tuple[int, int]

    @property
    def padded(self) -> tuple[int, int]:
        """(width, height) of the padded photo before scaling."""
        return self.width + self.left + self.right, self.height + self.top + self.bottom

    def enter(self, photo: Image) -> Image:
        """The photo (H, W, 3) as the editor gets it."""
        return resized(self._pad(photo), self.size)

    def enter_mask(self, mask: Mask) -> Mask:
        """A mask (H, W) of the photo as the editor gets it; False in the padding."""
        pads = (self.top, self.bottom, self.left, self.right)
        padded = cv2.copyMakeBorder(mask.astype(np.uint8), *pads, cv2.BORDER_CONSTANT)
        return np.asarray(cv2.resize(padded, self.size, interpolation=cv2.INTER_NEAREST) > 0)

    def leave(self, edited: Image) -> Image:
        """What the editor made, of any size, in the photo's own frame: (H, W, 3)."""
        whole = resized(edited, self.padded)
        return np.ascontiguousarray(whole[self.top : self.top + self.height, self.left : self.left + self.width])

    def _pad(self, photo: Image) -> Image:
        pads = (self.top, self.bottom, self.left, self.right)
        return np.asarray(cv2.copyMakeBorder(photo, *pads, cv2.BORDER_REFLECT_101), np.uint8)


def resized(picture: Image, size: tuple[int, int]) -> Image:
    """(h, w, 3) to (width, height): area averages to shrink, Lanczos to enlarge."""
    if (picture.shape[1], picture.shape[0]) == size:
        return picture
    shrinks = picture.shape[1] * picture.shape[0] > size[0] * size[1]
    return np.asarray(
        cv2.resize(picture, size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LANCZOS4), np.uint8
    )


def into(width: int, height: int, size: tuple[int, int]) -> Frame:
    """A photo in a picture of the given (width, height), padded on two sides where the proportions differ."""
    ratio = size[0] / size[1]
    extra_x = max(0, round(height * ratio) - width)
    extra_y = max(0, round(width / ratio) - height)
    left, top = extra_x // 2, extra_y // 2
    return Frame(width, height, left, top, extra_x - left, extra_y - top, size)


def closest_size(width: int, height: int, sizes: Sequence[tuple[int, int]]) -> Frame:
    """The size whose proportions need the least padding."""
    return into(width, height, min(sizes, key=lambda size: abs(math.log(size[0] / size[1] * height / width))))


def free_size(width: int, height: int, multiple: int = 16, pixels: int = MEGAPIXEL, steepest: float = 3.0) -> Frame:
    """About ``pixels`` px at the photo's own proportions, at most ``steepest`` : 1, in multiples of ``multiple``."""
    ratio = min(max(width / height, 1 / steepest), steepest)
    tall = math.sqrt(pixels / ratio)
    rounded = [max(multiple, multiple * round(side / multiple)) for side in (tall * ratio, tall)]
    return into(width, height, (rounded[0], rounded[1]))


def size_of(ratio: str, pixels: int = MEGAPIXEL) -> tuple[int, int]:
    """(width, height) of about ``pixels`` px for proportions such as "3:2"."""
    across, down = (float(part) for part in ratio.split(":"))
    unit = math.sqrt(pixels / (across * down))
    return round(across * unit), round(down * unit)
