"""A mask beside the part's outline: where the part would be, how far the defect's stuff reaches, how it ends."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from mcp_servers.image_gen.local.fill import fill, push_pull
from mcp_servers.image_gen.local.shading import Colour, ramp
from mcp_servers.vision.types import Field, Mask

STEP = 4.0, 10.0
"""Colour difference (Lab) across the mask's border up to which the defect fades out, and from which it has an edge."""

DETAIL = 0.2
"""Share of a defect's own texture beyond the outline: walls and depths of a gap are no grain to be strewn about."""


def grown(mask: Mask, radius: float) -> Mask:
    far = cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, 5)
    return np.asarray(far <= radius)


def whole_part(part: Mask, mask: Mask, inside: Mask) -> Mask:
    """The part as it would be without the defect.

    Under the mask it is what surrounds it, and what stands out from the background and is no slim thing sticking out.
    """
    known = inside & ~mask
    if not known.any():
        return part | mask
    guess = push_pull(np.repeat((part & ~mask)[..., None], 3, 2).astype(np.float32), known.astype(np.float32))[..., 0]
    solid = opened(part, 0.06 * float(np.sqrt(part.sum())))
    return np.asarray(np.where(mask, (guess > 0.5) | solid, part) & inside)


def opened(mask: Mask, radius: float) -> Mask:
    """The mask without what is slimmer than twice ``radius`` (at least 1 px)."""
    radius = max(1.0, radius)
    padded = cv2.copyMakeBorder(mask.astype(np.uint8), 1, 1, 1, 1, cv2.BORDER_REPLICATE)
    core = cv2.distanceTransform(padded, cv2.DIST_L2, 5)[1:-1, 1:-1] > radius
    return grown(core, radius) & mask


def closed(mask: Mask, radius: float) -> Mask:
    """The mask without gaps and bays narrower than twice ``radius``: what lies over a wide defect hides it there."""
    return ~opened(~mask, radius)


def reach_of(mask: Mask, surface: Mask, share: float, length: float) -> Field:
    """The mask and, up to a share of the length, what lies beyond the part's outline next to it."""
    if share >= 1:
        return np.ones(mask.shape, np.float32)
    far = cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, 5)
    sliver = 2 * max(1, round(0.015 * length)) + 1  # clean surface narrower than this is how the mask was drawn
    rest = (surface & ~mask).astype(np.uint8)
    whole = cv2.morphologyEx(rest, cv2.MORPH_OPEN, np.ones((sliver, sliver), np.uint8))
    clean = cv2.distanceTransform(1 - whole, cv2.DIST_L2, 5)
    off = ~mask & ((rest > whole) | ~surface)
    thick = 1.5 * float(cv2.distanceTransform(mask.astype(np.uint8), cv2.DIST_L2, 5).max())
    limit = max(2.0, min(share * length, thick))
    beyond = off & (far <= clean) & (far <= limit) & grown(~surface, sliver)
    return np.where(beyond, 1 - ramp(far, 0.5 * limit, limit), mask).astype(np.float32)


def feather(lab: NDArray[np.float32], mask: Mask, surface: Mask, length: float) -> Field:
    """Falls to 0 towards the mask's border on the part, over a width that grows where no step is seen there."""
    weight = mask.astype(np.float32)
    rest = (surface & ~mask).astype(np.float32)
    inside, outside = (
        cv2.blur(lab * w[..., None], (9, 9)) / np.maximum(cv2.blur(w, (9, 9)), 1e-3)[..., None] for w in (weight, rest)
    )
    border = mask & (cv2.dilate(rest, np.ones((3, 3), np.uint8)) > 0)
    if not border.any():
        return np.ones(mask.shape, np.float32)
    step = float(np.median(np.linalg.norm(inside - outside, axis=2)[border]))
    depth = cv2.distanceTransform((rest == 0).astype(np.uint8), cv2.DIST_L2, 5)
    width = float(ramp(np.array([step]), STEP[1], STEP[0])[0]) * min(0.07 * length, 0.4 * float(depth[mask].max()))
    return ramp(depth, 0.3, 0.3 + width) if width > 0.5 else np.ones(mask.shape, np.float32)


def sticking_out(mask: Mask, surface: Mask, length: float) -> Mask:
    """What of the mask truly sticks out of the part; slivers along the outline are how it was drawn."""
    return opened(mask & ~surface, 0.015 * length + 1)


def continued(linear: Colour, known: Mask, missing: Mask, blur: float, rng: np.random.Generator) -> Colour:
    """The picture with the defect's stuff continued where it is missing; mixed pixels count as missing."""
    if not missing.any() or not known.any():
        return linear
    mixed = known & grown(missing, 1.0 + blur)
    source = known & ~mixed
    return fill(linear, missing | mixed if source.any() else missing, source if source.any() else known, rng, DETAIL)
