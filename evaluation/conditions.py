"""What an image editor does to a photo besides the edit that was asked for, simulated.

``exact``: nothing. ``recolour``: gamma, white balance and brightness move, fine detail softens, JPEG at quality 80.
``drift``: the same, after a shift by 2-4 px and a zoom by 0.6%, as editors that redraw the whole picture show.
"""

from __future__ import annotations

from typing import Literal, TypeAlias, get_args

import cv2
import numpy as np
from numpy.typing import NDArray

from evaluation.data import Image, Mask

Condition: TypeAlias = Literal["exact", "recolour", "drift"]
Affine: TypeAlias = NDArray[np.float32]
"""(2, 3): from pixels of the photo to pixels of the edited one."""
CONDITIONS: tuple[Condition, ...] = get_args(Condition)
SHIFT = (2.0, 4.0)
"""Displacement in px, in any direction."""
ZOOM = 0.006
GAMMA, GAIN, OFFSET = 0.08, 0.06, 8.0
"""Half-widths around 1, 1 (per channel) and 0 grey levels (per channel)."""
BLUR = 0.6
"""Sigma in px."""
QUALITY = 80


def edit(image: Image, condition: Condition, rng: np.random.Generator) -> tuple[Image, Affine]:
    """The photo (H, W, 3) as an editor would hand it back, and how its pixels moved."""
    move = np.eye(2, 3, dtype=np.float32)
    if condition == "exact":
        return image, move
    picture = image.astype(np.float32)
    if condition == "drift":
        move, size = drift(image.shape, rng), (image.shape[1], image.shape[0])
        picture = cv2.warpAffine(picture, move, size, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT)
    bent = 255 * (np.clip(picture, 0, 255) / 255) ** rng.uniform(1 - GAMMA, 1 + GAMMA)
    toned = bent * rng.uniform(1 - GAIN, 1 + GAIN, 3) + rng.uniform(-OFFSET, OFFSET, 3)
    soft = np.clip(np.rint(cv2.GaussianBlur(toned, (0, 0), BLUR)), 0, 255).astype(np.uint8)
    _, code = cv2.imencode(".jpg", soft[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    return np.asarray(cv2.imdecode(code, cv2.IMREAD_COLOR_RGB), np.uint8), move


def moved(mask: Mask, move: Affine) -> Mask:
    """The mask (H, W) where the editor's photo has it."""
    size = (mask.shape[1], mask.shape[0])
    return np.asarray(cv2.warpAffine(mask.astype(np.float32), move, size, flags=cv2.INTER_LINEAR) > 0.5)


def drift(shape: tuple[int, ...], rng: np.random.Generator) -> Affine:
    """A shift of ``SHIFT`` px in any direction, and a zoom in or out around the middle of (H, W)."""
    angle, length = rng.uniform(0, 2 * np.pi), rng.uniform(*SHIFT)
    zoom = 1 + ZOOM * float(rng.choice([-1, 1]))
    x, y = (n / 2 * (1 - zoom) for n in (shape[1], shape[0]))
    return np.array([[zoom, 0, x + length * np.cos(angle)], [0, zoom, y + length * np.sin(angle)]], np.float32)
