"""What the commands ``masks`` and ``judge`` do around their measuring: check first, sum up, write, print."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from evaluation.folders import prepare
from evaluation.pairs import Choice, choice_of, find_masked, say
from evaluation.sheets import require_plots

T = TypeVar("T")


def report(
    options: argparse.Namespace,
    measure: Callable[[Sequence[Path], Choice, Callable[[str], None]], T],
    summarise: Callable[[T], dict[str, Any]],
    to_markdown: Callable[[dict[str, Any]], str],
    write: Callable[[Path, str, str, dict[str, Any], T], None],
) -> str:
    """Measure, write what was asked for, and return what is printed. Raises EvaluationError.

    write: given the folder, the JSON text, the table, the summary and what was measured.
    """
    choice = choice_of(options)
    require_plots(options.out)
    folders = find_masked(options.data, options.category)
    prepare("--out", options.out)
    measured = measure(folders, choice, say)
    summary = {**choice.described(), **summarise(measured)}
    text, table = json.dumps(summary, indent=2) + "\n", to_markdown(summary)
    if options.out:
        write(options.out, text, table, summary, measured)
    return text if options.json else table
