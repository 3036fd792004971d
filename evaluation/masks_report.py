"""The command ``masks``: figures of ``masks.py`` summed up as JSON, a Markdown table, a plot and contact sheets."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from evaluation.conditions import CONDITIONS
from evaluation.masks import BASELINES, Alarm, Hit, Measured, measure
from evaluation.pairs import add_options
from evaluation.reporting import report
from evaluation.sheets import bars, write_sheet

METHODS = ("ours", *BASELINES)
COLUMNS = 3
"""Tiles beside each other in a contact sheet."""


def add_parser(commands: Any) -> None:
    """Register the command with argparse's sub-parsers."""
    parser = commands.add_parser("masks", help="measure how well mask_gen outlines real defects")
    add_options(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> str:
    """Measure, write what was asked for, and return what is printed. Raises EvaluationError."""
    return report(options, measure, summarise, to_markdown, write_report)


def summarise(measured: Measured) -> dict[str, Any]:
    """Plain data: means over the photos of each category, and over categories, each counting the same.

    ``false_area`` and ``said_nothing`` are shares in [0, 1], over the redrawn good photos (None without any).
    """
    table = {}
    for name, seconds in measured.seconds.items():
        hits = [hit for hit in measured.hits if hit.category == name]
        table[name] = {
            **_figures(hits, [alarm for alarm in measured.alarms if alarm.category == name]),
            "pairs": len(hits) // len(METHODS) // len(CONDITIONS),
            "seconds_per_image": round(fmean(seconds), 4),
        }
    return {**_mean(list(table.values())), "categories": table}


def to_markdown(summary: dict[str, Any]) -> str:
    """IoU and F1 of each method, recall of the visible change by ours, and what was found where nothing is."""
    head = [f"{c} {m}" for c in CONDITIONS for m in METHODS]
    lines = ["# Masks from two photos: mean IoU x 100", ""]
    lines.append(f"Photos: {summary['photos']}; masks widened by {summary['dilate']} px before painting over.")
    lines.append("In brackets: recall of the visible change. The last row is the mean over categories.")
    lines += ["", f"| category | {' | '.join(head)} |", "|---" * (len(head) + 1) + "|"]
    rows = {**summary["categories"], "**mean**": summary}
    for name, row in rows.items():
        cells = []
        for condition in CONDITIONS:
            for method in METHODS:
                f = row["conditions"][condition][method]
                cells.append(f"{100 * f['iou']:.1f} ({100 * f['visible_recall']:.0f})")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    lines += ["", "| category | false area, % | said nothing, % | ms a photo |", "|---|---|---|---|"]
    for name, row in rows.items():
        free = row["defect_free"]
        shown = "| - | - " if free["false_area"] is None else (
            f"| {100 * free['false_area']:.3f} | {100 * free['said_nothing']:.1f} ")  # fmt: skip
        lines.append(f"| {name} {shown}| {1000 * row['seconds_per_image']:.0f} |")
    return "\n".join(lines) + "\n"


def write_report(folder: Path, text: str, table: str, summary: dict[str, Any], measured: Measured) -> None:
    """``masks.json``, ``masks.md``, ``masks.png`` and a contact sheet of each category."""
    (folder / "masks.json").write_text(text, encoding="utf-8")
    (folder / "masks.md").write_text(table, encoding="utf-8")
    rows = {**summary["categories"], "mean": summary}
    bars(
        folder / "masks.png",
        {n: {c: r["conditions"][c]["ours"]["iou"] for c in CONDITIONS} for n, r in rows.items()},
        "IoU of mask_gen's local backend",
    )
    for name, tiles in measured.tiles.items():
        write_sheet(folder / f"masks-{name}.png", tiles, COLUMNS)


def _figures(hits: Sequence[Hit], alarms: Sequence[Alarm]) -> dict[str, Any]:
    conditions: dict[str, Any] = {}
    for condition in CONDITIONS:
        conditions[condition] = {}
        for method in METHODS:
            mine = [h for h in hits if (h.condition, h.method) == (condition, method)]
            conditions[condition][method] = {
                "iou": round(fmean(h.iou for h in mine), 4),
                "f1": round(fmean(h.f1 for h in mine), 4),
                "visible_recall": round(fmean(h.recall for h in mine), 4),
            }
    return {
        "conditions": conditions,
        "defect_free": {
            "false_area": round(fmean(a.area for a in alarms), 6) if alarms else None,
            "said_nothing": round(fmean(a.area == 0 for a in alarms), 4) if alarms else None,
        },
    }


def _mean(rows: Sequence[Any]) -> Any:
    """The mean of equally shaped trees of figures; counts are summed, what is None is left out."""
    first = rows[0]
    if isinstance(first, dict):
        return {key: _mean([row[key] for row in rows]) for key in first}
    present = [row for row in rows if row is not None]
    if not present:
        return None
    return sum(present) if isinstance(first, int) else round(fmean(present), 6)
