"""A second judge without a model: how much an edit's statistics resemble those of real defects in photos.

``evaluate`` measures figures of place and of look (features.py), and two logistic regressions (regression.py), fitted
to real defects against broken edits (weights.py), turn them into the two scores. It shares no measurement with the
judge ``local``, so that a policy that learned to please the one is seen by the other. What it measures is the photo's:
the names of item and defect are used in the review only, so a fine scratch where a dent was asked for scores high.

``python -m evaluation fit --data DIR --half even`` writes weights.py anew, ``python -m evaluation judge --judge
statistics --data DIR --half odd`` measures it, ``python -m benchmarks.judge_agreement`` compares it with ``local``.
"""

from __future__ import annotations

from mcp_servers.mask_gen.local import check_pair
from mcp_servers.quality_eval.local.verdict import Verdict
from mcp_servers.quality_eval.statistics.change import Change
from mcp_servers.quality_eval.statistics.features import measure
from mcp_servers.quality_eval.statistics.regression import share
from mcp_servers.quality_eval.statistics.review import review_of, unchanged
from mcp_servers.quality_eval.statistics.weights import LOOK, PLACE
from mcp_servers.vision.types import Image

__all__ = ["evaluate"]

REPAINTED = 20.0
"""Grey levels by which the whole photo's colours may change until half of the quality is lost."""
MOVED = 3.0
"""Percent of the longer side by which the photo may move until half of the quality is lost."""
LEFTOVER = 0.2
"""Share of the photo that may change elsewhere until half of the quality is lost."""


def evaluate(normal: Image, anomaly: Image, item_name: str, anomaly_type: str, threshold: float = 7.0) -> Verdict:
    """Judge an edited photo ``anomaly`` of the good part ``normal``, both (H, W, 3) uint8 of the same size.

    threshold: score (0-10) from which the photo passes. Deterministic. Raises ValueError where the photos cannot be
    compared or the threshold is outside 0-10.
    """
    if not 0 <= threshold <= 10:
        raise ValueError(f"threshold must be between 0 and 10, not {threshold}")
    check_pair(normal, anomaly)
    figures = measure(normal, anomaly)
    change = figures.change
    told = {"peak": change.peak, "repainted": change.repainted, "moved": change.moved, "leftover": change.leftover}
    if figures.place is None or figures.look is None:
        return Verdict(
            score=0.0,
            location_score=0.0,
            quality_score=0.0,
            review=unchanged(change),
            passed=threshold <= 0,
            measurements=_rounded(told),
        )
    kept = integrity(change)
    odds = {"place_log_odds": PLACE.log_odds(figures.place), "look_log_odds": LOOK.log_odds(figures.look)}
    location = round(5 * share(odds["place_log_odds"]), 2)
    quality = round(5 * share(odds["look_log_odds"]) * kept, 2)
    score = round(location + quality, 2)
    heads = ((PLACE, figures.place), (LOOK, figures.look))
    return Verdict(
        score=score,
        location_score=location,
        quality_score=quality,
        review=review_of(heads, kept, score >= threshold, item_name, anomaly_type),
        passed=score >= threshold,
        measurements=_rounded({**told, **odds, **figures.place, **figures.look}),
    )


def integrity(change: Change) -> float:
    """How much of the rest of the photo was kept, above 0 to 1: 0.5 at one of `REPAINTED`, `MOVED` and `LEFTOVER`."""
    out = 1.0
    for much, half in ((change.repainted, REPAINTED), (change.moved, MOVED), (change.leftover, LEFTOVER)):
        out /= 1 + (much / half) ** 2
    return out


def _rounded(figures: dict[str, float]) -> dict[str, float]:
    return {name: round(float(value), 4) for name, value in figures.items()}
