"""Cells summed up: intervals over seeds, means over categories, which categories have power, who wins; Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, fields
from typing import Any

import numpy as np

from evaluation.baselines import BASELINES
from evaluation.cells import Cell
from evaluation.metrics import Interval, Scores, interval

METRICS = tuple(field.name for field in fields(Scores))
TITLES = {"pixel_auroc": "pixel AUROC", "pixel_ap": "pixel AP", "pixel_f1": "pixel F1-max", "pro": "PRO",
          "image_auroc": "image AUROC"}  # fmt: skip
POWER = 0.05
"""Pixel AP by which real defects must beat the floor for a category to tell generators apart."""


def summarise(cells: Sequence[Cell]) -> dict[str, Any]:
    """Plain data: ``categories``, ``mean`` over all and ``mean_with_power``, ``with_power``, ``verdict``.

    The verdict is over the categories with power, or over all where power is not known (no oracle or floor).
    Every category has every generator and seed. Figures are in [0, 1] with their 95% interval over seeds.
    """
    categories = list(dict.fromkeys(cell.category for cell in cells))
    generators = list(dict.fromkeys(cell.generator for cell in cells))
    table = {name: {g: _figures([c for c in cells if (c.category, c.generator) == (name, g)]) for g in generators}
             for name in categories}  # fmt: skip
    power = {name: has_power(cells, name) for name in categories}
    powerful = [name for name in categories if power[name]]
    judged = categories if None in power.values() else powerful
    return {
        "categories": {
            name: {
                "tested_on": next({"good": c.good, "defects": c.defects} for c in cells if c.category == name),
                "power": power[name],
                "generators": table[name],
            }
            for name in categories
        },
        "mean": {g: _means(cells, g, categories) for g in generators},
        "with_power": powerful,
        "mean_with_power": {g: _means(cells, g, powerful) for g in generators} if powerful else None,
        "verdict": verdict(cells, judged) if judged else None,
    }


def has_power(cells: Sequence[Cell], category: str) -> bool | None:
    """Whether real defects teach clearly more than the floor does; None without ``oracle`` or ``shuffled``.

    Clearly: by 5 points of pixel AP in the mean, and, from two seeds on, by more than the 95% interval of the
    difference within a seed.
    """
    top, floor = _by_seed(cells, "oracle", [category]), _by_seed(cells, "shuffled", [category])
    if not top or not floor:
        return None
    gap = interval([a - b for a, b in zip(top, floor, strict=True)])
    return gap.mean >= POWER and (gap.low is None or gap.low > 0)


def verdict(cells: Sequence[Cell], categories: Sequence[str]) -> dict[str, Any] | None:
    """``local`` against the baseline that is best in the mean over ``categories``; None where one of them is absent.

    ``lead`` is in pixel AP, positive where ``local`` is better. Only baselines that see no real defects compete.
    """
    rivals = {name: values for name in BASELINES if (values := _by_seed(cells, name, categories))}
    ours = _by_seed(cells, "local", categories)
    if not rivals or not ours:
        return None
    best = max(rivals, key=lambda name: float(np.mean(rivals[name])))
    lead = interval([a - b for a, b in zip(ours, rivals[best], strict=True)])
    return {"categories": list(categories), "best_baseline": best, "lead": _rounded(lead)}


def to_markdown(summary: dict[str, Any]) -> str:
    """One table a metric, in points (x 100), with the half-width of the 95% interval."""
    generators = list(summary["mean"])
    lines = ["# What is synthetic data worth to a detector?", ""]
    lines.append(", ".join(f"{name} {value}" for name, value in summary["settings"].items() if value) + ".")
    lines.append("Tested on all good photos and the second half of the real defects; oracle is shown the first half,")
    lines.append("croppaste and transplant up to five of a kind of it. ± is the 95% interval over seeds; * marks")
    lines.append("categories with power.")
    for metric in METRICS:
        lines += ["", f"## {TITLES[metric]} x 100", ""]
        lines.append("| category | " + " | ".join(generators) + " |")
        lines.append("|---" * (len(generators) + 1) + "|")
        rows = [(name + (" *" if c["power"] else ""), c["generators"]) for name, c in summary["categories"].items()]
        rows.append(("**mean**", summary["mean"]))
        if summary["mean_with_power"]:
            rows.append(("**mean with power**", summary["mean_with_power"]))
        for name, figures in rows:
            lines.append(f"| {name} | " + " | ".join(_shown(figures[g][metric]) for g in generators) + " |")
    if summary["verdict"]:
        v = summary["verdict"]
        lines += ["", f"local leads {v['best_baseline']} by {_shown(v['lead'])} points of pixel AP in the mean over "
                  f"{', '.join(v['categories'])}."]  # fmt: skip
    lines += ["", "## Pixel AP x 100 by kind of defect (mean over seeds)", ""]
    lines += ["| category | kind | " + " | ".join(generators) + " |", "|---" * (len(generators) + 2) + "|"]
    for name, category in summary["categories"].items():
        for kind in category["generators"][generators[0]]["ap_by_kind"]:
            values = (f"{100 * category['generators'][g]['ap_by_kind'][kind]:.1f}" for g in generators)
            lines.append(f"| {name} | {kind} | " + " | ".join(values) + " |")
    return "\n".join(lines) + "\n"


def _figures(cells: Sequence[Cell]) -> dict[str, Any]:
    kinds = cells[0].ap_by_kind
    return {
        **{m: _rounded(interval([getattr(cell.scores, m) for cell in cells])) for m in METRICS},
        "ap_by_kind": {kind: round(float(np.mean([c.ap_by_kind[kind] for c in cells])), 4) for kind in kinds},
        "pairs": cells[0].pairs,
    }


def _means(cells: Sequence[Cell], generator: str, categories: Sequence[str]) -> dict[str, Any]:
    return {m: _rounded(interval(_by_seed(cells, generator, categories, m))) for m in METRICS}


def _by_seed(cells: Sequence[Cell], generator: str, categories: Sequence[str], metric: str = "pixel_ap") -> list[float]:
    """The generator's mean over categories, one value a seed; empty where it was not run."""
    mine = [cell for cell in cells if cell.generator == generator and cell.category in categories]
    seeds = sorted({cell.seed for cell in mine})
    return [float(np.mean([getattr(cell.scores, metric) for cell in mine if cell.seed == seed])) for seed in seeds]


def _rounded(found: Interval) -> dict[str, Any]:
    return {
        name: [round(v, 4) for v in value] if isinstance(value, list) else None if value is None else round(value, 4)
        for name, value in asdict(found).items()
    }


def _shown(figure: dict[str, Any]) -> str:
    half = "" if figure["low"] is None else f" ± {100 * (figure['mean'] - figure['low']):.1f}"
    return f"{100 * figure['mean']:.1f}{half}"
