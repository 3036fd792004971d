"""Anomaly metrics in numpy: pixel AUROC, average precision, F1-max and PRO, image AUROC; intervals over seeds.

All are exact: every distinct score is a threshold, and equal scores fall together.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

POOL = 21
"""Side of the average pool, in px of the map, whose maximum is the image score (AnomalyDiffusion's protocol)."""
PRO_LIMIT = 0.3
"""False positive rate up to which PRO is averaged (Bergmann et al., CVPR 2020)."""

# fmt: off
_T95 = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131,
    2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
)
# fmt: on
"""Two-sided 95% quantiles of Student's t for 1 to 30 degrees of freedom."""


@dataclass(frozen=True, slots=True)
class Scores:
    """What a detector reaches on a test set; every figure in [0, 1], higher is better."""

    pixel_auroc: float
    pixel_ap: float
    pixel_f1: float
    pro: float
    image_auroc: float


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean over seeds with its 95% t-interval; ``low`` and ``high`` are None for a single seed."""

    mean: float
    low: float | None
    high: float | None
    seeds: list[float]


def score(maps: NDArray[np.float32], masks: NDArray[np.bool_]) -> Scores:
    """Judge anomaly maps (N, H, W), higher is more anomalous, against masks (N, H, W).

    An image is anomalous where its mask has a pixel. Raises ValueError unless there are both kinds of images.
    """
    if maps.shape != masks.shape or maps.ndim != 3:
        raise ValueError(f"maps {maps.shape} and masks {masks.shape} must both be (N, H, W)")
    flat, truth = maps.ravel(), masks.ravel()
    return Scores(
        pixel_auroc=auroc(flat, truth),
        pixel_ap=average_precision(flat, truth),
        pixel_f1=f1_max(flat, truth),
        pro=pro(maps, masks),
        image_auroc=auroc(image_scores(maps), np.asarray(masks.any(axis=(1, 2)))),
    )


def image_scores(maps: NDArray[np.float32]) -> Floats:
    """(N,): the maximum of each map (H, W) after a zero-padded 21 x 21 average pool."""
    return np.array([cv2.blur(m, (POOL, POOL), borderType=cv2.BORDER_CONSTANT).max() for m in maps], np.float64)


def auroc(scores: NDArray[np.floating], truth: NDArray[np.bool_]) -> float:
    """Area under the ROC curve of scores (N,) against truth (N,). Raises ValueError where a class is empty."""
    hits, alarms = _counts(scores, truth)
    return float(np.trapezoid(np.r_[0, hits / hits[-1]], np.r_[0, alarms / alarms[-1]]))


def average_precision(scores: NDArray[np.floating], truth: NDArray[np.bool_]) -> float:
    """Sum of precision times the gain in recall at every threshold, without interpolation."""
    hits, alarms = _counts(scores, truth)
    return float(np.sum(np.diff(hits, prepend=0) / hits[-1] * hits / (hits + alarms)))


def f1_max(scores: NDArray[np.floating], truth: NDArray[np.bool_]) -> float:
    """The best F1 over all thresholds."""
    hits, alarms = _counts(scores, truth)
    return float(np.max(2 * hits / (hits[-1] + hits + alarms)))


def pro(maps: NDArray[np.float32], masks: NDArray[np.bool_], limit: float = PRO_LIMIT) -> float:
    """Per-region overlap: the share of a defect's connected piece (8 neighbours) that is found, averaged over pieces
    and over false positive rates from 0 to ``limit``, so that small defects count as much as large ones.

    Raises ValueError where there is no defective or no good pixel.
    """
    weights = np.zeros(masks.shape, np.float64)
    pieces = 0
    for weight, mask in zip(weights, masks, strict=True):
        count, labels = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
        sizes = np.bincount(labels.ravel(), minlength=count)
        weight[mask] = 1.0 / sizes[labels[mask]]
        pieces += count - 1
    if pieces == 0 or masks.all():
        raise ValueError("both good and defective pixels are needed")
    order, ends = _thresholds(maps.ravel())
    overlap = np.r_[0, np.cumsum(weights.ravel()[order])[ends] / pieces]
    alarms = np.cumsum(~masks.ravel()[order])[ends]
    rate = np.r_[0, alarms / alarms[-1]]
    inside = rate <= limit
    at_limit = np.interp(limit, rate, overlap)
    return float(np.trapezoid(np.r_[overlap[inside], at_limit], np.r_[rate[inside], limit]) / limit)


def interval(values: Sequence[float]) -> Interval:
    """Mean and 95% t-interval of independent values, one a seed."""
    mean = float(np.mean(values))
    if len(values) < 2:
        return Interval(mean, None, None, list(values))
    freedom = len(values) - 1
    quantile = _T95[freedom - 1] if freedom <= len(_T95) else 1.96
    half = quantile * float(np.std(values, ddof=1)) / math.sqrt(len(values))
    return Interval(mean, mean - half, mean + half, list(values))


def _counts(scores: NDArray[np.floating], truth: NDArray[np.bool_]) -> tuple[Floats, Floats]:
    """True and false positives (T,) at every distinct score, highest first."""
    if truth.all() or not truth.any():
        raise ValueError("both good and defective examples are needed")
    order, ends = _thresholds(scores)
    hits = np.cumsum(truth[order])[ends].astype(np.float64)
    return hits, (ends + 1) - hits


def _thresholds(scores: NDArray[np.floating]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Positions by falling score, and the last position of each distinct score among them."""
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    return order, np.flatnonzero(np.r_[ranked[1:] != ranked[:-1], True])
