"""The curves of a training, as one PNG, from the trainer's own history of logged figures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

History: TypeAlias = Sequence[dict[str, Any]]
"""Logged figures, each with its "step"."""

PANELS = (
    ("loss", (("loss", "training"), ("eval_loss", "held out"))),
    ("token accuracy", (("mean_token_accuracy", "training"), ("eval_mean_token_accuracy", "held out"))),
    ("held-out episodes", (("eval_valid_share", "valid"), ("eval_answered_share", "answered"))),
)


def points(history: History, name: str) -> tuple[list[int], list[float]]:
    """Steps and values of one figure, in order."""
    found = [(int(entry["step"]), float(entry[name])) for entry in history if name in entry]
    return [step for step, _ in found], [value for _, value in found]


def plot(history: History, path: Path, panels: Any = PANELS) -> None:
    """Draw the curves that the history holds; panels without a point are left out. Raises OSError."""
    from matplotlib.figure import Figure

    shown = [panel for panel in panels if any(points(history, name)[0] for name, _ in panel[1])]
    if not shown:
        return
    figure = Figure(figsize=(4.2 * len(shown), 3.2), dpi=110, layout="constrained")
    for place, (title, curves) in enumerate(shown, 1):
        axes = figure.add_subplot(1, len(shown), place)
        for name, label in curves:
            steps, values = points(history, name)
            if steps:
                axes.plot(steps, values, label=label, marker="o" if len(steps) < 20 else None, markersize=3)
        axes.set(title=title, xlabel="step")
        axes.set_ylim(bottom=0, top=None if title == "loss" else 1.02)
        axes.grid(alpha=0.3)
        axes.legend(frameon=False)
    figure.savefig(path)
