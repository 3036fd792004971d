"""The command ``judge``: verdicts of ``judge.py`` summed up as JSON, a Markdown table, a plot and contact sheets."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from evaluation.broken import KINDS
from evaluation.judge import JUDGES, REAL, Judged, Judgements, measure
from evaluation.metrics import auroc
from evaluation.pairs import add_options
from evaluation.reporting import report
from evaluation.sheets import bars, write_sheet


def add_parser(commands: Any) -> None:
    """Register the command with argparse's sub-parsers."""
    parser = commands.add_parser("judge", help="measure how well quality_eval tells real defects from broken edits")
    add_options(parser)
    parser.add_argument(
        "--judge", choices=list(JUDGES), default="local", help="backend of quality_eval (default local)"
    )
    parser.add_argument(
        "--paint-broken",
        action="store_true",
        help="paint the good photos of broken edits over too, so that what painting leaves cannot tell them apart",
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> str:
    """Measure, write what was asked for, and return what is printed. Raises EvaluationError."""
    judge = partial(measure, judge=options.judge, paint_broken=options.paint_broken)
    return report(options, judge, partial(summarise, judge=options.judge), to_markdown, write_report)


def summarise(judged: Judgements, judge: str = "local") -> dict[str, Any]:
    """Plain data over all photos, each counting the same, and the same for each category.

    ``auc``: chance that a real defect scores above a broken edit, ties half; ``by_kind``: against one kind of broken
    edit only, None where none could be made; ``real_pass`` and ``broken_pass``: shares above the default threshold.
    """
    names = dict.fromkeys(v.category for v in judged.verdicts)
    return {
        "judge": judge,
        **figures(judged.verdicts),
        "seconds_per_image": round(fmean(judged.seconds), 4),
        "categories": {name: figures([v for v in judged.verdicts if v.category == name]) for name in names},
    }


def figures(verdicts: Sequence[Judged]) -> dict[str, Any]:
    """Figures of some verdicts, at least one of a real defect and one of a broken edit."""
    real, broken = [v for v in verdicts if v.edit == REAL], [v for v in verdicts if v.edit != REAL]
    by_kind = {name: [v for v in broken if v.edit == name] for name in KINDS}
    defects = dict.fromkeys(v.kind for v in real)
    return {
        "auc": auc(real, broken),
        "by_kind": {name: auc(real, found) if found else None for name, found in by_kind.items()},
        "real_pass": passed(real),
        "broken_pass": passed(broken),
        "broken_pass_by_kind": {name: passed(found) if found else None for name, found in by_kind.items()},
        "real_pass_by_defect": {f: passed([v for v in real if v.kind == f]) for f in defects},
        "real": len(real),
        "broken": len(broken),
    }


def auc(real: Sequence[Judged], broken: Sequence[Judged]) -> float:
    """Area under the ROC curve of the scores."""
    scores = np.array([v.score for v in (*real, *broken)])
    return round(auroc(scores, np.arange(len(scores)) < len(real)), 4)


def passed(verdicts: Sequence[Judged]) -> float:
    """Share in [0, 1] that passed."""
    return round(fmean(v.passed for v in verdicts), 4)


def to_markdown(summary: dict[str, Any]) -> str:
    """AUC overall and for each kind of broken edit, and what passes, by category."""
    lines = [f"# Real defects against broken edits, judge {summary['judge']}: AUC x 100", ""]
    lines.append(f"Photos: {summary['photos']}; masks widened by {summary['dilate']} px before painting over.")
    lines += ["", "| category | all | " + " | ".join(KINDS) + " | real pass, % | broken pass, % |"]
    lines.append("|---" * (len(KINDS) + 4) + "|")
    rows = {**summary["categories"], "**all**": summary}
    for name, row in rows.items():
        shares = [row["auc"], *row["by_kind"].values(), row["real_pass"], row["broken_pass"]]
        lines.append(f"| {name} | " + " | ".join("-" if s is None else f"{100 * s:.1f}" for s in shares) + " |")
    return "\n".join(lines) + "\n"


def write_report(folder: Path, text: str, table: str, summary: dict[str, Any], judged: Judgements) -> None:
    """``judge.json``, ``judge.md``, ``judge.png`` and a contact sheet of each category, with scores."""
    (folder / "judge.json").write_text(text, encoding="utf-8")
    (folder / "judge.md").write_text(table, encoding="utf-8")
    rows = {**summary["categories"], "all": summary}
    shown = {
        n: {"AUC": r["auc"], "real pass": r["real_pass"], "broken pass": r["broken_pass"]} for n, r in rows.items()
    }
    bars(folder / "judge.png", shown, "share")
    for name, tiles in judged.tiles.items():
        write_sheet(folder / f"judge-{name}.png", tiles, len(KINDS) + 1)
