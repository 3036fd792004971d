"""How every image enters and leaves the tools: decoding within limits, and pixels at their own depth.

A ``Photo`` keeps what the file held (grey or colour, 8 or 16 bit, alpha), upright, so that an edit can leave
every untouched pixel exactly as it was; ``view`` is the 8-bit RGB picture that the tools look at.
Where images are kept and named is in ``store.py``.
"""

from __future__ import annotations

import io
import struct
import warnings
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image as PILImage
from PIL import ImageOps, UnidentifiedImageError

from mcp_servers.errors import ToolInputError

Pixels: TypeAlias = NDArray[np.uint8] | NDArray[np.uint16]

FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP", "PPM")
"""Formats that are opened; everything else is refused (some of Pillow's other readers run programs)."""
MAX_BYTES = 256 * 2**20
MAX_PIXELS = 64 * 10**6
MIN_SIDE = 32
PREVIEW_SIDE = 768


class ImageError(ToolInputError):
    """An image that cannot be used; the message names the cure."""


@dataclass(frozen=True, eq=False)
class Photo:
    """An upright picture at its own depth.

    ``pixels`` is (H, W) grey or (H, W, 3) RGB, uint8 or uint16; ``alpha`` is None or (H, W) of the same type.
    """

    pixels: Pixels
    alpha: Pixels | None = None

    @property
    def width(self) -> int:
        return int(self.pixels.shape[1])

    @property
    def height(self) -> int:
        return int(self.pixels.shape[0])

    @cached_property
    def full_scale(self) -> int:
        """The value shown as white: 255, or for 16-bit files the top of the depth in use (10 to 16 bits).

        Industrial cameras store 10- and 12-bit values in 16-bit files.
        """
        if self.pixels.dtype == np.uint8:
            return 255
        bits = int(self.pixels.max()).bit_length()
        return int(2 ** next(depth for depth in (10, 12, 14, 16) if bits <= depth) - 1)

    def view(self, full_scale: int | None = None) -> NDArray[np.uint8]:
        """(H, W, 3) RGB uint8, rescaled linearly from the photo's depth (never clipped)."""
        pixels = self.pixels
        if pixels.dtype != np.uint8:
            scaled = pixels.astype(np.float32) * (255.0 / (full_scale or self.full_scale))
            pixels = np.clip(np.rint(scaled), 0, 255).astype(np.uint8)
        if pixels.ndim == 2:
            return np.asarray(np.repeat(pixels[:, :, None], 3, axis=2), np.uint8)
        return np.asarray(pixels, np.uint8)

    def composite(self, rendered: NDArray[np.float32], weight: NDArray[np.float32]) -> Photo:
        """This photo with ``rendered`` laid in where ``weight`` is above 0; every other pixel stays identical.

        rendered: (H, W, 3) RGB float32 on the 0-255 scale of ``view``; weight: (H, W) in [0, 1], only its
        support counts since ``rendered`` is already blended. Alpha stays as it is.
        """
        inside = weight > 0
        change = rendered[inside] - self.view()[inside].astype(np.float32)
        scale = self.full_scale / 255.0
        pixels = self.pixels.copy()
        if pixels.ndim == 2:
            change = change @ np.array([0.299, 0.587, 0.114], np.float32)
        mixed = pixels[inside].astype(np.float32) + change * scale
        pixels[inside] = np.clip(np.rint(mixed), 0, self.full_scale).astype(pixels.dtype)
        return Photo(pixels, self.alpha)

    def to_png(self) -> bytes:
        """Lossless PNG bytes, the same for the same pixels."""
        planes = self.pixels
        if self.alpha is not None:
            colour = planes if planes.ndim == 3 else np.repeat(planes[:, :, None], 3, axis=2)
            planes = np.dstack([colour[:, :, ::-1], self.alpha])
        elif planes.ndim == 3:
            planes = planes[:, :, ::-1]
        ok, encoded = cv2.imencode(".png", np.ascontiguousarray(planes))  # naming a level would halve the speed
        if not ok:
            raise RuntimeError("PNG encoding failed")
        return encoded.tobytes()

    def preview(self, side: int = PREVIEW_SIDE) -> bytes:
        """JPEG of at most ``side`` pixels on the longer side, for people and models to look at."""
        return jpeg_preview(self.view(), side)


def jpeg_preview(rgb: NDArray[np.uint8], side: int = PREVIEW_SIDE) -> bytes:
    """(H, W, 3) RGB uint8 to a JPEG of at most ``side`` pixels on the longer side."""
    scale = side / max(rgb.shape[:2])
    if scale < 1:
        size = (max(1, round(rgb.shape[1] * scale)), max(1, round(rgb.shape[0] * scale)))
        rgb = np.asarray(cv2.resize(rgb, size, interpolation=cv2.INTER_AREA), np.uint8)
    ok, encoded = cv2.imencode(".jpg", rgb[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 88])
    if not ok:
        raise RuntimeError("JPEG encoding failed")
    return encoded.tobytes()


