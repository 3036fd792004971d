"""``python -m evaluation compare --data DIR``: what is synthetic defect data worth to a detector?

``masks`` and ``judge`` measure two of the tools on real defects (masks_report.py, judge_report.py), and ``fit`` fits a
judge to them (fit.py).

Progress goes to stderr, the result to stdout. Exit code 0 where it was measured, 2 for input that cannot be used.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from itertools import product
from pathlib import Path
from typing import Any, Literal

import cv2

from evaluation import fit, judge_report, masks_report
from evaluation.cells import Cell, CellStore
from evaluation.compare import Settings, compare
from evaluation.data import choose, find_categories
from evaluation.errors import EvaluationError
from evaluation.folders import prepare
from evaluation.generators import NAMES, parse_sources
from evaluation.pictures import contact_sheet, plot
from evaluation.report import summarise, to_markdown

PRESETS = ("tiny", "fast", "paper")


def parser_of() -> argparse.ArgumentParser:
    """The command's options."""
    parser = argparse.ArgumentParser(prog="python -m evaluation", description="Measure synthetic defect data.")
    commands = parser.add_subparsers(dest="command", required=True)
    add = commands.add_parser("compare", help="train a detector on each generator's pairs, test it on real defects")
    add.add_argument("--data", type=Path, required=True, metavar="DIR", help="real photos in MVTec layout")
    add.add_argument(
        "--generators",
        default=",".join(NAMES),
        metavar="NAMES",
        help=f"comma-separated: {', '.join(NAMES)}, or NAME=DIR with image pairs (default: all)",
    )
    add.add_argument("--category", action="append", default=[], metavar="NAME", help="only this one (repeatable)")
    add.add_argument("--item", action="append", default=[], metavar="CATEGORY=WORDS", help="what its photos show")
    add.add_argument("--preset", choices=PRESETS, default="fast", help="size and training of the detector")
    add.add_argument("--seeds", type=int, default=3)
    add.add_argument("--pairs", type=int, default=200, help="pairs that a generator makes (default 200)")
    add.add_argument("--bfloat16", action="store_true", help="mixed precision: faster where the processor has it")
    add.add_argument(
        "--select-on-test",
        action="store_true",
        help="keep the epoch that is best on the test set, as published code does: it leaks, for comparison only",
    )
    add.add_argument("--out", type=Path, metavar="DIR", help="write table, plot, samples and every cell there")
    add.add_argument("--resume", action="store_true", help="take up the cells that --out holds already")
    add.add_argument("--export", type=Path, metavar="DIR", help="write the pairs that were trained on there")
    add.add_argument("--json", action="store_true", help="print JSON instead of the table")
    add.set_defaults(run=run_compare)
    masks_report.add_parser(commands)
    judge_report.add_parser(commands)
    fit.add_parser(commands)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    options = parser_of().parse_args(argv)
    try:
        print(options.run(options), end="")
    except EvaluationError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def run_compare(options: argparse.Namespace) -> str:
    """Measure, write what was asked for, and return what is printed. Raises EvaluationError."""
    for module in ("torch", *(["matplotlib"] if options.out else [])):
        if importlib.util.find_spec(module) is None:
            raise EvaluationError(f"{module} is not installed: pip install 'anomaly-agent[evaluation]'")
    for name, least in (("seeds", 1), ("pairs", 2)):
        if getattr(options, name) < least:
            raise EvaluationError(f"--{name} {getattr(options, name)} is too small: {least} at least")
    if options.resume and not options.out:
        raise EvaluationError("--resume takes up what --out holds: name that folder")
    settings = Settings(
        options.preset, options.pairs, options.bfloat16, options.select_on_test, read_items(options.item)
    )
    folders, sources = find_categories(options.data, options.category), parse_sources(options.generators)
    choose(find_categories(options.data, []), list(settings.items), "--item: there is no category")
    prepare("--out", options.out)
    prepare("--export", options.export)
    store = CellStore(options.out / "cells" if options.out else None, asdict(settings), options.resume)
    cells = compare(
        folders,
        sources,
        settings,
        options.seeds,
        store,
        options.export,
        lambda line: print(line, file=sys.stderr, flush=True),
    )
    summary = {"settings": {**asdict(settings), "seeds": options.seeds}, **summarise(cells)}
    table = to_markdown(summary)
    text = json.dumps(summary, indent=2) + "\n"
    if options.out:
        write_report(options.out, text, table, summary, cells, store)
    return text if options.json else table


def read_items(texts: Sequence[str]) -> dict[str, str]:
    """Read CATEGORY=WORDS. Raises EvaluationError."""
    items = dict(text.partition("=")[::2] for text in texts)
    if not all(name and words.strip() for name, words in items.items()):
        raise EvaluationError("--item takes CATEGORY=WORDS, for example --item hazelnut_toy='peeled nut'")
    return items


def write_report(
    folder: Path, text: str, table: str, summary: dict[str, Any], cells: Sequence[Cell], store: CellStore
) -> None:
    """``compare.json``, ``compare.md``, ``compare.png`` and sheets of samples and of predictions for each category."""
    (folder / "compare.json").write_text(text, encoding="utf-8")
    (folder / "compare.md").write_text(table, encoding="utf-8")
    plot(summary, folder / "compare.png")
    whats: tuple[Literal["samples", "predictions"], ...] = ("samples", "predictions")
    for category, what in product(summary["categories"], whats):
        names = dict.fromkeys(cell.generator for cell in cells if cell.category == category)
        strips = {name: found for name in names if (found := store.strip(category, name, what)) is not None}
        if strips:
            cv2.imwrite(str(folder / f"{what}-{category}.png"), contact_sheet(strips)[:, :, ::-1])


if __name__ == "__main__":
    sys.exit(main())
