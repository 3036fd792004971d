"""The curves of a training, as one PNG, from the trainer's own history of logged figures."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

History: TypeAlias = Sequence[dict[str, Any]]
"""Logged figures, each with its "step"."""
COLUMNS = 3
DASHES: Sequence[Any] = ("-", (0, (4, 1.5)), (0, (1.5, 1.5)), (0, (6, 2, 1, 2)))
"""How the curves of a panel are drawn, the first one whole, so that curves that coincide are all seen."""
SPIKE = 4.0
"""How far above the usual a value has to be to leave the scale."""


@dataclass(frozen=True, slots=True)
class Panel:
    """One set of axes: its title, the label of each figure, and the upper end of its scale, None to fit.

    ``percentile`` (0-100): where the greatest value is over ``SPIKE`` times this percentile, the scale ends shortly
    above it, so that a spike does not flatten the rest.
    """

    title: str
    curves: Mapping[str, str]
    top: float | None = None
    percentile: float | None = None

    def limit(self, values: Sequence[float]) -> float | None:
        """The upper end of the scale for these values, None to fit."""
        finite = [value for value in values if math.isfinite(value)]
        if self.percentile is None or not finite:
            return self.top
        usual = float(np.percentile(finite, self.percentile, method="lower"))
        return 1.1 * usual if 0 < SPIKE * usual < max(finite) else self.top


PANELS = (
    Panel("loss", {"loss": "training", "eval_loss": "held out"}),
    Panel("token accuracy", {"mean_token_accuracy": "training", "eval_mean_token_accuracy": "held out"}, 1.02),
    Panel("held-out episodes", {"eval_valid_share": "valid", "eval_answered_share": "answered"}, 1.02),
)


def points(history: History, name: str) -> tuple[list[int], list[float]]:
    """Steps and values of one figure, in order; where a figure was not known (None) it has no point."""
    found = [(int(entry["step"]), float(entry[name])) for entry in history if entry.get(name) is not None]
    return [step for step, _ in found], [value for _, value in found]


def plot(history: History, path: Path, panels: Sequence[Panel] = PANELS) -> None:
    """Draw the curves that the history holds; panels without a point are left out. Raises OSError."""
    from matplotlib.figure import Figure

    shown = [panel for panel in panels if any(points(history, name)[0] for name in panel.curves)]
    if not shown:
        return
    columns = min(COLUMNS, len(shown))
    rows = -(-len(shown) // columns)
    figure = Figure(figsize=(4.2 * columns, 3.2 * rows), dpi=110, layout="constrained")
    for place, panel in enumerate(shown, 1):
        axes = figure.add_subplot(rows, columns, place)
        for (name, label), dashes in zip(panel.curves.items(), itertools.cycle(DASHES), strict=False):
            steps, values = points(history, name)
            if steps:
                marker = "o" if len(steps) < 20 else None
                axes.plot(steps, values, label=label, linestyle=dashes, marker=marker, markersize=3)
        axes.set(title=panel.title, xlabel="step")
        values = [value for name in panel.curves for value in points(history, name)[1]]
        limit = panel.limit(values)
        if all(value >= 0 for value in values):
            axes.set_ylim(bottom=0, top=limit)
        elif panel.percentile is not None and limit is not None:
            axes.set_ylim(top=limit)
        axes.grid(alpha=0.3)
        axes.legend(frameon=False)
    figure.savefig(path)
