"""Reverse synthesis (Algorithm 2, step 1): the good photo behind the photo of a real defect.

The defect is cut out by its true mask, widened until its halo is gone, and the hole is filled with patches of the good
surface (exemplar.py), from the photo itself and, where little of the good surface is left, from good photos of the
category. The result is measured before it is used.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import cv2
import numpy as np

from mcp_servers.image_gen.local.fill import push_pull
from mcp_servers.mask_gen.local.shape import close_gaps, ellipse, hysteresis, lab_of
from mcp_servers.vision.scene import analyse
from mcp_servers.vision.types import Field, Image, Mask
from training.construction.canvas import Source
from training.construction.exemplar import fill_hole

HALO = 0.012
"""Width of a defect's halo beyond its mask, as a share of the photo's longer side."""
TINT_REACH = 0.06
"""How far beyond its mask a coloured defect's tint is followed, as a share of the longer side."""
COLOURED = 10.0
"""Distance in hue and saturation (CIE Lab a, b) to the surface from which a defect has a colour of its own."""
SCARCE = 0.35
"""Share of the part that the hole may take before good photos of the category are drawn on."""
RIM = 4
"""Width in px of the strip along an outline in which donors do not count."""
DONORS = 3
"""Good photos that patches are taken from then."""


def reverse(photo: Image, mask: Mask, good: Callable[[], Sequence[Image]], rng: np.random.Generator) -> Image:
    """The photo (H, W, 3) with the defect under ``mask`` (H, W) removed.

    good: gives photos of good parts of the same category, asked only where they are needed. Deterministic. Raises
    ValueError where no good surface is left.
    """
    part = part_of(photo, mask)
    hole = hole_of(photo, mask, part)
    own = Source(photo, part, ~hole)
    if np.count_nonzero(hole & part) <= SCARCE * np.count_nonzero(part):
        return fill_hole(own, [], rng)
    filled = fill_hole(own, choose_donors(own, good()), rng)
    return crisp_outline(photo, filled, hole, part)


def part_of(photo: Image, mask: Mask) -> Mask:
    """Where the good part is to be (H, W): where it shows, and where the defect lies."""
    scene = analyse(photo)
    if scene.kind == "texture":  # perhaps only because the defect hides the outline
        painted = cv2.inpaint(photo, mask.astype(np.uint8), 5, cv2.INPAINT_TELEA)
        scene = analyse(np.asarray(painted, np.uint8))
    if scene.kind == "texture":
        return scene.part.copy()
    return close_gaps(scene.part | mask, max(1, round(HALO * max(mask.shape))))


def hole_of(photo: Image, mask: Mask, part: Mask) -> Mask:
    """What has to be filled (H, W): the mask, its tint, their halo, and of the background the outline's pixels."""
    halo = ellipse(max(2, round(HALO * max(mask.shape))))
    grown = cv2.dilate(tint_of(photo, mask, part).astype(np.uint8), halo) > 0
    return np.asarray(mask | (grown & (cv2.dilate(part.astype(np.uint8), ellipse(1)) > 0)))


def tint_of(photo: Image, mask: Mask, part: Mask) -> Mask:
    """The mask and what on the part is connected to it and has its colour, where that is a colour of its own."""
    reach = ellipse(max(4, round(TINT_REACH * max(mask.shape))))
    near = cv2.dilate(mask.astype(np.uint8), reach) > 0
    around = (cv2.dilate(near.astype(np.uint8), reach) > 0) & ~near & part
    if np.count_nonzero(around) < 50:
        return mask
    tones = cv2.GaussianBlur(lab_of(photo), (0, 0), 1.0)[..., 1:]
    away = tones - np.median(tones[around], axis=0)
    strength = np.linalg.norm(away[mask], axis=1)
    if float(np.median(strength)) < COLOURED:
        return mask
    tint = np.median(away[mask][strength >= np.median(strength)], axis=0)
    length = float(np.linalg.norm(tint))
    along = away @ (tint / length)
    spread = float(np.percentile(np.abs(along[around]), 90))
    return hysteresis(mask, mask | (near & part & (along > max(0.12 * length, spread))))


def crisp_outline(photo: Image, filled: Image, hole: Mask, part: Mask) -> Image:
    """The filled photo with the part's outline as it was: donors turn otherwise, so their outlines fray along it.

    Beside the outline the part's colour is carried on from within, and ends where it ended in the ``photo``.
    """
    inner = cv2.erode(part.astype(np.uint8), ellipse(RIM), borderValue=1) > 0
    if not inner.any() or part.all():
        return filled
    surface = push_pull(filled.astype(np.float32), inner.astype(np.float32))
    ground = push_pull(photo.astype(np.float32), (~part & ~hole).astype(np.float32))
    cover = cv2.GaussianBlur(part.astype(np.float32), (0, 0), 0.8)[..., None]
    edge = hole & ~inner
    mixed = np.clip(np.rint(surface * cover + ground * (1 - cover)), 0, 255).astype(np.uint8)
    return np.where(edge[..., None], mixed, filled)


def choose_donors(own: Source, good: Sequence[Image]) -> list[Source]:
    """The ``DONORS`` good photos whose part and background are most like the photo's own, in its tones."""
    mine = _levels(lab_of(own.image), own.label, own.usable)
    ranked: list[tuple[float, int, Source]] = []
    for number, photo in enumerate(good):
        part, lab = analyse(photo).part, lab_of(photo)
        theirs = _levels(lab, part, np.ones_like(part))
        shifts = [a - b for a, b in zip(mine, theirs, strict=True) if a is not None and b is not None]
        shift = shifts[0] if shifts else np.zeros(3, np.float32)
        gap = float(np.mean([np.linalg.norm(shift) for shift in shifts])) if shifts else 0.0
        toned = cv2.cvtColor(np.asarray(lab + shift, np.float32), cv2.COLOR_LAB2RGB) * 255
        image = np.clip(np.rint(toned), 0, 255).astype(np.uint8)
        ranked.append((gap, number, Source(image, part.copy(), np.ones_like(part))))
    return [source for _, _, source in sorted(ranked, key=lambda entry: entry[:2])[:DONORS]]


def _levels(lab: Field, part: Mask, usable: Mask) -> tuple[Field | None, Field | None]:
    """Median colour (CIE Lab) of the part and of the background; None where hardly anything of it is usable."""
    sides = (usable & part, usable & ~part)
    part_level, ground_level = (
        np.asarray(np.median(lab[side], axis=0), np.float32) if np.count_nonzero(side) > 50 else None for side in sides
    )
    return part_level, ground_level
