"""The judge without a model: sound defects pass, broken edits do not, and the review says what to change."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from mcp_servers.knowledge.families import DefectProfile, Family
from mcp_servers.mask_gen.local.shape import ellipse
from mcp_servers.quality_eval.local import Verdict, evaluate
from mcp_servers.quality_eval.local.factors import ramp
from mcp_servers.vision.types import Field, Image

DATA = Path(os.environ.get("ANOMALY_AGENT_DATA", Path(__file__).parents[2] / "shared" / "data"))
SIDE = 320


def grain(seed: int, sigma: float) -> Field:
    noise = np.random.default_rng(seed).normal(0, 1, (SIDE, SIDE)).astype(np.float32)
    soft = cv2.GaussianBlur(noise, (0, 0), sigma)
    return np.asarray(soft / soft.std(), np.float32)


def part_photo() -> Image:
    """A textured round part on a plain background."""
    ys, xs = np.mgrid[0:SIDE, 0:SIDE].astype(np.float32)
    inside = np.clip(110 - np.hypot(xs - 160, ys - 160) + 0.5, 0, 1)[..., None]
    surface = (150 + 0.15 * (160 - xs) + 5 * grain(1, 1.5) + 4 * grain(2, 8))[..., None] * np.array([1.0, 0.9, 0.75])
    picture = inside * surface + (1 - inside) * 40.0
    return np.clip(cv2.GaussianBlur(picture, (0, 0), 0.8) + 1.5 * grain(3, 0.6)[..., None], 0, 255).astype(np.uint8)


def blot(x: float, y: float, radius: float, stretch: float = 1.0) -> Field:
    """Soft irregular spot, (H, W) in 0-1."""
    ys, xs = np.mgrid[0:SIDE, 0:SIDE].astype(np.float32)
    angle = np.arctan2(ys - y, xs - x)
    wobble = 1 + 0.15 * np.cos(3 * angle + 1) + 0.1 * np.cos(5 * angle)
    distance = np.hypot((xs - x) / stretch, ys - y)
    return np.asarray(np.clip((radius * wobble - distance) / 2 + 0.5, 0, 1), np.float32)


def stained(normal: Image, alpha: Field, strength: float = 0.5) -> Image:
    """A stain that keeps the surface's texture: multiplied, as real ones are."""
    return np.clip(normal * (1 - strength * alpha[..., None] * np.array([0.8, 0.9, 1.0])), 0, 255).astype(np.uint8)


def judge(anomaly: Image, family: Family = Family.STAIN, **known: str) -> Verdict:
    profile = DefectProfile(
        item="disc",
        anomaly_type=family.value,
        family=family,
        noun="a mark",
        place="on the face",
        size=known.get("size", "small"),
        severity=known.get("severity", "moderate"),
        colour="",
        known=False,
        source="",
    )
    return evaluate(part_photo(), anomaly, "disc", family.value, profile)


def test_a_textured_stain_on_the_part_passes_and_the_review_says_what_is_right() -> None:
    verdict = judge(stained(part_photo(), blot(170, 150, 14)))
    assert verdict.passed
    assert verdict.score == pytest.approx(verdict.location_score + verdict.quality_score, abs=0.05)
    assert verdict.score > 9
    assert "match the photo" in verdict.review


def test_an_unknown_type_is_judged_without_a_profile() -> None:
    verdict = evaluate(part_photo(), stained(part_photo(), blot(170, 150, 14)), "disc", "mystery", None)
    assert verdict.passed


def test_nothing_changed_scores_zero() -> None:
    verdict = judge(part_photo())
    assert (verdict.score, verdict.passed) == (0.0, False)
    assert verdict.review.startswith("Introduce a visible defect.")


