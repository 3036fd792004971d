"""Real inspection photos in MVTec layout, and folders of image and mask pairs.

MVTec layout: ``CATEGORY/train/good/*``, ``CATEGORY/test/good/*``, ``CATEGORY/test/KIND/NAME.png`` with its mask
``CATEGORY/ground_truth/KIND/NAME_mask.png``. Pair folders hold ``KIND/image/NAME`` and ``KIND/mask/NAME`` (the layout
in which AnomalyDiffusion writes its results, and ``write_pairs`` ours) or the test part of an MVTec layout.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from evaluation.errors import EvaluationError

Image: TypeAlias = NDArray[np.uint8]
"""(H, W, 3) sRGB, uint8."""
Mask: TypeAlias = NDArray[np.bool_]
"""(H, W) bool, True on the defect."""

T = TypeVar("T")

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"}


@dataclass(frozen=True, slots=True)
class Pair:
    """A defective image, its mask of the same height and width, and the name of its defect type."""

    image: Image
    mask: Mask
    kind: str


@dataclass(frozen=True, slots=True)
class Category:
    """One part: normal photos to generate from, and the real test photos.

    ``shown`` and ``held_out`` are the first and the second half of the real defects of each kind, by file name (near
    duplicates tend to be neighbours, so halves leak less than every other file would). Only generators that are given
    real defects see ``shown``; every detector is tested on ``good`` and ``held_out``.
    """

    name: str
    normals: list[Image]
    good: list[Image]
    shown: list[Pair]
    held_out: list[Pair]

    @property
    def kinds(self) -> list[str]:
        """The names of the defect types, sorted."""
        return sorted({pair.kind for pair in self.held_out})


def find_categories(data: Path, wanted: Sequence[str]) -> list[Path]:
    """The category folders of ``data``, or the wanted ones. Raises EvaluationError where one is missing."""
    if not data.is_dir():
        raise EvaluationError(f"{data} is no folder: name one in MVTec layout (CATEGORY/train/good, CATEGORY/test)")
    present = sorted(path for path in data.iterdir() if (path / "train" / "good").is_dir())
    if not present:
        if (data / "train" / "good").is_dir():
            raise EvaluationError(f"{data} is a category itself: did you mean its parent, {data.resolve().parent}?")
        raise EvaluationError(f"{data} holds no CATEGORY/train/good: name a folder in MVTec layout")
    return choose(present, wanted, f"{data} holds no category")


def choose(present: Sequence[Path], wanted: Sequence[str], missing: str) -> list[Path]:
    """The wanted ones of the category folders, all where none is named.

    Raises EvaluationError, which begins with ``missing``, for a name that is not there.
    """
    names = [path.name for path in present]
    for name in wanted:
        if name not in names:
            raise EvaluationError(f"{missing} {name!r}: choose from {', '.join(names)}")
    return [path for path in present if not wanted or path.name in wanted]


def load_category(folder: Path) -> Category:
    """Read a category. Raises EvaluationError where photos or masks are missing, or a mask is empty or full."""
    normals = [read_image(path) for path in images_in(folder / "train" / "good")]
    good = [read_image(path) for path in images_in(folder / "test" / "good")]
    if not normals or not good:
        empty = "train/good" if not normals else "test/good"
        raise EvaluationError(f"{folder / empty} holds no photo: both normal and test photos are needed")
    shown: list[Pair] = []
    held_out: list[Pair] = []
    for kind in sorted(path for path in (folder / "test").iterdir() if path.is_dir() and path.name != "good"):
        pairs = _mvtec_pairs(folder, kind.name)
        shown += pairs[: len(pairs) // 2]
        held_out += pairs[len(pairs) // 2 :]
    if not held_out or not shown:
        raise EvaluationError(
            f"{folder.name} has no defects with masks: put photos in {folder / 'test' / 'KIND'} and "
            f"NAME_mask.png in {folder / 'ground_truth' / 'KIND'}, two of a kind at least"
        )
    return Category(folder.name, normals, good, shown, held_out)


def fingerprint(folder: Path) -> str:
    """SHA-256 (hex) of a category's photos and masks, by their names and bytes."""
    digest = hashlib.sha256()
    for part in ("train/good", "test", "ground_truth"):
        for path in sorted(path for path in (folder / part).rglob("*") if path.suffix.lower() in SUFFIXES):
            digest.update(f"{path.relative_to(folder).as_posix()} {path.stat().st_size}\n".encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()


def read_pairs(folder: Path) -> list[Pair]:
    """All pairs of a pair folder, sorted by kind and name. Raises EvaluationError where there are none.

    Masks of an MVTec layout are neither empty nor full, as in ``load_category``; those of KIND/mask can be.
    """
    pairs: list[Pair] = []
    for images in sorted(folder.glob("*/image")):
        for path in images_in(images):
            masks = sorted((images.parent / "mask").glob(f"{path.stem}.*"))
            if not masks:
                raise EvaluationError(f"{path} has no mask: put {path.stem}.png in {images.parent / 'mask'}")
            pairs.append(_pair(path, masks[0], images.parent.name))
    if not pairs and (folder / "ground_truth").is_dir():
        kinds = sorted(path.name for path in (folder / "ground_truth").iterdir() if path.is_dir())
        pairs = [pair for kind in kinds for pair in _mvtec_pairs(folder, kind)]
    if not pairs:
        raise EvaluationError(f"{folder} holds no pairs: expected KIND/image/NAME.png with KIND/mask/NAME.png")
    return pairs


def write_pairs(folder: Path, pairs: Sequence[Pair]) -> None:
    """Write pairs so that ``read_pairs`` reads them back: ``KIND/image/0000.png``, ``KIND/mask/0000.png``."""
    for number, pair in enumerate(pairs):
        for name, picture in (("image", pair.image[:, :, ::-1]), ("mask", pair.mask.astype(np.uint8) * 255)):
            place = folder / pair.kind / name
            place.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(place / f"{number:04d}.png"), picture)


