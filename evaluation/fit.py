"""``python -m evaluation fit``: fit quality_eval's judge ``statistics`` to real defects against broken edits.

Two logistic regressions, one of place and one of look, over the squared distances of figures from what real defects
have. Each category, and in it each kind of edit, weighs the same. Every broken edit is shown twice, the second time
with its good photo painted over where it differs, as the good photos of the real defects are: what painting leaves
behind cannot tell them apart. The result is a module of constants, and how well the figures carry over to a category
that was not fitted to.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from evaluation.broken import KINDS, break_photo, find_object
from evaluation.data import Image
from evaluation.errors import EvaluationError
from evaluation.judge import PAINTABLE, REAL, stranger, twin_of
from evaluation.metrics import auroc
from evaluation.pairs import Choice, RealPair, add_choice, choice_of, find_masked, real_pairs, say, seeded
from evaluation.shaped import shaped_edits
from mcp_servers.quality_eval.statistics.features import measure
from mcp_servers.quality_eval.statistics.regression import CLIP, Head, Term, share

Floats = NDArray[np.float64]

MISPLACED = ("off_object", "floating", "huge", "moved_off")
"""Kinds of edits that show the regression of place what is wrong; the others show it to the regression of look."""
BOTH = ("huge",)
"""Kinds that show it to both."""
RIDGE = 3.0
STEPS = 200
LEAST_SPREAD = 1e-3
USUAL = {"beyond": (0.0, 0.2), "depth": (0.15, 0.1), "log_area": (-4.5, 2.0), "log_length": (-1.2, 1.0)}
"""Centre and spread of the figures of place: set, since few categories show a ground and painting hides outlines."""
TYPICAL, WEAK = 0.9, 0.7
"""Share of a score's 5 points that the middle real defect gets, and the one that nine of ten surpass."""
DRAWN = ("pcb_deeppcb",)
"""Categories on which a flat filling is what real defects look like: two grey levels."""
TARGET = Path(__file__).resolve().parents[1] / "mcp_servers" / "quality_eval" / "statistics" / "weights.py"


@dataclass(frozen=True, slots=True)
class Example:
    """One edit with its figures."""

    category: str
    edit: str
    place: dict[str, float]
    look: dict[str, float]


