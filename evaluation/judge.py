"""``python -m evaluation judge``: does the judge tell real defects from broken edits?

Real defects against their painted-over twins (``pairs.py``), and broken edits of the same twins (``broken.py``), scored
by one of quality_eval's backends without a model as users call it: folder names as item and type, the profile from the
knowledge base. ``judge_report.py`` is the command and sums up.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np

from evaluation.broken import KINDS, break_photo, find_object
from evaluation.data import Image, images_in, read_image
from evaluation.pairs import Choice, paint_over, real_pairs, seeded
from evaluation.sheets import fit, tile
from mcp_servers.knowledge.catalogue import UnknownAnomalyType, profile_for
from mcp_servers.knowledge.families import DefectProfile
from mcp_servers.quality_eval import statistics
from mcp_servers.quality_eval.local import Verdict, evaluate

Judge: TypeAlias = Callable[[Image, Image, str, str, DefectProfile | None], Verdict]

JUDGES: dict[str, Judge] = {
    "local": evaluate,
    "statistics": lambda normal, anomaly, item, kind, _: statistics.evaluate(normal, anomaly, item, kind),
}
"""Backends of quality_eval without a model."""
REAL = "real"
PAINTABLE = frozenset(KINDS) - {"invisible", "recoloured", "nothing"}
"""Broken edits whose good photo can be painted over like a real defect's; of the others too little or all changed."""
SHOWN = 6
"""Pairs of a category in its contact sheet, each with all its broken edits."""


@dataclass(frozen=True, slots=True)
class Judged:
    """One verdict: ``edit`` is `REAL` or a kind of broken edit, ``kind`` the defect that was asked for."""

    category: str
    kind: str
    edit: str
    score: float
    passed: bool


@dataclass(slots=True)
class Judgements:
    """All verdicts, the seconds that each took, and the tiles of each category's contact sheet."""

    verdicts: list[Judged]
    seconds: list[float]
    tiles: dict[str, list[Image]]


def measure(
    folders: Sequence[Path],
    choice: Choice,
    say: Callable[[str], None],
    judge: str = "local",
    paint_broken: bool = False,
) -> Judgements:
    """Have every chosen pair, and its broken edits, judged by one of `JUDGES`. Raises EvaluationError.

    paint_broken: the good photo of a broken edit is painted over where it differs, as that of a real defect is.
    """
    out = Judgements([], [], {})
    for folder in folders:
        other = stranger(folder)
        tiles = out.tiles.setdefault(folder.name, [])
        for number, pair in enumerate(real_pairs(folder, choice)):
            profile = known_profile(pair.category, pair.kind)
            edits = {REAL: pair.anomaly}
            part = find_object(pair.normal)
            for name in KINDS:
                rng = seeded(pair.category, pair.kind, pair.index, name)
                broken = break_photo(name, pair.normal, part, other, rng)
                if broken is not None:
                    edits[name] = broken
            for name, photo in edits.items():
                normal = twin_of(pair.normal, photo) if paint_broken and name in PAINTABLE else pair.normal
                start = time.perf_counter()
                verdict = JUDGES[judge](normal, photo, pair.category, pair.kind, profile)
                out.seconds.append(time.perf_counter() - start)
                out.verdicts.append(Judged(pair.category, pair.kind, name, verdict.score, verdict.passed))
                if number < SHOWN:
                    tiles.append(tile(f"{name} {verdict.score:.1f}", [fit(photo)]))
            if number < SHOWN:
                tiles += [np.zeros_like(tiles[-1])] * (1 + len(KINDS) - len(edits))
        say(f"{folder.name}: {sum(v.category == folder.name for v in out.verdicts)} verdicts")
    return out


def stranger(folder: Path) -> Image:
    """The first test photo of the category that follows, by name and in a circle, whichever are measured."""
    names = sorted(path.parent.name for path in folder.parent.glob("*/ground_truth"))
    following = folder.parent / names[(names.index(folder.name) + 1) % len(names)]
    photos = [path for kind in sorted((following / "test").iterdir()) for path in images_in(kind)]
    return read_image(photos[0])


def known_profile(item: str, kind: str) -> DefectProfile | None:
    """What the knowledge base says of the defect, or None where it cannot place it."""
    try:
        return profile_for(item, kind)
    except UnknownAnomalyType:
        return None


def twin_of(normal: Image, edited: Image) -> Image:
    """The edited photo painted over where it differs from the good one: the good photo that a real pair would have."""
    return paint_over(edited, np.asarray((normal != edited).any(axis=2)))
