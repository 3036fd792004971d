"""Where training pairs come from, by name: our own tools, the baselines, real defects, or a folder.

``oracle``, ``croppaste`` and ``transplant`` are shown real defects, so they bound what data can be worth and are no
rivals of the others; ``shuffled`` is the floor: our images with one another's masks, which teaches where defects tend
to be and nothing of how they look.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from evaluation.baselines import BASELINES
from evaluation.baselines.croppaste import from_defects
from evaluation.data import Category, Mask, Pair, read_pairs
from evaluation.errors import EvaluationError
from evaluation.fewshot import transplant_pairs

NAMES = ("local", *BASELINES, "croppaste", "transplant", "oracle", "shuffled")
SHOTS = 5
"""Real defects of each kind that ``croppaste`` and ``transplant`` are given, out of the shown half."""


@dataclass(frozen=True, slots=True)
class Source:
    """A generator: one of ``NAMES``, or the folder that the pairs are read from."""

    name: str
    folder: Path | None = None

    @property
    def sees_defects(self) -> bool:
        """Whether it is shown real defects."""
        return self.name in ("croppaste", "transplant", "oracle")


def parse_sources(text: str) -> list[Source]:
    """Read "local,cutpaste,DIR,NAME=DIR". Raises EvaluationError for a name that is neither known nor a folder."""
    sources: list[Source] = []
    for item in filter(None, (part.strip() for part in text.split(","))):
        name, _, path = item.rpartition("=")
        if item in NAMES:
            source = Source(item)
        elif "=" in item and not (path and Path(path).is_dir()):
            raise EvaluationError(f"{item}: {path!r} is no folder, use NAME=DIR with image pairs")
        elif Path(path).is_dir() and name not in NAMES:
            source = Source(name or Path(path).resolve().name, Path(path))
        else:
            raise EvaluationError(f"unknown generator {item!r}: use {', '.join(NAMES)}, or NAME=DIR with image pairs")
        if source.name in (other.name for other in sources):
            raise EvaluationError(f"generator {source.name!r} is named twice: give the folder a name, as NAME=DIR")
        sources.append(source)
    if not sources:
        raise EvaluationError(f"no generator named: use {', '.join(NAMES)}, or NAME=DIR with image pairs")
    return sources


def pairs_from(
    source: Source, category: Category, item: str, ours: Callable[[], list[Pair]], count: int, seed: int
) -> list[Pair]:
    """The training pairs of a source for a category, ``count`` of them where it makes them itself.

    item: what the photos show. ours: gives the pairs of ``local``, which ``shuffled`` is made of. Deterministic in the
    arguments. Raises EvaluationError.
    """
    rng = np.random.default_rng([seed, 0])
    folder = pair_folder(source, category.name)
    if folder:
        return with_defect(read_pairs(folder), source)
    if source.name == "oracle":
        return with_defect(category.shown, source)
    if source.name == "local":
        return ours()
    if source.name == "shuffled":
        return shuffle(ours(), rng)
    few = [pair for kind in category.kinds for pair in [p for p in category.shown if p.kind == kind][:SHOTS]]
    if source.name == "transplant":
        return transplant_pairs(category.normals, item, with_defect(few, source), count, rng)
    generate = from_defects(with_defect(few, source)) if source.name == "croppaste" else BASELINES[source.name]
    return [Pair(*generate(category.normals, rng), kind=source.name) for _ in range(count)]


def pair_folder(source: Source, category: str) -> Path | None:
    """Where the pairs of a source for a category are read from; None where it makes them itself.

    Raises EvaluationError where they lie one or two levels deeper, as ``--export`` writes GENERATOR/seed_N/CATEGORY.
    """
    if source.folder is None:
        return None
    if (source.folder / category).is_dir():
        return source.folder / category
    for above in sorted((*source.folder.glob("*"), *source.folder.glob("*/*"))):
        if any((above / category).glob("*/image")):
            raise EvaluationError(f"{source.folder} holds no {category}, but {above} does: use {source.name}={above}")
    return source.folder


def with_defect(pairs: Sequence[Pair], source: Source) -> list[Pair]:
    """The pairs whose mask is not empty. Raises EvaluationError where none is left."""
    kept = [pair for pair in pairs if pair.mask.any()]
    if not kept:
        raise EvaluationError(f"{source.folder or source.name}: every mask is empty, nothing can be learned")
    return kept


def shuffle(pairs: Sequence[Pair], rng: np.random.Generator) -> list[Pair]:
    """Every image with the mask of another pair, none with its own; needs two pairs at least."""
    order = rng.permutation(len(pairs))
    other = np.roll(order, 1)
    return [
        Pair(pairs[a].image, _fitted(pairs[b].mask, pairs[a].mask), pairs[a].kind)
        for a, b in zip(order, other, strict=True)
    ]


def _fitted(mask: Mask, like: Mask) -> Mask:
    size = (like.shape[1], like.shape[0])
    return np.asarray(cv2.resize(mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST) > 0)