def test_the_score_rises_with_the_strength_of_a_faint_defect() -> None:
    verdicts = [judge(stained(part_photo(), blot(170, 150, 14), s)) for s in (0.03, 0.05, 0.1, 0.3)]
    scores = [v.score for v in verdicts]
    assert scores == sorted(scores)
    assert scores[0] < 7 < scores[-1]
    assert "Make the defect more pronounced:" in verdicts[0].review


def test_a_speck_is_told_to_grow_and_a_flood_to_shrink() -> None:
    assert "Make the defect larger:" in judge(stained(part_photo(), blot(170, 150, 2)), size="large").review
    flood = judge(stained(part_photo(), blot(160, 160, 85)))
    assert not flood.passed
    assert "Make the defect smaller:" in flood.review


def test_a_defect_on_the_background_is_sent_onto_the_part() -> None:
    anomaly = part_photo()
    alpha = blot(30, 40, 12)[..., None]
    anomaly = np.clip(anomaly * (1 - alpha) + alpha * (150 + 6 * grain(5, 1.5)[..., None]), 0, 255).astype(np.uint8)
    verdict = judge(anomaly)
    assert verdict.location_score < 1
    assert verdict.review.startswith("Move the defect onto the part:")


def test_a_defect_that_hangs_over_the_outline_is_moved_away_from_it_unless_parts_may_break_there() -> None:
    alpha = blot(272, 160, 16)[..., None]
    anomaly = np.clip(part_photo() * (1 - alpha) + alpha * (95 + 6 * grain(5, 1.5)[..., None]), 0, 255).astype(np.uint8)
    assert "Move the defect away from the outline:" in judge(anomaly).review
    assert judge(anomaly, Family.BROKEN_EDGE).location_score > judge(anomaly).location_score


def test_a_good_photo_that_lost_a_piece_of_the_part_does_not_put_the_defect_off_it() -> None:
    ys, xs = np.mgrid[0:SIDE, 0:SIDE]
    on_part = np.hypot(xs - 160, ys - 160) < 108
    whole, alpha = part_photo(), blot(255, 160, 30)[..., None]
    bitten = np.clip(whole * (1 - alpha) + alpha * 40, 0, 255).astype(np.uint8)
    anomaly = np.where(alpha > 0, stained(whole, blot(255, 160, 30) * on_part, 0.25), bitten)
    verdict = evaluate(bitten, anomaly, "disc", "stain", None)
    assert verdict.location_score > 4.5


def test_a_faint_defect_is_enough_where_a_faint_one_was_asked_for() -> None:
    anomaly = stained(part_photo(), blot(170, 150, 14), 0.06)
    assert judge(anomaly, severity="faint").score > judge(anomaly, severity="severe").score + 1


def test_a_flat_short_shows_its_own_material() -> None:
    alpha = blot(170, 150, 14)[..., None]
    anomaly = np.clip(part_photo() * (1 - alpha) + alpha * 70, 0, 255).astype(np.uint8)
    assert judge(anomaly, Family.SHORT).score > judge(anomaly, Family.STAIN).score + 1


def test_a_broken_edge_belongs_on_the_edge() -> None:
    verdict = judge(stained(part_photo(), blot(160, 160, 14)), Family.BROKEN_EDGE)
    assert "Place the defect on the edge of the part:" in verdict.review


def test_a_flat_rectangle_fails_for_its_border_and_its_missing_texture() -> None:
    anomaly = part_photo()
    anomaly[140:170, 150:190] = (90, 70, 60)
    verdict = judge(anomaly)
    assert not verdict.passed
    assert "Blend the border of the defect into the surrounding texture:" in verdict.review
    assert "Keep the surface texture visible inside the defect:" in verdict.review


def test_white_noise_fails_for_its_grain() -> None:
    noise = np.random.default_rng(0).normal(0, 45, (SIDE, SIDE, 3))
    alpha = blot(170, 150, 16)[..., None]
    anomaly = np.clip(part_photo() * (1 - alpha) + alpha * (110 + noise), 0, 255).astype(np.uint8)
    verdict = judge(anomaly)
    assert not verdict.passed
    assert "Match the grain of the photo:" in verdict.review


