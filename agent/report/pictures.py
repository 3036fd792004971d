"""Session images as data URIs, small enough for a page that somebody mails around."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from agent.session import Session, SessionError

LARGE, SMALL = 1024, 320
"""Longer side, in pixels, of photos in the page and of thumbnails."""
TINT = (230, 30, 90)
"""Colour of the mask laid over a photo."""


@dataclass(frozen=True, slots=True)
class Picture:
    """An embedded image; ``uri`` is empty where the session's file is missing or damaged.

    ``width`` and ``height`` are those of the full image in the session, in pixels (0 where it is missing).
    """

    uri: str
    width: int
    height: int
    digest: str


class Album:
    """Embeds the images of one session; each is decoded and encoded once for each use."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._made: dict[tuple[object, ...], Picture] = {}

    def photo(self, image: dict[str, Any], side: int = LARGE) -> Picture:
        """A photo as JPEG, at most ``side`` pixels long. ``image`` is an image entry of an event."""

        def encode(picture: Image.Image) -> bytes:
            small = _eight_bit(picture).convert("RGB")
            small.thumbnail((side, side), Image.Resampling.LANCZOS)
            stream = io.BytesIO()
            # Full colour resolution: half of it would wash out a hairline stain.
            small.save(stream, "JPEG", quality=86, subsampling=0, optimize=True)
            return stream.getvalue()

        return self._embed(image, "image/jpeg", encode, side)

    def mask(self, image: dict[str, Any], *, tinted: bool = False) -> Picture:
        """A mask as PNG, at most LARGE pixels long: white on black, or TINT where it is set and clear elsewhere."""

        def encode(picture: Image.Image) -> bytes:
            level = picture.convert("L")
            scale = min(1.0, LARGE / max(level.size))
            size = (max(1, round(level.width * scale)), max(1, round(level.height * scale)))
            layer = level = level.resize(size, Image.Resampling.BOX)
            if tinted:
                layer = Image.new("RGB", size, TINT)
                layer.putalpha(level.point([min(255, 2 * value) for value in range(256)]))  # thin masks stay visible
            stream = io.BytesIO()
            layer.save(stream, "PNG", optimize=True)
            return stream.getvalue()

        return self._embed(image, "image/png", encode, tinted)

    def left_edge(self, image: dict[str, Any]) -> float:
        """Where a mask begins, as a share (0-1) of the picture's width; 0.5 where it is empty or unreadable."""
        edge = 0.5

        def measure(picture: Image.Image) -> bytes:
            nonlocal edge
            box = picture.convert("L").getbbox()
            edge = box[0] / picture.width if box else edge
            return b""

        self._load(str(image.get("sha256") or ""), "", measure)
        return edge

    def _embed(
        self, image: dict[str, Any], media_type: str, encode: Callable[[Image.Image], bytes], variant: object
    ) -> Picture:
        digest = str(image.get("sha256") or "")
        key = (digest, media_type, variant)
        if key not in self._made:
            self._made[key] = self._load(digest, media_type, encode)
        return self._made[key]

    def _load(self, digest: str, media_type: str, encode: Callable[[Image.Image], bytes]) -> Picture:
        missing = Picture("", 0, 0, digest)
        if not re.fullmatch("[0-9a-f]{64}", digest):
            return missing
        try:
            with Image.open(io.BytesIO(self._session.image(digest))) as picture:
                data, (width, height) = encode(picture), picture.size
        except (SessionError, OSError, SyntaxError, Image.DecompressionBombError):
            return missing  # the page says which one; a killed run may well have lost an image
        return Picture(f"data:{media_type};base64,{base64.b64encode(data).decode()}", width, height, digest)


def _eight_bit(picture: Image.Image) -> Image.Image:
    """16-bit and float photos over the range in use; Pillow alone would clip them to white."""
    if picture.mode[0] not in "IF":
        return picture
    pixels = np.asarray(picture, np.float32)
    return Image.fromarray(np.rint(pixels * (255 / max(1.0, float(pixels.max())))).astype(np.uint8))
