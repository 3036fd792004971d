"""Broken edits in a real defect's own shape, so that a judge cannot tell them by their outline; for fitting a judge.

Where the shape is right and the filling wrong, or the filling right and the place wrong. ``broken.py`` has those that a
judge is measured by.
"""

from __future__ import annotations

import cv2
import numpy as np

from evaluation.broken import clip, disc, is_grey
from evaluation.data import Image, Mask
from evaluation.pairs import RealPair

SHAPED = ("flat_shape", "flat_colour", "noise_shape", "foreign_shape", "blurred_defect", "faint_defect", "moved_off")
"""Kinds of edits: one colour, the defect's own mean colour, white noise, another category's photo, the defect out of
focus, the defect so faint that nobody sees it, and the defect itself put where most of it lies off the object."""
FAINT = (2.0, 7.0)
"""Strongest difference of a faint defect in grey levels."""
TRIES = 60
"""Places that are tried for ``moved_off``."""


def shaped_edits(pair: RealPair, part: Mask, other: Image, rng: np.random.Generator) -> dict[str, Image]:
    """The edits of the good twin that can be made, by kind. ``part`` (H, W): the object; ``other``: a strange photo.

    Fillings are left out where the defect is too thin to show one.
    """
    out: dict[str, Image] = {}
    normal, anomaly, mask = pair.normal, pair.anomaly, pair.mask
    solid = mask.astype(np.float32)
    hard, soft = solid[..., None], cv2.GaussianBlur(solid, (0, 0), 0.7)[..., None]
    if np.count_nonzero(cv2.erode(mask.astype(np.uint8), disc(2))) > 0.25 * np.count_nonzero(mask):
        colour, own = rng.uniform(20, 235, 3), np.median(anomaly[mask], axis=0)
        noise = rng.normal(0, rng.uniform(15, 50), normal.shape)
        foreign = cv2.resize(other, (mask.shape[1], mask.shape[0]), interpolation=cv2.INTER_AREA)
        if is_grey(normal):
            colour, noise = np.repeat(colour.mean(), 3), noise[..., :1]
            foreign = np.repeat(cv2.cvtColor(foreign, cv2.COLOR_RGB2GRAY)[..., None], 3, axis=2)
        out["flat_shape"] = clip(normal * (1 - soft) + soft * colour)
        out["flat_colour"] = clip(normal * (1 - hard) + hard * own)
        out["noise_shape"] = clip(normal * (1 - soft) + soft * (own + noise))
        out["foreign_shape"] = clip(normal * (1 - hard) + hard * foreign)
        out["blurred_defect"] = clip(normal * (1 - soft) + soft * cv2.GaussianBlur(anomaly, (0, 0), rng.uniform(2, 4)))
    change = anomaly.astype(np.float32) - normal
    out["faint_defect"] = clip(normal + change * rng.uniform(*FAINT) / max(1.0, float(np.abs(change).max())))
    if not part.all() and (elsewhere := _moved_off(pair, part, rng)) is not None:
        out["moved_off"] = elsewhere
    return out


def _moved_off(pair: RealPair, part: Mask, rng: np.random.Generator) -> Image | None:
    rows, columns = (np.flatnonzero(pair.mask.any(axis=axis)) for axis in (1, 0))
    box = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
    shape = pair.mask[box]
    for _ in range(TRIES):
        y, x = (int(rng.integers(0, whole - own + 1)) for whole, own in zip(part.shape, shape.shape, strict=True))
        place = (slice(y, y + shape.shape[0]), slice(x, x + shape.shape[1]))
        if np.mean(~part[place][shape]) > 0.6:
            out = pair.normal.copy()
            out[place][shape] = pair.anomaly[box][shape]
            return out
    return None
