"""The evaluation's metrics against values worked out by hand and against brute force over every threshold."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from evaluation import metrics

SCORES = np.array([0.9, 0.8, 0.7, 0.6, 0.5], np.float32)
TRUTH = np.array([True, False, True, True, False])


def test_figures_worked_out_by_hand() -> None:
    # ranked: + - + + -. Pairs in order: 3 + 1 + ... of 6: the first + beats both -, the others one each.
    assert metrics.auroc(SCORES, TRUTH) == pytest.approx(4 / 6)
    assert metrics.average_precision(SCORES, TRUTH) == pytest.approx((1 + 2 / 3 + 3 / 4) / 3)
    assert metrics.f1_max(SCORES, TRUTH) == pytest.approx(2 * 3 / (3 + 4))


def test_equal_scores_fall_together() -> None:
    same = np.full(4, 0.5, np.float32)
    truth = np.array([True, False, False, False])
    assert metrics.auroc(same, truth) == pytest.approx(0.5)
    assert metrics.average_precision(same, truth) == pytest.approx(0.25)
    assert metrics.f1_max(same, truth) == pytest.approx(0.4)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 6), st.booleans()), min_size=2, max_size=40))
def test_curves_agree_with_brute_force(drawn: list[tuple[int, bool]]) -> None:
    scores = np.array([value for value, _ in drawn], np.float32)
    truth = np.array([label for _, label in drawn])
    if truth.all() or not truth.any():
        with pytest.raises(ValueError, match="both"):
            metrics.auroc(scores, truth)
        return
    good, bad = scores[~truth], scores[truth]
    wins = np.mean([(b > g) + 0.5 * (b == g) for b in bad for g in good])
    assert metrics.auroc(scores, truth) == pytest.approx(wins)
    precision, recall, best, ap = 0.0, 0.0, 0.0, 0.0
    for threshold in sorted(set(scores), reverse=True):
        found = scores >= threshold
        hits = int((found & truth).sum())
        precision, before, recall = hits / int(found.sum()), recall, hits / int(truth.sum())
        ap += (recall - before) * precision
        best = max(best, 2 * precision * recall / (precision + recall) if hits else 0.0)
    assert metrics.average_precision(scores, truth) == pytest.approx(ap)
    assert metrics.f1_max(scores, truth) == pytest.approx(best)


def slow_pro(maps: NDArray[np.float32], masks: NDArray[np.bool_], limit: float) -> float:
    """PRO by the definition: one threshold after another, one connected piece after another."""
    pieces = []
    for number, mask in enumerate(masks):
        count, labels = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
        pieces += [(number, labels == label) for label in range(1, count)]
    rates, overlaps = [0.0], [0.0]
    for threshold in sorted(set(maps.ravel()), reverse=True):
        found = maps >= threshold
        rates.append(found[~masks].mean())
        overlaps.append(float(np.mean([found[number][piece].mean() for number, piece in pieces])))
    total, before = 0.0, (0.0, 0.0)
    for rate, overlap in zip(rates, overlaps, strict=True):
        if rate > limit:
            overlap = before[1] + (overlap - before[1]) * (limit - before[0]) / (rate - before[0])
            rate = limit
        total += (rate - before[0]) * (overlap + before[1]) / 2
        before = (rate, overlap)
        if rate >= limit:
            break
    return total / limit


@pytest.mark.parametrize("seed", range(6))
def test_pro_agrees_with_its_definition(seed: int) -> None:
    rng = np.random.default_rng(seed)
    maps = rng.integers(0, 12, (3, 14, 12)).astype(np.float32)
    masks = np.zeros(maps.shape, bool)
    masks[0, 2:9, 3:5] = masks[0, 11, 8:] = masks[1, 5:7, 5:9] = True
    maps[masks] += rng.integers(0, 6)
    assert metrics.pro(maps, masks) == pytest.approx(slow_pro(maps, masks, 0.3))


def test_pro_counts_a_small_piece_as_much_as_a_large_one() -> None:
    masks = np.zeros((1, 20, 20), bool)
    masks[0, :10, :10] = masks[0, 18, 18] = True
    only_large = (masks * 1.0).astype(np.float32)
    only_large[0, 18, 18] = -1
    # Half of the pieces at no false alarm; the other comes last, with every other pixel: nothing below the limit
    # but the straight line to it.
    assert metrics.pro(only_large, masks) == pytest.approx(0.5, abs=0.01)
    assert metrics.pro(masks.astype(np.float32), masks) == pytest.approx(1.0)


def test_image_score_is_the_strongest_pooled_place() -> None:
    maps = np.zeros((2, 64, 64), np.float32)
    maps[0, 30:51, 30:51] = 1.0
    maps[1, 0, 0] = 1.0
    assert metrics.image_scores(maps) == pytest.approx([1.0, 1 / 441])


def test_perfect_maps_score_one_everywhere() -> None:
    masks = np.zeros((4, 40, 40), bool)
    masks[2, 5:12, 5:12] = masks[3, 20:30, 3:30] = True
    scores = metrics.score(masks.astype(np.float32), masks)
    values = [scores.pixel_auroc, scores.pixel_ap, scores.pixel_f1, scores.pro, scores.image_auroc]
    assert values == pytest.approx([1.0] * 5)


def test_interval_is_students() -> None:
    found = metrics.interval([0.2, 0.3, 0.4])
    assert found.mean == pytest.approx(0.3)
    assert found.low is not None
    assert found.mean - found.low == pytest.approx(4.303 * 0.1 / np.sqrt(3))
    assert metrics.interval([0.5]).low is None
