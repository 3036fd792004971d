"""What comparing two photos gives: the mask, how sure it is, and a sentence that says so."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np

from mcp_servers.vision.types import Mask

Box = tuple[int, int, int, int]
"""(x, y, width, height) in pixels."""
Method = Literal["exact", "registered", "metauas"]


@dataclass(frozen=True, slots=True)
class MaskResult:
    """The defect found between a normal photo and its edited version.

    ``mask`` is (H, W) bool in the pixels of the edited photo, all False where ``found`` is False.
    ``confidence`` in [0, 1]: how clearly the defect stands out from everything else that changed; where nothing
    was found, how sure it is that there is nothing. ``area_fraction`` is the mask's share of the picture;
    ``boxes`` has one box per connected piece, biggest piece first. ``method`` is "exact" where most pixels were
    identical, else "registered", with ``shift`` the (x, y) displacement in pixels, at the picture's centre, of
    the edited photo against the normal one; "metauas" where the network of that name compared them. ``note`` is one
    sentence for people and models. ``agreement`` in [0, 1]: intersection over union with a second mask generator's
    mask, where one was asked. ``same`` is False where the two are not the same photo, so that nothing can be found.
    """

    mask: Mask
    found: bool
    confidence: float
    area_fraction: float
    boxes: list[Box]
    method: Method
    shift: tuple[float, float]
    note: str
    agreement: float | None = None
    same: bool = True


def found(mask: Mask, confidence: float, method: Method, shift: tuple[float, float]) -> MaskResult:
    """Wrap a mask (H, W) with at least one True pixel."""
    boxes = boxes_of(mask)
    share = float(mask.mean())
    pieces = "one piece" if len(boxes) == 1 else f"{len(boxes)} pieces"
    sure = "clearly" if confidence >= 0.75 else "fairly clearly" if confidence >= 0.4 else "faintly"
    how = {
        "exact": "beyond its faint rim the rest of the picture is identical",
        "registered": f"after aligning (shift {shift[0]:+.1f}, {shift[1]:+.1f} px) and colour matching",
        "metauas": f"the network's mean probability there is {100 * confidence:.0f}%",
    }[method]
    note = f"Defect found in {pieces}, {100 * share:.2f}% of the picture, standing out {sure}; {how}."
    return MaskResult(mask, True, confidence, share, boxes, method, shift, note)


def nothing(
    shape: tuple[int, int],
    confidence: float,
    method: Method,
    shift: tuple[float, float],
    why: str,
) -> MaskResult:
    """No defect: an empty mask of ``shape`` (H, W) and the reason ``why``."""
    return MaskResult(np.zeros(shape, bool), False, confidence, 0.0, [], method, shift, f"No defect found: {why}.")


def different(shape: tuple[int, int], alike: float, shift: tuple[float, float]) -> MaskResult:
    """Not the same photo: an empty mask of ``shape`` (H, W); ``alike`` in [-1, 1] is how far fine detail agrees."""
    note = (
        "No defect found: these are not the same photo, or all of it was redrawn (fine detail agrees to "
        f"{100 * max(0.0, alike):.0f}% where it agrees best): compare an edited image with the photo it was made from."
    )
    return MaskResult(np.zeros(shape, bool), False, 0.0, 0.0, [], "registered", shift, note, same=False)


def boxes_of(mask: Mask) -> list[Box]:
    """One (x, y, width, height) per 8-connected piece, biggest area first."""
    left, top, width, height = cv2.boundingRect(mask.view(np.uint8))
    window = mask[top : top + height, left : left + width].view(np.uint8)
    _, _, stats, _ = cv2.connectedComponentsWithStats(window, connectivity=8)
    pieces = sorted((tuple(int(v) for v in row) for row in stats[1:]), key=lambda row: -row[4])
    return [(left + x, top + y, w, h) for x, y, w, h, _ in pieces]
