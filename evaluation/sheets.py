"""Contact sheets and bar charts of the tool benchmarks."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np

from evaluation.data import Image, Mask
from evaluation.errors import EvaluationError

SIDE = 144
"""Longer side of a picture in a sheet, in px."""
TITLE = 16
"""Height of the line above a picture in px."""
RED, GREEN = (230, 40, 40), (40, 220, 40)


def require_plots(folder: Path | None) -> None:
    """Raise EvaluationError where a report is asked for and matplotlib is absent."""
    if folder and importlib.util.find_spec("matplotlib") is None:
        raise EvaluationError("matplotlib is not installed: pip install 'anomaly-agent[evaluation]'")


def outlined(image: Image, masks: Mapping[tuple[int, int, int], Mask]) -> Image:
    """A picture (H, W, 3), reduced to ``SIDE``, with the outline of each mask (H, W) in its colour."""
    picture = fit(image)
    for colour, mask in masks.items():
        small = cv2.resize(mask.astype(np.uint8), picture.shape[1::-1], interpolation=cv2.INTER_NEAREST)
        contours, _ = cv2.findContours(small, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(picture, contours, -1, colour, 1)
    return picture


def fit(image: Image) -> Image:
    """Scaled so that the longer side is ``SIDE``."""
    scale = SIDE / max(image.shape[:2])
    size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
    return np.array(cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC))


def tile(title: str, pictures: Sequence[Image]) -> Image:
    """Pictures of at most ``SIDE`` px side by side under a title: (TITLE + SIDE, n SIDE, 3)."""
    out = np.full((TITLE + SIDE, SIDE * len(pictures), 3), 24, np.uint8)
    for number, picture in enumerate(pictures):
        out[TITLE : TITLE + picture.shape[0], SIDE * number : SIDE * number + picture.shape[1]] = picture
    cv2.putText(out, title, (2, TITLE - 4), cv2.FONT_HERSHEY_SIMPLEX, 0.38, (255, 255, 255), 1, cv2.LINE_AA)
    return out


def write_sheet(path: Path, tiles: Sequence[Image], columns: int) -> None:
    """Tiles of one size, row by row, as a PNG. Nothing is written where there are none."""
    if not tiles:
        return
    blank = np.zeros_like(tiles[0])
    padded = [*tiles, *[blank] * (-len(tiles) % columns)]
    rows = [np.hstack(padded[at : at + columns]) for at in range(0, len(padded), columns)]
    cv2.imwrite(str(path), np.vstack(rows)[:, :, ::-1])


def bars(path: Path, rows: Mapping[str, Mapping[str, float]], label: str, lines: Sequence[float] = ()) -> None:
    """Groups of bars in [0, 1], one group a row, with dashed lines at the ``lines``, as a PNG."""
    from matplotlib.figure import Figure  # the evaluation extra's, needed only here

    names = list(dict.fromkeys(name for row in rows.values() for name in row))
    figure = Figure(figsize=(max(7.0, 1.5 + 0.35 * len(rows) * (len(names) + 1)), 4.2), layout="constrained")
    axes = figure.subplots()
    width = 0.85 / len(names)
    for number, name in enumerate(names):
        places = np.arange(len(rows)) + (number - (len(names) - 1) / 2) * width
        axes.bar(places, [row.get(name, 0.0) for row in rows.values()], width, label=name)
    for line in lines:
        axes.axhline(line, color="0.4", linewidth=0.7, linestyle="--")
    axes.set_xticks(np.arange(len(rows)), list(rows), rotation=20, ha="right")
    axes.set_ylabel(label)
    axes.set_ylim(0, 1.03)
    axes.legend(ncols=len(names), fontsize="small", loc="lower center", bbox_to_anchor=(0.5, 1.0), frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=120)
