"""From a picture that an editor redrew altogether to the original photo with nothing but the defect in it.

The returned picture is registered and its colours are matched (mask_gen's own code finds what changed); then only the
defect, with a soft rim, is laid over the original. So every other pixel stays as the camera saw it, and no detector
can learn an editor's traces instead of defects.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from mcp_servers.errors import BackendError, FailureKind
from mcp_servers.mask_gen.local.exact import find_exact
from mcp_servers.mask_gen.local.register import Affine, rescaled, tone, warp
from mcp_servers.mask_gen.local.registered import Comparison, compare
from mcp_servers.mask_gen.local.shape import lab_of
from mcp_servers.vision.pixels import differs, length, percentile
from mcp_servers.vision.types import Field, Image, Mask

UNIT = 512
"""Longer side, in px, of the photo for which the widths below are given; they grow with it."""
KEPT, FADE = 1.0, 4.0
"""Width (px) around the defect that is taken over whole, and of the rim beyond it that fades out."""
CLEAR = 8.0
"""Distance (px) from the defect beyond which the two pictures should agree: there the local match is learned."""
REACHES = {1: 1.0, 4: 1e-2, 16: 1e-4}
"""Widths of the surroundings that are looked at, and their weights: far ones count where there are no near ones."""
AROUND = 96.0
"""Distance (px) from the defect's box up to which its surroundings are looked at."""
MOST = 0.35
"""Share of the photo above which a change is no defect any more."""
EDITED_IN_PLACE = 0.1
"""Share of differing pixels up to which the editor itself left the rest of the photo alone."""
UNLIKE, UNREST = 0.5, 8.0
"""Correlation of the pictures' structure below which, and difference (dE) of the 3% least alike pixels outside the
defect above which, the editor drew another picture."""
SCATTERED = 0.07, 0.5
"""Share of the photo that changed, and share that the box around it takes, above which no defect stands out."""
CUT = 0.02
"""Share of the defect outside the region above which the note says so."""
MOVED, ZOOMED = 0.5, 0.002
"""Displacement (px) and change of scale from which the note says so."""


@dataclass(frozen=True, slots=True)
class Isolated:
    """The photo with the defect laid in: ``rgb`` (H, W, 3) float32 0-255, equal to the photo where ``alpha`` is 0.

    ``alpha``: (H, W) float32 in [0, 1]. ``notes``: what the editor did to the rest and what was cut, in words.
    """

    rgb: Field
    alpha: Field
    notes: list[str]


def isolate(photo: Image, returned: Image, region: Mask | None = None) -> Isolated:
    """Lay the defect of an edited picture over the photo; both (H, W, 3) uint8 of one size.

    ``region``: (H, W) bool, where the defect may be. Raises BackendError (EMPTY) where nothing changed, nothing changed
    inside the region, or so much changed that no defect can be told from the rest.
    """
    changed = differs(photo, returned)
    notes: list[str] = []
    if changed.mean() <= EDITED_IN_PLACE:
        mask, matched = find_exact(photo, returned, changed).mask, returned.astype(np.float32)
    else:
        seen = compare(photo, returned)
        refuse(seen)
        affine = rescaled(seen.affine, 1 / seen.scale)
        notes = said_of(seen, affine, photo)
        mask = cv2.resize(seen.mask.astype(np.float32), photo.shape[1::-1], interpolation=cv2.INTER_LINEAR) > 0.5
        warped = warp(returned, affine)
        matched = tone(warped, photo, ~widened(mask, CLEAR * unit(photo)))
    if not mask.any():
        raise empty("the editor returned the photo unchanged: name a visible defect, its place and its size")
    if mask.mean() > MOST:
        raise empty(f"the editor changed {100 * mask.mean():.0f}% of the photo: ask for one small, limited defect")
    window = around(mask, round(AROUND * unit(photo)))
    alpha = np.zeros(mask.shape, np.float32)
    alpha[window] = rim(mask[window], unit(photo))
    if region is not None:
        alpha, cut = inside_region(alpha, region)
        if cut >= 0.999 or not (alpha > 0).any():
            raise empty("the editor put the defect outside the region: name the place in the prompt")
        if cut > CUT:
            notes.append(f"the editor's defect reached beyond the region; {100 * cut:.0f}% of it was cut off")
    edited = levelled(photo[window], matched[window], mask[window], unit(photo))
    if is_grey(photo):
        edited = np.repeat(edited @ np.array([[0.299], [0.587], [0.114]], np.float32), 3, axis=2)
    alpha[window] *= shown(photo[window], edited, mask[window], unit(photo))
    mixed = photo.astype(np.float32)
    mixed[window] += alpha[window][..., None] * (np.clip(edited, 0, 255) - mixed[window])
    return Isolated(mixed, alpha, notes)


def refuse(seen: Comparison) -> None:
    """Raise BackendError where two compared pictures do not show the same thing, or no defect stands out."""
    if likeness(seen) < UNLIKE or unrest(seen) > UNREST:
        raise empty("the editor returned another picture: ask it to keep everything but one small place as it is")
    box = cv2.boundingRect(seen.mask.astype(np.uint8))
    if seen.mask.mean() > SCATTERED[0] and box[2] * box[3] > SCATTERED[1] * seen.mask.size:
        raise empty("the editor changed the photo all over: ask for one defect in one small place")