def test_a_round_scratch_is_told_to_be_elongated() -> None:
    assert (
        "Give the defect an elongated shape:" in judge(stained(part_photo(), blot(170, 150, 12)), Family.SCRATCH).review
    )
    line = judge(stained(part_photo(), blot(170, 150, 3, stretch=12)), Family.SCRATCH)
    assert "elongated" not in line.review


def test_recolouring_everything_costs_points_even_with_a_good_defect() -> None:
    good = stained(part_photo(), blot(170, 150, 14))
    recoloured = np.clip(good * np.array([0.7, 0.95, 1.2]) + 12, 0, 255).astype(np.uint8)
    verdict = judge(recoloured)
    assert verdict.score < judge(good).score - 0.7
    assert "Leave everything outside the defect unchanged:" in verdict.review


def test_a_small_drift_of_the_photo_hardly_changes_the_verdict() -> None:
    good = stained(part_photo(), blot(170, 150, 14))
    moved = cv2.warpAffine(good, np.array([[1, 0, 1.5], [0, 1, -1]], np.float32), (SIDE, SIDE), borderMode=1)
    moved = np.clip(moved * 0.99 + 1, 0, 255).astype(np.uint8)
    assert abs(judge(moved).score - judge(good).score) < 1.5


def streaks(seed: int) -> Field:
    """Six parallel thin lines, (H, W) in 0-1."""
    lines = np.zeros((SIDE, SIDE), np.uint8)
    rng = np.random.default_rng(seed)
    for n in range(6):
        x = int(rng.integers(110, 130))
        cv2.line(lines, (x, 130 + 7 * n), (x + 85, 122 + 7 * n), 255, 2)
    return cv2.GaussianBlur(lines.astype(np.float32) / 255, (0, 0), 0.7)


def test_a_bundle_of_scratches_is_no_stain() -> None:
    anomaly = stained(part_photo(), streaks(0), 0.6)
    assert judge(anomaly, Family.SCRATCH).passed
    verdict = judge(anomaly, Family.STAIN)
    assert not verdict.passed
    assert "Give the defect a compact shape:" in verdict.review


def test_a_stain_that_the_surface_shows_through_is_no_hole_and_a_round_one_no_scratch() -> None:
    anomaly = stained(part_photo(), blot(170, 150, 14))
    stain = judge(anomaly).score
    assert judge(anomaly, Family.HOLE).score < stain - 1
    assert not judge(anomaly, Family.SCRATCH).passed


def test_a_dent_has_no_colour_of_its_own_and_a_burn_is_dark() -> None:
    alpha = blot(170, 150, 14)[..., None]
    green = np.clip(part_photo() * (1 - 0.6 * alpha * np.array([1.0, 0.0, 1.0])), 0, 255).astype(np.uint8)
    assert judge(green, Family.DENT).score < judge(green).score - 1
    bright = np.clip(part_photo() * (1 + 0.45 * alpha), 0, 255).astype(np.uint8)
    assert judge(bright, Family.BURN).score < judge(bright, Family.GLUE).score - 1


def test_a_photo_without_colour_shows_no_coloured_defect() -> None:
    good = np.repeat(cv2.cvtColor(part_photo(), cv2.COLOR_RGB2GRAY)[..., None], 3, axis=2)
    alpha = 0.6 * blot(170, 150, 14)[..., None]
    grey, blue = (np.clip(good * (1 - alpha * np.array(c)), 0, 255).astype(np.uint8) for c in ((1, 1, 1), (1, 0.7, 0)))
    assert evaluate(good, grey, "disc", "stain", None).passed
    verdict = evaluate(good, blue, "disc", "stain", None)
    assert not verdict.passed
    assert "Give the defect no colour:" in verdict.review