def add_parser(commands: Any) -> None:
    """Register the command with argparse's sub-parsers."""
    parser = commands.add_parser("fit", help="fit quality_eval's judge 'statistics' to real defects")
    add_choice(parser)
    parser.add_argument(
        "--out", type=Path, default=TARGET, metavar="FILE", help="module to write (default: the judge's)"
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> str:
    """Fit, write the module, and return what is printed. Raises EvaluationError."""
    choice = choice_of(options)
    found = [example for folder in find_masked(options.data, options.category) for example in examples(folder, choice)]
    real = sum(example.edit == REAL for example in found)
    text = module(fit(found, "place"), fit(found, "look"))
    try:
        options.out.write_text(text, encoding="utf-8")
    except OSError as error:
        raise EvaluationError(
            f"--out {options.out} cannot be written to ({error.strerror}): name another file"
        ) from error
    lines = [f"{options.out}: fitted to {real} real defects and {len(found) - real} broken edits"]
    lines += ["AUC x 100 over the examples of each category, fitted without it:"]
    for category, value in left_out(found).items():
        lines.append(f"  {category}: {'-' if value is None else f'{100 * value:.1f}'}")
    return "\n".join(lines) + "\n"


def examples(folder: Path, choice: Choice) -> Iterator[Example]:
    """Every chosen real defect of a category and its broken edits, where anything is seen of them."""
    other, count = stranger(folder), 0
    for pair in real_pairs(folder, choice):
        for edit, normal, photo in edits_of(pair, other):
            figures = measure(normal, photo)
            if figures.place is not None and figures.look is not None:
                count += 1
                yield Example(pair.category, edit, figures.place, figures.look)
    say(f"{folder.name}: {count} examples")


def edits_of(pair: RealPair, other: Image) -> Iterator[tuple[str, Image, Image]]:
    """Kind, good photo and edited photo: the real defect, and every broken edit that can be made of its twin."""
    part = find_object(pair.normal)
    yield REAL, pair.normal, pair.anomaly
    for name in KINDS:
        broken = break_photo(name, pair.normal, part, other, seeded(pair.category, pair.kind, pair.index, name))
        if broken is None:
            continue
        yield name, pair.normal, broken
        if name in PAINTABLE:
            yield name, twin_of(pair.normal, broken), broken
    shaped = shaped_edits(pair, part, other, seeded(pair.category, pair.kind, pair.index, "shaped"))
    for name, photo in shaped.items():
        if pair.category not in DRAWN or name in ("faint_defect", "moved_off"):
            yield name, pair.normal, photo


def fit(found: Sequence[Example], name: Literal["place", "look"]) -> Head:
    """One regression, scaled so that scores spread over real defects. Raises EvaluationError where a side is empty."""
    used = [e for e in found if e.edit == REAL or e.edit in BOTH or (e.edit in MISPLACED) == (name == "place")]
    truth = np.array([e.edit == REAL for e in used], bool)
    if not truth.any() or truth.all():
        raise EvaluationError(f"{name}: nothing to tell apart: give categories with real defects that can be seen")
    rows = [e.place if name == "place" else e.look for e in used]
    names = list(rows[0])
    values = np.array([[row[n] for n in names] for row in rows])
    scales = [USUAL.get(n, (np.median(column), column.std() + LEAST_SPREAD))
              for n, column in zip(names, values[truth].T, strict=True)]  # fmt: skip
    centre, spread = np.array(scales, np.float64).round(4).T
    standard = np.clip((values - centre) / spread, -CLIP, CLIP)
    squares = [np.maximum(standard, 0) ** 2, np.minimum(standard, 0) ** 2]
    design = np.hstack([*squares, np.ones((len(used), 1))])
    weights = newton(design, truth.astype(np.float64), importance(used, truth))
    odds = design[truth] @ weights
    high, low = np.log(TYPICAL / (1 - TYPICAL)), np.log(WEAK / (1 - WEAK))
    weak = float(np.percentile(odds, 10))
    unit = max(1e-6, (float(np.median(odds)) - weak) / (high - low))
    above, below = np.minimum(0.0, (weights[:-1] / unit).round(4)).reshape(2, len(names))
    terms = zip(names, centre, spread, above, below, strict=True)
    offset = round(float((weights[-1] - weak) / unit + low), 4)
    return Head(offset, {n: Term(*(float(value) for value in scale)) for n, *scale in terms})


def left_out(found: Sequence[Example]) -> dict[str, float | None]:
    """Area under the ROC curve over each category's examples, by regressions fitted without it.

    None where the other categories, or its own, have only one side.
    """
    out: dict[str, float | None] = {}
    for category in dict.fromkeys(example.category for example in found):
        others, own = ([e for e in found if (e.category == category) == mine] for mine in (False, True))
        truth = np.array([e.edit == REAL for e in own], bool)
        try:
            place, look = fit(others, "place"), fit(others, "look")
        except EvaluationError:
            out[category] = None
            continue
        scores = np.array([share(place.log_odds(e.place)) + share(look.log_odds(e.look)) for e in own])
        out[category] = None if truth.all() or not truth.any() else auroc(scores, truth)
    return out


def importance(used: Sequence[Example], truth: NDArray[np.bool_]) -> Floats:
    """(N,) weights: each category and kind of edit the same, real and broken the same, N in all."""
    sizes = Counter((e.category, e.edit) for e in used)
    weights = np.array([1 / sizes[e.category, e.edit] for e in used])
    for side in (truth, ~truth):
        weights[side] *= len(used) / 2 / weights[side].sum()
    return weights


def newton(design: Floats, truth: Floats, importance: Floats) -> Floats:
    """Weights (D,) of a logistic regression over ``design`` (N, D), all 0 or less but the last, the offset.

    Projected Newton steps (Bertsekas, 1982) with a ridge on all but the offset.
    """
    weights = np.zeros(design.shape[1])
    bound = np.arange(len(weights)) < len(weights) - 1
    ridge = np.where(bound, RIDGE, 1e-6)
    for number in range(STEPS):
        chance = 1 / (1 + np.exp(-np.clip(design @ weights, -30, 30)))
        slope = design.T @ (importance * (chance - truth)) + ridge * weights
        bend = (design * (importance * chance * (1 - chance))[:, None]).T @ design + np.diag(ridge)
        free = ~(bound & (weights >= 0) & (slope < 0))
        step = np.zeros_like(weights)
        step[free] = np.linalg.solve(bend[np.ix_(free, free)], slope[free])
        after = weights - (step if number < STEPS // 4 else step / 2)
        after[bound] = np.minimum(after[bound], 0)
        moved, weights = float(np.abs(after - weights).max()), after
        if moved < 1e-8:
            break
    return np.asarray(weights, np.float64)


def module(place: Head, look: Head) -> str:
    """The constants as a module."""
    lines = [
        '"""Weights of the two regressions, written by ``python -m evaluation fit``; not to be edited by hand."""',
        "",
    ]
    lines += ["from mcp_servers.quality_eval.statistics.regression import Head, Term"]
    for name, head in (("PLACE", place), ("LOOK", look)):
        lines += ["", f"{name} = Head(", f"    offset={head.offset},", "    terms={"]
        for figure, term in head.terms.items():
            lines.append(f'        "{figure}": Term({term.centre}, {term.spread}, {term.above}, {term.below}),')
        lines += ["    },", ")"]
    return "\n".join(lines) + "\n"
