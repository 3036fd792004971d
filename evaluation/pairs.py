"""Real pairs to judge tools by: a photo of a real defect, and its good twin made by painting the defect over.

``masks`` and ``judge`` share what is here: which photos, which half of them, and the options that say so. Nothing is
trained, so all of ``test`` is used; ``--half`` keeps apart photos that something was tuned on.
"""

from __future__ import annotations

import argparse
import sys
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from evaluation.data import Image, Mask, Pair, choose, images_in, read_image, read_pairs
from evaluation.errors import EvaluationError

RADIUS = 5
"""Neighbourhood of the inpainting in px."""
HALVES = ("even", "odd", "all")


@dataclass(frozen=True, slots=True)
class RealPair:
    """A good photo and the same photo with a real defect, both (H, W, 3), and the defect's true mask (H, W).

    ``normal`` and ``anomaly`` differ nowhere outside the mask that was inpainted. ``index`` counts within the kind.
    """

    category: str
    kind: str
    index: int
    normal: Image
    anomaly: Image
    mask: Mask

    @property
    def name(self) -> str:
        """``CATEGORY/KIND INDEX``."""
        return f"{self.category}/{self.kind} {self.index}"


@dataclass(frozen=True, slots=True)
class Choice:
    """Which photos: of each kind the first ``limit`` (0: all), of those every second one, or all.

    ``dilate``: px by which the true mask is widened before it is painted over.
    """

    half: str = "all"
    limit: int = 0
    dilate: int = 0

    def described(self) -> dict[str, Any]:
        """The choice in words and as plain data, for a report."""
        return {"photos": str(self), "half": self.half, "limit": self.limit, "dilate": self.dilate}

    def __str__(self) -> str:
        """In words, for a report."""
        of = f"the first {self.limit} of each kind" if self.limit else "each kind"
        return f"all of {of}" if self.half == "all" else f"every second of {of} ({self.half})"

    def indices(self, count: int) -> list[int]:
        """The chosen ones of ``count`` photos of a kind."""
        first = 1 if self.half == "odd" else 0
        return list(range(min(count, self.limit or count)))[first :: 1 if self.half == "all" else 2]


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options that ``masks`` and ``judge`` share."""
    add_choice(parser)
    parser.add_argument("--out", type=Path, metavar="DIR", help="write the table, a plot and contact sheets there")
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")


def add_choice(parser: argparse.ArgumentParser) -> None:
    """The options that say which pairs."""
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="real photos in MVTec layout")
    parser.add_argument("--category", action="append", default=[], metavar="NAME", help="only this one (repeatable)")
    parser.add_argument("--half", choices=HALVES, default="all", help="every second photo of a kind (default: all)")
    parser.add_argument("--limit", type=int, default=20, metavar="N", help="first N of a kind, 0 for all (default 20)")
    parser.add_argument("--dilate", type=int, default=0, metavar="PX", help="widen the masks before painting them over")


def choice_of(options: argparse.Namespace) -> Choice:
    """What the shared options choose. Raises EvaluationError."""
    for name in ("limit", "dilate"):
        if getattr(options, name) < 0:
            raise EvaluationError(f"--{name} {getattr(options, name)} is too small: 0 at least")
    return Choice(options.half, options.limit, options.dilate)


def find_masked(data: Path, wanted: list[str]) -> list[Path]:
    """The category folders of ``data`` that hold masks, or the wanted ones. Raises EvaluationError."""
    if not data.is_dir():
        raise EvaluationError(f"{data} is no folder: name one in MVTec layout (CATEGORY/test, CATEGORY/ground_truth)")
    present = sorted(path.parent for path in data.glob("*/ground_truth") if path.is_dir())
    if not present:
        if (data / "ground_truth").is_dir():
            raise EvaluationError(f"{data} is a category itself: did you mean its parent, {data.resolve().parent}?")
        raise EvaluationError(f"{data} holds no masks: put them in CATEGORY/ground_truth/KIND/NAME_mask.png")
    return choose(present, wanted, f"{data} holds no masks of")


def real_pairs(folder: Path, choice: Choice) -> Iterator[RealPair]:
    """The chosen pairs of a category, by kind and file name. Raises EvaluationError where there are none."""
    kinds: dict[str, list[Pair]] = {}
    for pair in read_pairs(folder):
        if min(pair.mask.shape) >= 32:
            kinds.setdefault(pair.kind, []).append(pair)
    chosen = [(kind, i, pairs[i]) for kind, pairs in kinds.items() for i in choice.indices(len(pairs))]
    if not chosen:
        raise EvaluationError(f"{folder} holds no defect to choose: give photos of 32 px at least, or another --half")
    for kind, index, pair in chosen:
        normal = paint_over(pair.image, pair.mask, choice.dilate)
        yield RealPair(folder.name, kind, index, normal, pair.image, pair.mask)


def good_photos(folder: Path, choice: Choice) -> Iterator[tuple[int, Image]]:
    """The chosen photos of ``test/good`` with their numbers; none where there is no such folder."""
    paths = images_in(folder / "test" / "good")
    for index in choice.indices(len(paths)):
        yield index, read_image(paths[index])


def paint_over(image: Image, mask: Mask, dilate: int = 0) -> Image:
    """The photo (H, W, 3) with the mask (H, W), widened by ``dilate`` px, inpainted (Telea, 2004) from its border."""
    area = mask.astype(np.uint8)
    if dilate:
        area = cv2.dilate(area, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * dilate + 1, 2 * dilate + 1)))
    return np.asarray(cv2.inpaint(image, area, RADIUS, cv2.INPAINT_TELEA), np.uint8)


def seeded(*words: object) -> np.random.Generator:
    """A generator that is the same for the same words, whatever else is measured."""
    return np.random.default_rng(zlib.crc32("/".join(map(str, words)).encode()))


def say(line: str) -> None:
    """Progress, for people: to stderr."""
    sys.stderr.write(line + "\n")
    sys.stderr.flush()
