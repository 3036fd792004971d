"""The user's region of interest, checked before anything is started."""

from __future__ import annotations

from pathlib import Path

from PIL import Image, UnidentifiedImageError

TURNED = (5, 6, 7, 8)
"""EXIF orientations in which width and height change places."""


def read_roi(text: str, photo: Path | None, name: str = "--roi") -> str:
    """The region as tools take it: "" for none, "x,y,width,height" in pixels of the upright photo, or a mask's path.

    ``name``: how messages call it. Raises ValueError, with the cure, for what is neither, and for a box that is empty
    or outside the photo.
    """
    if not text.strip():
        return ""
    if Path(text).is_file():
        return str(Path(text).resolve())
    try:
        x, y, width, height = (int(part) for part in text.strip(" []()").split(","))
    except ValueError as error:
        raise ValueError(f"{name} {text!r} is neither a box X,Y,WIDTH,HEIGHT in pixels nor a mask image") from error
    if width <= 0 or height <= 0:
        raise ValueError(f"{name} {text!r} is empty: give a width and a height above 0")
    size = _upright_size(photo) if photo else None
    if x < 0 or y < 0 or (size and (x + width > size[0] or y + height > size[1])):
        limits = f" ({size[0]}x{size[1]})" if size else ""
        raise ValueError(f"{name} {text!r} reaches outside the photo{limits}: give a box inside it")
    return text


def _upright_size(photo: Path) -> tuple[int, int] | None:
    """Width and height with the EXIF orientation applied; None where the photo cannot be read (its tool says why)."""
    try:
        with Image.open(photo) as picture:
            turned = picture.getexif().get(274) in TURNED
            return (picture.height, picture.width) if turned else (picture.width, picture.height)
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError, SyntaxError, ValueError):
        return None
