"""Pictures of a comparison: strips of samples, the contact sheet made of them, and a bar chart of pixel AP."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from evaluation.data import Image, Pair

TILE = 112
"""Side of a sample in px."""
COUNT = 8
"""Samples in a strip."""
LABEL = 96
"""Width of the generator's name in px."""


def strip(pairs: Sequence[Pair]) -> Image:
    """Eight pairs spread over all, images above masks: (2 TILE, 8 TILE, 3)."""
    out = np.zeros((2 * TILE, COUNT * TILE, 3), np.uint8)
    for slot, at in enumerate(np.linspace(0, len(pairs) - 1, min(COUNT, len(pairs))).astype(int)):
        columns = slice(slot * TILE, (slot + 1) * TILE)
        out[:TILE, columns] = cv2.resize(pairs[at].image, (TILE, TILE), interpolation=cv2.INTER_AREA)
        mask = cv2.resize(pairs[at].mask.astype(np.uint8) * 255, (TILE, TILE), interpolation=cv2.INTER_AREA)
        out[TILE:, columns] = mask[..., None]
    return out


def contact_sheet(strips: Mapping[str, Image]) -> Image:
    """Named strips below one another, the names to their left."""
    rows = []
    for name, samples in strips.items():
        label = np.full((samples.shape[0], LABEL, 3), 255, np.uint8)
        cv2.putText(label, name[:12], (6, TILE), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (0, 0, 0), 1, cv2.LINE_AA)
        rows.append(np.hstack([label, samples]))
    return np.vstack(rows)


def plot(summary: dict[str, Any], path: Path) -> None:
    """Bars of pixel AP by category and generator with their 95% intervals, as a PNG."""
    from matplotlib.figure import Figure  # the extra's, needed only here

    rows = {name: entry["generators"] for name, entry in summary["categories"].items()}
    rows["mean"] = summary["mean"]
    if summary["mean_with_power"]:
        rows["mean with power"] = summary["mean_with_power"]
    generators = list(summary["mean"])
    figure = Figure(figsize=(max(7.0, 1.5 + 1.6 * len(rows)), 4.5), layout="constrained")
    axes = figure.subplots()
    width = 0.85 / len(generators)
    for number, generator in enumerate(generators):
        figures = [row[generator]["pixel_ap"] for row in rows.values()]
        half = [0 if f["low"] is None else 100 * (f["mean"] - f["low"]) for f in figures]
        places = np.arange(len(rows)) + (number - (len(generators) - 1) / 2) * width
        heights = [100 * f["mean"] for f in figures]
        axes.bar(places, heights, width, yerr=half, label=generator, error_kw={"linewidth": 0.7})
    axes.set_xticks(np.arange(len(rows)), list(rows), rotation=20, ha="right")
    axes.set_ylabel("pixel AP x 100")
    axes.set_ylim(0, 105)
    axes.legend(ncols=len(generators), fontsize="small", loc="upper center", bbox_to_anchor=(0.5, 1.12), frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=120)
