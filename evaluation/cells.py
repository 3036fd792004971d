"""A cell of the comparison, and the folder that keeps cells so that a long run can be taken up again or shared out."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2

from evaluation.data import Image
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
    """Keeps cells as ``CATEGORY-GENERATOR-SEED.json`` in a folder, with a strip of samples beside them.

    folder: None keeps nothing. settings: what cells must share to stand in one table. ``resume``: whether cells from
    an earlier run are read.
    """

    def __init__(self, folder: Path | None, settings: Mapping[str, Any], resume: bool) -> None:
        self._folder, self._settings, self._resume = folder, dict(settings), resume

    def read(self, category: str, generator: str, seed: int) -> Cell | None:
        """The cell of an earlier run, or None. Raises EvaluationError where it was run with other settings."""
        path = self._path(category, generator, seed)
        if path is None or not self._resume or not path.is_file():
            return None
        kept = json.loads(path.read_text(encoding="utf-8"))
        if kept.pop("settings") != self._settings:
            raise EvaluationError(f"{path} was run with other settings: choose another --out, or leave out --resume")
        return Cell(**{**kept, "scores": Scores(**kept["scores"])})

    def write(self, cell: Cell, samples: Image | None) -> None:
        """Keep a cell, and its generator's samples where there are any."""
        path = self._path(cell.category, cell.generator, cell.seed)
        if path is None:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({**asdict(cell), "settings": self._settings}, indent=1), encoding="utf-8")
        if samples is not None:
            cv2.imwrite(str(self._samples(cell.category, cell.generator)), samples[:, :, ::-1])

    def samples(self, category: str, generator: str) -> Image | None:
        """The strip of samples that was kept."""
        path = self._samples(category, generator)
        strip = cv2.imread(str(path)) if path.is_file() else None
        return None if strip is None else strip[:, :, ::-1].copy()

    def _path(self, category: str, generator: str, seed: int) -> Path | None:
        return self._folder / f"{category}-{generator}-{seed}.json" if self._folder else None

    def _samples(self, category: str, generator: str) -> Path:
        return (self._folder or Path()) / f"{category}-{generator}.png"
