"""Generators x categories x seeds: make pairs, train a detector on them, test it on real defects.

Every generator is tested on the same photos: all of test/good and the second half of the real defects of each kind
(the first half belongs to ``oracle`` and ``croppaste``). One such run is a *cell* (``cells.py``); ``report.py`` sums
them up. The seed changes the pairs as well as the training, so the intervals cover both.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from evaluation.cells import Cell, CellStore
from evaluation.data import Category, Pair, fingerprint, load_category, shrink_mask, write_pairs
from evaluation.errors import EvaluationError
from evaluation.generators import Source, pair_folder, pairs_from
from evaluation.metrics import average_precision, score
from evaluation.ours import make_pairs
from evaluation.pictures import prediction_strip, strip

if TYPE_CHECKING:
    from evaluation.detector import Detector


@dataclass(frozen=True, slots=True)
class Settings:
    """How cells are run.

    ``preset``: a name of ``detector.PRESETS``. ``pairs``: how many a generator makes. ``bfloat16``: mixed precision.
    ``select_on_test``: keep the epoch that is best on the test set, as published code does; it leaks, for comparison
    only. ``items``: what a category's photos show, where its folder's name does not say it.
    """

    preset: str = "fast"
    pairs: int = 200
    bfloat16: bool = False
    select_on_test: bool = False
    items: Mapping[str, str] = field(default_factory=dict)

    def item_of(self, category: str) -> str:
        """What the photos of a category show, in words."""
        return self.items.get(category, category.replace("_", " "))


def compare(
    folders: Sequence[Path],
    sources: Sequence[Source],
    settings: Settings,
    seeds: int,
    store: CellStore,
    export: Path | None,
    say: Callable[[str], None],
) -> list[Cell]:
    """Run the cells that the store does not hold yet, in the order of the arguments. Raises EvaluationError.

    ``export``: where the pairs that were trained on are written, as GENERATOR/seed_N/CATEGORY/KIND; pairs that are
    there already are refused, as old and new ones would mix.
    """
    cells: list[Cell] = []
    for folder, source in product(folders, sources):
        pair_folder(source, folder.name)
        for seed in range(seeds):
            if export and not store.holds(folder.name, source.name, seed):
                refuse_used(exported(export, source, seed, folder.name))
    for folder in folders:
        category, data = load_category(folder), fingerprint(folder)
        item = settings.item_of(category.name)
        for seed in range(seeds):
            rng = np.random.default_rng([seed, 0])
            ours = cache(partial(make_pairs, category.normals, item, category.kinds, settings.pairs, rng))
            for source in sources:
                cell = store.read(category.name, source.name, seed, data)
                if cell is None:
                    pairs = pairs_from(source, category, item, ours, settings.pairs, seed)
                    if export:
                        write_pairs(exported(export, source, seed, category.name), pairs)
                    cell, maps = run_cell(category, source.name, pairs, settings, seed)
                    store.write(cell, data, strip(pairs), prediction_strip(category.held_out, maps))
                cells.append(cell)
                say(f"{category.name} {source.name} seed {seed}: pixel AP {100 * cell.scores.pixel_ap:.1f}")
    return cells


def exported(export: Path, source: Source, seed: int, category: str) -> Path:
    """Where the pairs of a cell are written."""
    return export / source.name / f"seed_{seed}" / category


def refuse_used(folder: Path) -> None:
    """Raise EvaluationError where a folder holds something."""
    if folder.is_dir() and any(folder.iterdir()):
        raise EvaluationError(f"--export: {folder} holds pairs already: remove it, or name another folder")


def run_cell(
    category: Category, generator: str, pairs: Sequence[Pair], settings: Settings, seed: int
) -> tuple[Cell, NDArray[np.float32]]:
    """Train on the pairs and the category's normal photos, test on its held-out half of the real defects.

    Also gives the anomaly maps (N, side, side) in [0, 1] of those defects.
    """
    from evaluation.detector import PRESETS, train  # torch is needed only here

    preset = PRESETS[settings.preset]
    photos = [*category.good, *(pair.image for pair in category.held_out)]
    good = np.zeros((len(category.good), preset.side, preset.side), bool)
    bad = np.stack([shrink_mask(pair.mask, preset.side) for pair in category.held_out])
    truth = np.concatenate([good, bad])

    def judge(detector: Detector) -> float:
        return average_precision(detector.predict(photos).ravel(), truth.ravel())

    detector = train(
        pairs,
        category.normals,
        preset,
        seed,
        bfloat16=settings.bfloat16,
        judge=judge if settings.select_on_test else None,
    )
    maps = detector.predict(photos)
    by_kind = {}
    for kind in category.kinds:
        chosen = np.array([True] * len(good) + [pair.kind == kind for pair in category.held_out])
        by_kind[kind] = average_precision(maps[chosen].ravel(), truth[chosen].ravel())
    cell = Cell(category.name, generator, seed, score(maps, truth), by_kind, len(pairs), len(good), len(bad))
    return cell, maps[len(good) :]