def decode(data: bytes, name: str) -> Photo:
    """Decode an image file's bytes; ``name`` is how the caller called it, for messages.

    EXIF orientation is applied, palettes and bilevel pictures are expanded, metadata is dropped; CMYK becomes
    RGB. Of a JPEG with further pictures inside (MPO, as phones write it) the main one counts. Raises ImageError for
    anything else that is not one still picture of a supported format and size.
    """
    if not data:
        raise ImageError(f"{name} is empty (0 bytes): give an image file")
    if len(data) > MAX_BYTES:
        raise ImageError(f"{name} has {len(data) >> 20} MiB, the limit is {MAX_BYTES >> 20} MiB: give a smaller file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            picture = PILImage.open(io.BytesIO(data), formats=FORMATS)
            _check_size(picture.width, picture.height, name)
            if picture.format != "MPO" and getattr(picture, "n_frames", 1) > 1:  # a phone's JPEG: its main picture
                raise ImageError(f"{name} holds several frames or pages: save the one you mean as its own file")
            deep = _decode_deep(picture, data)
            if deep is not None:
                return deep
            picture.load()
            return _from_pillow(picture)
    except PILImage.DecompressionBombError as error:
        raise ImageError(f"{name} is too large ({MAX_PIXELS // 10**6} megapixels at most): scale it down") from error
    except UnidentifiedImageError as error:
        raise ImageError(f"{name} is not an image of a supported format ({', '.join(FORMATS)})") from error
    except ImageError as error:
        raise type(error)(str(error).replace("the image", name, 1)) from None
    except (OSError, ValueError, SyntaxError, EOFError, struct.error, IndexError, TypeError, KeyError) as error:
        raise ImageError(f"{name} is damaged or cut off and cannot be decoded: save it again") from error


def _check_size(width: int, height: int, name: str) -> None:
    if width * height > MAX_PIXELS:
        raise ImageError(
            f"{name} is {width}x{height}, more than {MAX_PIXELS // 10**6} megapixels: scale it down or crop it"
        )
    if min(width, height) < MIN_SIDE:
        raise ImageError(f"{name} is {width}x{height}: at least {MIN_SIDE} pixels a side are needed")


def _decode_deep(picture: PILImage.Image, data: bytes) -> Photo | None:
    """16-bit PNG and TIFF colour pictures, which Pillow would cut to 8 bits; None for everything else."""
    bits = data[24] if picture.format == "PNG" and len(data) > 24 else 0
    if picture.format == "TIFF":
        tags: Any = getattr(picture, "tag_v2", {})
        samples = tags.get(258, (1,))
        bits = max(samples) if isinstance(samples, tuple) else int(samples)
    if bits != 16:
        return None
    planes = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED | cv2.IMREAD_IGNORE_ORIENTATION)
    if planes is None or planes.dtype != np.uint16:
        raise ImageError("the image is a 16-bit variant that cannot be read: save it as a plain 16-bit PNG")
    planes = _turn_upright(np.asarray(planes, np.uint16), int(picture.getexif().get(274, 1)))
    if planes.ndim == 2:
        return Photo(np.ascontiguousarray(planes))
    alpha = np.ascontiguousarray(planes[:, :, 3]) if planes.shape[2] == 4 else None
    return Photo(np.ascontiguousarray(planes[:, :, 2::-1]), alpha)


def _turn_upright(planes: NDArray[np.uint16], orientation: int) -> NDArray[np.uint16]:
    """Apply an EXIF orientation (1 to 8)."""
    if orientation in (5, 6, 7, 8):
        planes = np.swapaxes(planes, 0, 1)
    if orientation in (2, 3, 6, 7):
        planes = planes[:, ::-1]
    if orientation in (3, 4, 7, 8):
        planes = planes[::-1]
    return planes


def _from_pillow(picture: PILImage.Image) -> Photo:
    picture = ImageOps.exif_transpose(picture)
    mode = picture.mode
    if mode.startswith("I;16") or mode == "I":
        values = np.asarray(picture).astype(np.int64)
        if values.min() < 0 or values.max() > 65535:
            raise ImageError("the image holds 32-bit values: save it with 8 or 16 bits per channel")
        return Photo(values.astype(np.uint16))
    if mode == "F":
        raise ImageError("the image holds floating-point values: save it with 8 or 16 bits per channel")
    transparent = "A" in picture.getbands() or "transparency" in picture.info
    grey = mode in ("1", "L", "LA")
    if transparent:
        both = np.asarray(picture.convert("LA" if grey and mode != "L" else "RGBA"))
        return Photo(np.ascontiguousarray(both[:, :, :-1].squeeze()), np.ascontiguousarray(both[:, :, -1]))
    return Photo(np.ascontiguousarray(np.asarray(picture.convert("L" if grey else "RGB"))))
