"""Photos of real defects with their masks, from a folder in MVTec layout, and where each comes from.

``CATEGORY/test/KIND/NAME.png`` with ``CATEGORY/ground_truth/KIND/NAME_mask.png``; good photos in
``CATEGORY/train/good``. A file ``CATEGORY/source_map.tsv`` may say which photographs the images were cut from (two
columns: file and source, ``SOURCE@x,y`` for a window), so that windows of one photograph are never taken apart. Files
of the same bytes are of one photograph, whatever they are called.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from evaluation.data import Image, Mask, images_in, read_image, read_mask
from evaluation.errors import EvaluationError
from evaluation.pairs import find_masked
from training.errors import TrainingError

SMALLEST = 32
"""Shorter side in px that a photo must have."""


@dataclass(frozen=True, slots=True)
class Defect:
    """One photo of a real defect: ``name`` is its path below the data folder, ``source`` the photograph it is from."""

    category: str
    kind: str
    name: str
    image: Path
    mask: Path
    source: str

    def read(self) -> tuple[Image, Mask]:
        """The photo (H, W, 3) and its mask (H, W). Raises TrainingError where they cannot be used."""
        try:
            picture, mask = read_image(self.image), read_mask(self.mask)
        except EvaluationError as error:
            raise TrainingError(str(error)) from error
        if mask.shape != picture.shape[:2]:
            raise TrainingError(
                f"{self.mask} is {mask.shape[1]} x {mask.shape[0]} px, its image {picture.shape[1]} x "
                f"{picture.shape[0]}: resize the mask"
            )
        if not mask.any() or mask.all():
            raise TrainingError(f"{self.mask} is {'full' if mask.all() else 'empty'}: draw only the defect")
        if min(mask.shape) < SMALLEST:
            raise TrainingError(f"{self.image} is smaller than {SMALLEST} px: use a larger photo")
        return picture, mask


def find_defects(data: Path, wanted: Sequence[str]) -> list[Defect]:
    """All defects of the wanted categories (of all where none is named), by category, kind and name.

    Raises TrainingError where the folder has no masks, a photo lacks its own, or there is no defect at all.
    """
    try:
        folders = find_masked(data, list(wanted))
    except EvaluationError as error:
        raise TrainingError(str(error)) from error
    defects: list[Defect] = []
    for folder in folders:
        sources = read_sources(folder)
        kinds = sorted(path for path in folder.glob("test/*") if path.is_dir() and path.name != "good")
        for kind in kinds:
            for image in images_in(kind):
                masks = [
                    folder / "ground_truth" / kind.name / f"{image.stem}{ending}" for ending in ("_mask.png", ".png")
                ]
                mask = next((path for path in masks if path.is_file()), None)
                if mask is None:
                    raise TrainingError(f"{image} has no mask: put {image.stem}_mask.png in {masks[0].parent}")
                file = image.relative_to(folder).as_posix()
                name = f"{folder.name}/{file}"
                defects.append(Defect(folder.name, kind.name, name, image, mask, sources.get(file, name)))
    if not defects:
        raise TrainingError(f"{data} holds no defects: put photos in CATEGORY/test/KIND, and their masks beside them")
    return _copies_joined(defects)


def _copies_joined(defects: Sequence[Defect]) -> list[Defect]:
    """The same defects; those whose photos are byte for byte the same, and all of their photographs, share a source."""
    sizes: dict[int, list[Defect]] = {}
    for defect in defects:
        sizes.setdefault(defect.image.stat().st_size, []).append(defect)
    copies: dict[bytes, list[str]] = {}
    for group in sizes.values():
        for defect in group if len(group) > 1 else ():
            digest = hashlib.sha256(defect.image.read_bytes()).digest()
            copies.setdefault(digest, []).append(defect.source)
    source = {defect.source: defect.source for defect in defects}
    for first, *others in copies.values():
        for other in others:
            kept, lost = source[first], source[other]
            source = {name: kept if now == lost else now for name, now in source.items()}
    return [replace(defect, source=source[defect.source]) for defect in defects]


def read_sources(folder: Path) -> dict[str, str]:
    """File of a category -> the photograph it was made from (without the window); {} where the category does not say.

    Raises TrainingError for a line that has no two columns.
    """
    path = folder / "source_map.tsv"
    if not path.is_file():
        return {}
    sources = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        file, tab, source = line.partition("\t")
        if not tab or not source.strip():
            raise TrainingError(f"{path}, line {number}: expected FILE, a tab and SOURCE")
        sources[file.strip()] = f"{folder.name}:{source.strip().rpartition('@')[0] or source.strip()}"
    return sources
