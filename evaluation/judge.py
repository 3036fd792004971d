"""``python -m evaluation judge``: does the judge tell real defects from broken edits?

Real defects against their painted-over twins (``pairs.py``), and broken edits of the same twins (``broken.py``), scored
by quality_eval's local backend as users call it: folder names as item and type, the profile from the knowledge base.
``judge_report.py`` is the command and sums up.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from evaluation.broken import KINDS, break_photo, find_object
from evaluation.data import Image, images_in, read_image
from evaluation.pairs import Choice, real_pairs, seeded
from evaluation.sheets import fit, tile
from mcp_servers.knowledge.catalogue import UnknownAnomalyType, profile_for
from mcp_servers.knowledge.families import DefectProfile
from mcp_servers.quality_eval.local import evaluate

REAL = "real"
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


def measure(folders: Sequence[Path], choice: Choice, say: Callable[[str], None]) -> Judgements:
    """Judge every chosen pair of the categories, and its broken edits. Raises EvaluationError."""
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
                start = time.perf_counter()
                verdict = evaluate(pair.normal, photo, pair.category, pair.kind, profile)
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