def test_a_rectangle_is_excused_where_it_is_the_parts_own_outline() -> None:
    plate = np.full((SIDE, SIDE, 3), 45, np.uint8)
    plate[100:220, 80:240] = 150
    noise = (2.5 * grain(4, 0.8) + 3 * grain(5, 3))[..., None]
    plate = np.clip(cv2.GaussianBlur(plate, (0, 0), 0.8) + noise, 0, 255).astype(np.uint8)
    whole, spot = plate.copy(), plate.copy()
    whole[100:220, 80:240] = 0.5 * plate[100:220, 80:240]
    spot[130:170, 120:180] = 0.5 * plate[130:170, 120:180]
    boxes = [evaluate(plate, photo, "plate", "rust", None).measurements["boxiness"] for photo in (whole, spot)]
    assert boxes[0] < 0.2
    assert boxes[1] > 0.8


def test_scores_tell_an_excellent_sample_from_a_fair_one() -> None:
    scores = [judge(stained(part_photo(), blot(170, 150, 14), s)).score for s in (0.08, 0.15, 0.3)]
    assert 7 <= scores[0] < scores[1] < scores[2] < 10


def test_a_good_defect_in_a_slightly_recoloured_picture_passes() -> None:
    good = stained(part_photo(), blot(170, 150, 14))
    toned = np.clip(good * np.array([0.95, 1.0, 1.05]) + 3, 0, 255).astype(np.uint8)
    assert judge(toned).score > judge(good).score - 0.7


def test_the_verdict_is_reproducible_and_every_measurement_is_finite() -> None:
    anomaly = stained(part_photo(), blot(170, 150, 14))
    first, second = judge(anomaly), judge(anomaly)
    assert first == second
    assert all(np.isfinite(value) for value in first.measurements.values())


def test_the_threshold_decides_what_passes() -> None:
    args = (part_photo(), stained(part_photo(), blot(170, 150, 14), 0.1), "disc", "stain", None)
    score = evaluate(*args).score
    assert evaluate(*args, threshold=score).passed
    assert not evaluate(*args, threshold=min(10.0, score + 0.1)).passed
    with pytest.raises(ValueError, match="between 0 and 10"):
        evaluate(*args, threshold=11)


def test_ramps_are_smooth_and_bounded() -> None:
    values = [ramp(x, 0.0, 1.0, 0.2) for x in np.linspace(-1, 2, 301)]
    assert min(values) == pytest.approx(0.2)
    assert max(values) == pytest.approx(1.0)
    assert max(abs(a - b) for a, b in itertools.pairwise(values)) < 0.02


@pytest.mark.skipif(not DATA.is_dir(), reason=f"no inspection photos at {DATA}; set ANOMALY_AGENT_DATA")
def test_real_defects_rank_above_pasted_rectangles() -> None:
    real, pasted = [], []
    for kind in ("ball_screw/pitting", "cookie/broken", "magnetic_tile/crack", "leather_patch/hole"):
        category, defect = kind.split("/")
        for truth_file in sorted((DATA / category / "ground_truth" / defect).glob("*.png"))[:3]:
            name = truth_file.name.replace("_mask", "")
            anomaly = cv2.imread(str(DATA / category / "test" / defect / name), cv2.IMREAD_COLOR_RGB)
            truth = cv2.imread(str(truth_file), cv2.IMREAD_GRAYSCALE)
            normal = cv2.inpaint(anomaly, cv2.dilate(truth, ellipse(3)), 5, cv2.INPAINT_TELEA)
            real.append(evaluate(normal, anomaly, category, defect, None).score)
            patch = normal.copy()
            height, width = (n // 2 for n in normal.shape[:2])
            patch[height : height + 24, width : width + 20] = normal[4:28, 4:24] // 2
            pasted.append(evaluate(normal, patch, category, defect, None).score)
    assert float(np.mean(np.array(real) >= 7)) >= 0.7
    assert float(np.mean(np.array(pasted) >= 7)) <= 0.2
