"""Photos to take patches from, laid below one another in one padded picture, so that a patch is one number in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from mcp_servers.image_gen.local.fill import push_pull
from mcp_servers.vision.types import Image, Mask

Floats = NDArray[np.float32]

RADIUS = 4
"""Half the side of a patch in px: 9 x 9."""
LABEL_WEIGHT = 300.0
"""Weight of the label channel in grey levels: a pixel on the wrong side of an outline costs more than any colour."""


@dataclass(frozen=True, slots=True)
class Source:
    """A photo to take patches from: ``image`` (H, W, 3), ``label`` (H, W) its part, ``usable`` (H, W) good pixels."""

    image: Image
    label: Mask
    usable: Mask


class Canvas:
    """All sources of one level below one another in one padded picture (rows, columns, 4): RGB and label."""

    def __init__(self, sources: Sequence[Source]) -> None:
        pad = RADIUS
        width = max(source.label.shape[1] for source in sources) + 2 * pad
        bands, usable = [], []
        for source in sources:
            colour = cv2.copyMakeBorder(source.image, pad, pad, pad, pad, cv2.BORDER_REFLECT).astype(np.float32)
            label, good = (
                cv2.copyMakeBorder(mask.astype(np.uint8), pad, pad, pad, pad, cv2.BORDER_REFLECT)
                for mask in (source.label, source.usable)
            )
            band = np.zeros((label.shape[0], width, 4), np.float32)
            band[:, : label.shape[1], :3] = colour
            band[:, : label.shape[1], 3] = LABEL_WEIGHT * label
            ok = np.zeros(band.shape[:2], np.uint8)
            ok[:, : label.shape[1]] = good
            ok[[0, -1]] = 0
            bands.append(band)
            usable.append(ok)
        self.pixels = np.concatenate(bands)
        good = np.concatenate(usable)
        self.good = good > 0
        side = 2 * RADIUS + 1
        self.centres = cv2.erode(good, np.ones((side, side), np.uint8), borderValue=0) > 0
        self.own_shape = (sources[0].label.shape[0] + 2 * pad, sources[0].label.shape[1] + 2 * pad)
        self.width = width

    @property
    def own(self) -> Floats:
        """The photo's own band, a view that may be written to."""
        view: Floats = self.pixels[: self.own_shape[0], : self.own_shape[1]]
        return view

    def smooth(self) -> Floats:
        """The photo's own band (rows, columns, 3) with the hole filled smoothly, the part from the part alone.

        A side of the outline of which the photo shows nothing gets the colour that the donors have there.
        """
        own, missing = self.own, self.missing
        out = own[..., :3].copy()
        for label in (False, True):
            side = (own[..., 3] > 0) == label
            if not (side & missing).any():
                continue
            known = side & ~missing
            if known.any():
                colours = push_pull(own[..., :3], known.astype(np.float32))
            else:
                there = self.good & ((self.pixels[..., 3] > 0) == label)
                colours = np.broadcast_to(
                    np.median(self.pixels[there if there.any() else self.good, :3], axis=0), out.shape
                )
            out[side & missing] = colours[side & missing]
        return out

    @property
    def missing(self) -> Mask:
        """The hole in the photo's own band."""
        inner = np.ones(self.own_shape, bool)
        inner[[0, -1]] = False
        return np.asarray(~self.good[: self.own_shape[0], : self.own_shape[1]] & inner)
