"""Pictures of a comparison: sheets of samples and of predictions, and a bar chart of pixel AP."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from evaluation.data import Image, Pair

T = TypeVar("T")

TILE = 112
"""Side of a sample in px."""
COUNT = 8
"""Samples in a strip."""
LABEL = 96
"""Width of the generator's name in px."""


def strip(pairs: Sequence[Pair]) -> Image:
    """Eight pairs spread over all, images above masks: (2 TILE, 8 TILE, 3)."""
    return _columns([(pair.image, _grey(pair.mask)) for pair in _spread(pairs)])


def prediction_strip(pairs: Sequence[Pair], maps: NDArray[np.float32]) -> Image:
    """Eight real defects with their masks outlined, above their anomaly maps (N, S, S) in [0, 1]."""
    columns = []
    for pair, anomaly in _spread(list(zip(pairs, maps, strict=True))):
        outlined = cv2.resize(pair.image, (TILE, TILE), interpolation=cv2.INTER_AREA)
        mask = cv2.resize(pair.mask.astype(np.uint8), (TILE, TILE), interpolation=cv2.INTER_NEAREST)
        rim = cv2.dilate(mask, np.ones((3, 3), np.uint8)) > mask
        outlined[rim] = (0, 255, 0)
        columns.append((np.asarray(outlined, np.uint8), _grey(anomaly)))
    return _columns(columns)


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


def _spread(items: Sequence[T]) -> list[T]:
    """``COUNT`` of the items, or all of them, evenly spread."""
    return [items[at] for at in np.linspace(0, len(items) - 1, min(COUNT, len(items))).astype(int)]


def _columns(pictures: Sequence[tuple[Image, Image]]) -> Image:
    out = np.zeros((2 * TILE, COUNT * TILE, 3), np.uint8)
    for slot, column in enumerate(pictures):
        for row, picture in enumerate(column):
            tile = cv2.resize(picture, (TILE, TILE), interpolation=cv2.INTER_AREA)
            out[row * TILE : (row + 1) * TILE, slot * TILE : (slot + 1) * TILE] = tile
    return out


def _grey(field: NDArray[np.float32] | NDArray[np.bool_]) -> Image:
    """(H, W) in [0, 1] as a picture."""
    return np.repeat(np.rint(255.0 * field).astype(np.uint8)[..., None], 3, axis=2)
