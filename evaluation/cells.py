"""A cell of the comparison, and the folder that keeps cells so that a long run can be taken up again or shared out."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import cv2

from evaluation.data import Image, read_image
from evaluation.errors import EvaluationError
from evaluation.metrics import Scores


@dataclass(frozen=True, slots=True)
class Cell:
    """One detector, trained on one generator's ``pairs`` pairs for one category with one seed.

    ``scores`` are over all real defects of the test, ``ap_by_kind`` is the pixel AP on one kind and the good photos.
    ``good`` and ``defects`` count the photos it was tested on.
    """

    category: str
    generator: str
    seed: int
    scores: Scores
    ap_by_kind: dict[str, float]
    pairs: int
    good: int
    defects: int


class CellStore:
    """Keeps cells as ``CATEGORY-GENERATOR-SEED.json`` in a folder, with strips of pictures beside them.

    folder: None keeps nothing. settings: what cells must share to stand in one table. ``resume``: whether cells from
    an earlier run are read.
    """

    def __init__(self, folder: Path | None, settings: Mapping[str, Any], resume: bool) -> None:
        self._folder, self._settings, self._resume = folder, dict(settings), resume

    def holds(self, category: str, generator: str, seed: int) -> bool:
        """Whether there is a cell to take up."""
        path = self._path(category, generator, seed)
        return path is not None and self._resume and path.is_file()

    def read(self, category: str, generator: str, seed: int, data: str) -> Cell | None:
        """The cell of an earlier run, or None.

        data: fingerprint of the category's photos and masks (``data.fingerprint``). Raises EvaluationError where the
        cell was run with other settings or other data; one that does not say its data counts as run with the same.
        """
        path = self._path(category, generator, seed)
        if path is None or not self.holds(category, generator, seed):
            return None
        kept = json.loads(path.read_text(encoding="utf-8"))
        if kept.pop("data", data) != data:
            raise EvaluationError(
                f"{path} was run with other photos or masks: choose another --out, or leave out --resume"
            )
        if kept.pop("settings") != self._settings:
            raise EvaluationError(f"{path} was run with other settings: choose another --out, or leave out --resume")
        return Cell(**{**kept, "scores": Scores(**kept["scores"])})

    def write(self, cell: Cell, data: str, samples: Image, predictions: Image) -> None:
        """Keep a cell with its data's fingerprint; of the first seed also strips of samples and of what was found."""
        path = self._path(cell.category, cell.generator, cell.seed)
        if path is None:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(
            json.dumps({**asdict(cell), "data": data, "settings": self._settings}, indent=1), encoding="utf-8"
        )
        if cell.seed == 0:
            for what, picture in (("samples", samples), ("predictions", predictions)):
                cv2.imwrite(str(path.with_name(f"{cell.category}-{cell.generator}-{what}.png")), picture[:, :, ::-1])

    def strip(self, category: str, generator: str, what: Literal["samples", "predictions"]) -> Image | None:
        """A strip that was kept."""
        path = (self._folder or Path()) / f"{category}-{generator}-{what}.png"
        return read_image(path) if self._folder and path.is_file() else None

    def _path(self, category: str, generator: str, seed: int) -> Path | None:
        return self._folder / f"{category}-{generator}-{seed}.json" if self._folder else None