def unrest(seen: Comparison) -> float:
    """97th percentile of the local colour difference (dE) outside what changed; 0 where nothing is outside."""
    difference = length(cv2.GaussianBlur(seen.anomaly - seen.normal, (0, 0), 1.5))
    near = cv2.dilate(seen.mask.astype(np.uint8), np.ones((15, 15), np.uint8)) > 0
    rest = difference[seen.valid & ~near]
    return percentile(rest, 97) if rest.size else 0.0


def likeness(seen: Comparison) -> float:
    """Largest correlation of lightness over several scales, outside what changed; 1 where there is no structure."""
    calm = seen.valid & ~seen.mask
    found: list[float] = []
    for sigma in (1.0, 3.0, 9.0):
        a, b = (
            (cv2.GaussianBlur(p[..., 0], (0, 0), sigma) - cv2.GaussianBlur(p[..., 0], (0, 0), 4 * sigma))[calm]
            for p in (seen.normal, seen.anomaly)
        )
        if min(a.std(), b.std()) < 0.2:  # L: nothing to be seen at this scale
            continue
        found.append(float(np.corrcoef(a, b)[0, 1]))
    return max(found, default=1.0)


def said_of(seen: Comparison, affine: Affine, photo: Image) -> list[str]:
    """What the editor did to the whole picture, in words."""
    notes = []
    shift = float(np.hypot(*seen.shift))
    if shift >= MOVED:
        notes.append(f"the editor shifted the picture by {shift:.1f} px; undone")
    zoom = float(np.sqrt(abs(np.linalg.det(affine[:, :2])))) - 1
    if abs(zoom) >= ZOOMED:
        notes.append(f"the editor zoomed the picture by {100 * zoom:+.1f}%; undone")
    return notes


def unit(photo: Image) -> float:
    """Scale of the widths in this module for a photo."""
    return max(1.0, float(max(photo.shape[:2])) / UNIT)


def distance(mask: Mask) -> Field:
    """(H, W): distance in px to the nearest pixel of the mask."""
    return np.asarray(cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, 5), np.float32)


def around(mask: Mask, margin: int) -> tuple[slice, slice]:
    """The window of the photo that holds the mask and ``margin`` px around it."""
    x, y, width, height = cv2.boundingRect(mask.astype(np.uint8))
    return slice(max(0, y - margin), y + height + margin), slice(max(0, x - margin), x + width + margin)


def widened(mask: Mask, width: float) -> Mask:
    """The mask and ``width`` px around it; all False for an empty mask."""
    return np.asarray(distance(mask) <= width) if mask.any() else mask


def rim(mask: Mask, scale: float) -> Field:
    """Weight of the editor's picture: 1 on the defect and just around it, 0 from the end of the rim on."""
    beyond = (distance(mask) - KEPT * scale) / (FADE * scale)
    t = np.clip(1 - beyond, 0, 1)
    return np.asarray(t * t * (3 - 2 * t), np.float32)


def shown(photo: Image, edited: Field, mask: Mask, scale: float) -> Field:
    """How far the editor's picture differs from the photo by more than its redrawing does (0-1); 1 on the defect.

    So a soft rim of the defect is kept, and redrawn grain beside it is not.
    """
    difference = length(cv2.GaussianBlur(lab_of(edited) - lab_of(photo), (0, 0), 1.5 * scale))
    calm = ~widened(mask, CLEAR * scale)
    usual = percentile(difference[calm], 75) if calm.any() else 0.0
    t = np.clip((difference - usual) / max(usual, 0.3), 0, 1)
    return np.asarray(np.where(mask, 1.0, t * t * (3 - 2 * t)), np.float32)


def levelled(photo: Image, matched: Field, mask: Mask, unit_px: float) -> Field:
    """Take away what is left of a smooth difference between the two pictures, as the defect's surroundings show it.

    Normalised convolution of the difference outside the defect, on a reduced copy; ``unit_px`` scales the widths.
    """
    reach = 3 * CLEAR * unit_px
    scale = min(1.0, UNIT / max(photo.shape[:2]))
    size = (max(8, round(photo.shape[1] * scale)), max(8, round(photo.shape[0] * scale)))
    calm = (~widened(mask, CLEAR * unit_px)).astype(np.float32)
    small = cv2.resize((photo - matched) * calm[..., None], size, interpolation=cv2.INTER_AREA)
    weight = cv2.resize(calm, size, interpolation=cv2.INTER_AREA)
    total, share = np.zeros_like(small), np.zeros_like(weight)
    for wider, part in REACHES.items():
        sigma = wider * reach * scale
        total += part * cv2.GaussianBlur(small, (0, 0), sigma)
        share += part * cv2.GaussianBlur(weight, (0, 0), sigma)
    smooth = total / np.maximum(share, 1e-6)[..., None]
    return np.asarray(matched + cv2.resize(smooth, photo.shape[1::-1], interpolation=cv2.INTER_LINEAR), np.float32)


def inside_region(alpha: Field, region: Mask) -> tuple[Field, float]:
    """The weight kept inside the region, fading towards its border, and the share of it that was cut off (0-1)."""
    depth = np.asarray(cv2.distanceTransform(region.astype(np.uint8), cv2.DIST_L2, 5), np.float32)
    kept = alpha * np.clip(depth / FADE, 0, 1)
    return kept, 1 - float((alpha * region).sum()) / float(alpha.sum())


def is_grey(photo: Image) -> bool:
    """Whether the three channels are the same."""
    return bool((photo[..., 0] == photo[..., 1]).all() and (photo[..., 1] == photo[..., 2]).all())


def empty(message: str) -> BackendError:
    """The editor's answer holds no defect that can be used; another wording may help."""
    return BackendError(message, FailureKind.EMPTY)
