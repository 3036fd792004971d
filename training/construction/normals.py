"""The good photos behind all defects of a run: made once each, in processes of their own, and kept as PNG.

What cannot be reversed well enough (removal.py says why) is left out, with the reason.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import cv2
import numpy as np

from agent.session import write_atomic
from evaluation.data import Image, images_in, read_image
from evaluation.pairs import seeded
from training.construction.defects import Defect
from training.construction.removal import objection
from training.construction.reverse import hole_of, part_of, reverse
from training.errors import TrainingError

GOOD = 24
"""Good photos of a category that are looked at, evenly spread over the folder."""


@dataclass(frozen=True, slots=True)
class Reversed:
    """A defect and the file of its good photo, or why there is none (``reason``, "" where there is)."""

    defect: Defect
    file: Path
    reason: str


def reverse_all(
    defects: Sequence[Defect], folder: Path, seed: int, workers: int, say: Callable[[Reversed], None]
) -> list[Reversed]:
    """Make ``folder/CATEGORY/KIND/NAME.png`` for every defect, in order; files that are there already are kept.

    Raises OSError where the folder cannot be written.
    """
    done: list[Reversed] = []
    make = partial(_reverse_one, folder=folder, seed=seed)
    if workers == 1:
        for defect in defects:
            done.append(make(defect))
            say(done[-1])
        return done
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        for result in pool.map(make, defects):
            done.append(result)
            say(result)
    return done


def _reverse_one(defect: Defect, folder: Path, seed: int) -> Reversed:
    file = (folder / defect.category / defect.kind / defect.image.name).with_suffix(".png")
    if file.is_file():
        return Reversed(defect, file, "")
    try:
        photo, mask = defect.read()
        good = partial(_good_photos, defect)
        normal = reverse(photo, mask, good, seeded("reverse", seed, defect.name))
    except (TrainingError, ValueError) as error:
        return Reversed(defect, file, f"unusable: {error}")
    if reason := objection(photo, normal, mask, hole_of(photo, mask, part_of(photo, mask))):
        return Reversed(defect, file, reason)
    ok, png = cv2.imencode(".png", np.ascontiguousarray(normal[:, :, ::-1]))
    if not ok:
        raise RuntimeError("PNG encoding failed")
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(file, png.tobytes())
    return Reversed(defect, file, "")


def donors(defects: Sequence[Defect]) -> dict[str, list[str]]:
    """The good photos that may lend their surface to a hole, below the data folder, by category.

    They are of CATEGORY/train/good: a split names photos of defects alone.
    """
    folders = {defect.category: defect.image.parents[2] for defect in defects}
    return {
        category: [path.relative_to(folder.parent).as_posix() for path in _donor_files(folder)]
        for category, folder in sorted(folders.items())
    }


def _good_photos(defect: Defect) -> list[Image]:
    return [read_image(path) for path in _donor_files(defect.image.parents[2])]


def _donor_files(category: Path) -> list[Path]:
    paths = images_in(category / "train" / "good")
    return paths[:: max(1, -(-len(paths) // GOOD))]
