"""``python -m evaluation masks``: how well is a defect outlined from two photos, whatever the editor did to the rest?

Real defects against their painted-over twins (``pairs.py``), under three conditions (``conditions.py``), for mask_gen's
local backend and two usual baselines; and good photos without any defect, where nothing should
be found. ``masks_report.py`` is the command and sums up.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import cv2
import numpy as np

from evaluation.conditions import CONDITIONS, edit, moved
from evaluation.data import Image, Mask
from evaluation.pairs import Choice, RealPair, good_photos, real_pairs, seeded
from evaluation.sheets import GREEN, RED, fit, outlined, tile
from mcp_servers.mask_gen.local import find_mask

Method: TypeAlias = Callable[[Image, Image], Mask]

VISIBLE = 5.0
"""Local colour difference (dE, Lab) from which a pixel of a drawn mask counts as visibly changed."""
SHOWN = 16
"""Pairs of a category in its contact sheet."""


@dataclass(frozen=True, slots=True)
class Hit:
    """A method's mask on one pair against the true one; all figures in [0, 1].

    ``recall`` is over the visibly changed pixels of the true mask: people draw masks generously.
    """

    category: str
    condition: str
    method: str
    iou: float
    f1: float
    recall: float


@dataclass(frozen=True, slots=True)
class Alarm:
    """What was found on a good photo without a defect: ``area`` is the mask's share of the photo."""

    category: str
    condition: str
    area: float


@dataclass(slots=True)
class Measured:
    """All that was measured: ``seconds`` of each search by ``ours``, ``tiles`` of each category's contact sheet."""

    hits: list[Hit]
    alarms: list[Alarm]
    seconds: dict[str, list[float]]
    tiles: dict[str, list[Image]]


def measure(folders: Sequence[Path], choice: Choice, say: Callable[[str], None]) -> Measured:
    """Every chosen pair and good photo of the categories under every condition. Raises EvaluationError."""
    out = Measured([], [], {}, {})
    for folder in folders:
        seconds, tiles = out.seconds.setdefault(folder.name, []), out.tiles.setdefault(folder.name, [])
        for pair in real_pairs(folder, choice):
            hits, picture = measure_pair(pair, seconds)
            out.hits += hits
            if len(tiles) < SHOWN:
                tiles.append(picture)
        for index, photo in good_photos(folder, choice):
            for condition in CONDITIONS[1:]:  # an exact copy is the same photo
                edited, _ = edit(photo, condition, seeded(folder.name, "good", index, condition))
                out.alarms.append(Alarm(folder.name, condition, float(timed(photo, edited, seconds).mean())))
        say(f"{folder.name}: {len(seconds)} comparisons")
    return out


def measure_pair(pair: RealPair, seconds: list[float]) -> tuple[list[Hit], Image]:
    """One pair under every condition with every method; its tile shows the true mask in red, ours in green."""
    seen = pair.mask & (difference(pair.normal, pair.anomaly) >= VISIBLE)
    hits, pictures = [], [fit(pair.normal)]
    for condition in CONDITIONS:
        anomaly, move = edit(pair.anomaly, condition, seeded(pair.category, pair.kind, pair.index, condition))
        truth, visible = moved(pair.mask, move), moved(seen, move)
        masks = {"ours": timed(pair.normal, anomaly, seconds)}
        masks |= {name: method(pair.normal, anomaly) for name, method in BASELINES.items()}
        hits += [Hit(pair.category, condition, name, *compare(mask, truth, visible)) for name, mask in masks.items()]
        pictures.append(outlined(anomaly, {RED: truth, GREEN: masks["ours"]}))
    scores = " ".join(f"{hit.iou:.2f}" for hit in hits if hit.method == "ours")
    return hits, tile(f"{pair.kind} {pair.index}  IoU {scores}", pictures)


def timed(normal: Image, anomaly: Image, seconds: list[float]) -> Mask:
    """mask_gen's mask; the time it took is appended."""
    start = time.perf_counter()
    mask = find_mask(normal, anomaly).mask
    seconds.append(time.perf_counter() - start)
    return mask


def compare(mask: Mask, truth: Mask, visible: Mask) -> tuple[float, float, float]:
    """IoU and F1 of a mask (H, W) against the true one, and its recall of what is visible; 1 where both are empty."""
    both, either = np.count_nonzero(mask & truth), np.count_nonzero(mask | truth)
    if not either:
        return 1.0, 1.0, 1.0
    seen = np.count_nonzero(visible)
    recall = np.count_nonzero(mask & visible) / seen if seen else 1.0
    return both / either, 2 * both / (both + either), recall


def difference(normal: Image, anomaly: Image) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    """(H, W) colour difference (dE) averaged over about a pixel."""
    soft = [cv2.GaussianBlur(p.astype(np.float32) / 255, (0, 0), 1.0) for p in (normal, anomaly)]
    first, second = (cv2.cvtColor(p, cv2.COLOR_RGB2LAB) for p in soft)
    return np.asarray(np.linalg.norm(first - second, axis=2), np.float32)


def gray_otsu(normal: Image, anomaly: Image) -> Mask:
    """Otsu's threshold on the difference of the two grey photos: the usual baseline. (H, W)."""
    grey = [cv2.cvtColor(p, cv2.COLOR_RGB2GRAY) for p in (normal, anomaly)]
    return otsu(cv2.absdiff(*grey))


def ssim_otsu(normal: Image, anomaly: Image) -> Mask:
    """Otsu's threshold on 1 - SSIM of the grey photos (H, W); SSIM of Wang et al. 2004, 11 px window, sigma 1.5."""
    x, y = (cv2.cvtColor(p, cv2.COLOR_RGB2GRAY).astype(np.float64) for p in (normal, anomaly))
    mean_x, mean_y, xx, yy, xy = (cv2.GaussianBlur(p, (11, 11), 1.5) for p in (x, y, x * x, y * y, x * y))
    var_x, var_y, cov = xx - mean_x**2, yy - mean_y**2, xy - mean_x * mean_y
    one, two = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    ssim = (2 * mean_x * mean_y + one) * (2 * cov + two) / ((mean_x**2 + mean_y**2 + one) * (var_x + var_y + two))
    return otsu(np.clip(np.rint(127.5 * (1 - ssim)), 0, 255).astype(np.uint8))


def otsu(field: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> Mask:
    """Pixels of an 8-bit field (H, W) above Otsu's threshold; none where it is empty."""
    _, above = cv2.threshold(field, 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    return np.asarray(above > 0)


BASELINES: dict[str, Method] = {"gray_otsu": gray_otsu, "ssim_otsu": ssim_otsu}