def images_in(folder: Path) -> list[Path]:
    """The image files of a folder, sorted by name; none where it does not exist."""
    return sorted(path for path in folder.glob("*") if path.suffix.lower() in SUFFIXES)


def read_image(path: Path) -> Image:
    """(H, W, 3) sRGB. Raises EvaluationError for a file that is no image."""
    picture = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if picture is None:
        raise EvaluationError(f"{path} cannot be read as an image: replace or remove it")
    return np.ascontiguousarray(picture[:, :, ::-1])


def read_mask(path: Path) -> Mask:
    """(H, W): True where a channel is above 127, or, in a file without such values (0/1, label ids), above 0.

    Raises EvaluationError for a file that is no image.
    """
    values = read_image(path).max(axis=2)
    return np.asarray(values > (127 if values.max() > 127 else 0))


def shrink(image: Image, side: int) -> Image:
    """To side x side px, averaging; the aspect is not kept, as in the published protocols."""
    return np.asarray(cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA), np.uint8)


def shrink_mask(mask: Mask, side: int) -> Mask:
    """To side x side px: True where more than half of the pixel was.

    A mask that nowhere fills half a pixel (a thin line) would vanish; it keeps the pixels that it fills by more than
    half as much as the one it fills most. So only an empty mask stays empty.
    """
    filled = cv2.resize(mask.astype(np.float32), (side, side), interpolation=cv2.INTER_AREA)
    most = float(filled.max())
    return np.asarray(filled > (0.5 if most > 0.5 else most / 2))


def pick(items: Sequence[T], rng: np.random.Generator) -> T:
    """One of the items, each as likely as any other."""
    return items[int(rng.integers(len(items)))]


def _mvtec_pairs(folder: Path, kind: str) -> list[Pair]:
    pairs = []
    for path in images_in(folder / "test" / kind):
        masks = [folder / "ground_truth" / kind / f"{path.stem}{ending}" for ending in ("_mask.png", ".png")]
        mask = next((mask for mask in masks if mask.is_file()), None)
        if mask is None:
            raise EvaluationError(f"{path} has no mask: put {path.stem}_mask.png in {masks[0].parent}")
        pair = _pair(path, mask, kind)
        if not pair.mask.any():
            raise EvaluationError(f"{mask} has an empty mask: remove the photo or draw its mask")
        if pair.mask.all():
            raise EvaluationError(f"{mask} covers the whole photo: remove the photo or draw only its defect")
        pairs.append(pair)
    return pairs


def _pair(image: Path, mask: Path, kind: str) -> Pair:
    picture = read_image(image)
    label = read_mask(mask)
    if label.shape != picture.shape[:2]:
        raise EvaluationError(
            f"{mask} is {label.shape[1]} x {label.shape[0]} px, its image {picture.shape[1]} x {picture.shape[0]}: "
            "resize the mask"
        )
    return Pair(picture, label, kind)
