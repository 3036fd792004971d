"""The judge by natural-image statistics: what looks real scores above what is broken, measured apart from ``local``."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import anyio
import cv2
import numpy as np
import pytest
from mcp import Client

import mcp_servers.quality_eval.statistics as statistics
from agent.policies.refine import refine
from mcp_servers.backends import BackendChoice
from mcp_servers.images import Photo
from mcp_servers.quality_eval.advice import ADVICE, advice_in
from mcp_servers.quality_eval.local import Verdict
from mcp_servers.quality_eval.local import evaluate as local
from mcp_servers.quality_eval.server import SPEC, facts
from mcp_servers.quality_eval.statistics.review import MEANINGS
from mcp_servers.quality_eval.statistics.weights import LOOK, PLACE
from mcp_servers.serving import build_server
from mcp_servers.store import Store
from mcp_servers.vision.types import Field, Image

from .servers.model_calls import TASK, call, edited_pair

ROOT = Path(__file__).parents[1]
SIDE = 320


def grain(seed: int, sigma: float) -> Field:
    """Smooth noise of unit deviation, (H, W)."""
    noise = np.random.default_rng(seed).normal(0, 1, (SIDE, SIDE)).astype(np.float32)
    soft = cv2.GaussianBlur(noise, (0, 0), sigma)
    return np.asarray(soft / soft.std(), np.float32)


def part_photo() -> Image:
    """A square plate with a textured face on a plain ground."""
    solid = np.zeros((SIDE, SIDE), np.float32)
    solid[50:270, 60:260] = 1
    inside = cv2.GaussianBlur(solid, (0, 0), 0.8)[..., None]
    face = (140 + 5 * grain(11, 1.2) + 6 * grain(12, 9))[..., None] * np.array([0.95, 1.0, 1.05])
    picture = inside * face + (1 - inside) * 45.0 + 1.5 * grain(13, 0.6)[..., None]
    return np.clip(picture, 0, 255).astype(np.uint8)


def scratch() -> Field:
    """A bent hairline on the face, (H, W) in 0-1."""
    line = np.zeros((SIDE, SIDE), np.uint8)
    points = np.array([[110, 200], [141, 180], [168, 168], [205, 142]], np.int32)
    cv2.polylines(line, [points], False, 255, 2, cv2.LINE_AA)
    return cv2.GaussianBlur(line.astype(np.float32) / 255, (0, 0), 0.7)


def disc(x: float, y: float, radius: float) -> Field:
    ys, xs = np.mgrid[0:SIDE, 0:SIDE].astype(np.float32)
    return np.asarray(np.clip((radius - np.hypot(xs - x, ys - y)) / 2 + 0.5, 0, 1), np.float32)


def darkened(photo: Image, alpha: Field, strength: float = 0.55) -> Image:
    return np.clip(photo * (1 - strength * alpha[..., None]), 0, 255).astype(np.uint8)


def grey_box() -> Image:
    out = part_photo()
    out[140:170, 150:190] = 90
    return out


def blob_over_the_ground() -> Image:
    alpha = disc(275, 160, 18)[..., None]
    return np.clip(part_photo() * (1 - alpha) + alpha * (100 + 6 * grain(5, 1.5)[..., None]), 0, 255).astype(np.uint8)


def other_colours(photo: Image) -> Image:
    return np.clip(photo * np.array([0.7, 0.95, 1.15]) + 12, 0, 255).astype(np.uint8)


def judge(anomaly: Image, **more: Any) -> Verdict:
    return statistics.evaluate(part_photo(), anomaly, "plate", "scratch", **more)


def test_a_real_looking_scratch_scores_above_every_broken_edit() -> None:
    real = judge(darkened(part_photo(), scratch()))
    broken = [grey_box(), blob_over_the_ground(), part_photo(), other_colours(part_photo())]
    assert real.passed
    for verdict in map(judge, broken):
        assert not verdict.passed
        assert verdict.score < real.score - 2


def test_what_is_wrong_lowers_the_score_it_belongs_to_and_is_named() -> None:
    real = judge(darkened(part_photo(), scratch()))
    box, blob = judge(grey_box()), judge(blob_over_the_ground())
    assert box.quality_score < 1
    assert box.location_score > 3.5
    assert "Blend the border of the defect into the surrounding texture:" in box.review
    assert blob.location_score < real.location_score - 2
    assert blob.review.startswith("Move the defect onto the part:")
    noise = np.random.default_rng(0).normal(0, 45, (SIDE, SIDE, 3))
    alpha = disc(170, 150, 16)[..., None]
    white = judge(np.clip(part_photo() * (1 - alpha) + alpha * (110 + noise), 0, 255).astype(np.uint8))
    assert white.quality_score < 1
    assert "Match the grain of the photo:" in white.review


def test_identical_photos_score_zero_and_the_review_says_that_nothing_changed() -> None:
    same = judge(part_photo())
    assert (same.score, same.location_score, same.quality_score, same.passed) == (0, 0, 0, False)
    assert same.review == "Introduce a visible defect. Both photos are the same."
    toned = judge(other_colours(part_photo()))
    assert toned.score == 0
    assert toned.review.startswith("Introduce a visible defect. The photo took on other colours")


def test_recolouring_and_moving_the_whole_photo_cost_points_and_a_little_costs_little() -> None:
    good = darkened(part_photo(), scratch())
    much = judge(other_colours(good))
    assert much.score < judge(good).score - 1
    assert "Leave everything outside the defect unchanged:" in much.review
    little = np.clip(good * np.array([0.97, 1.0, 1.02]) + 3, 0, 255).astype(np.uint8)
    assert judge(little).score > judge(good).score - 1
    move = np.array([[1, 0, 2], [0, 1, -1]], np.float32)
    moved = judge(cv2.warpAffine(good, move, (SIDE, SIDE), borderMode=cv2.BORDER_REPLICATE))
    assert moved.measurements["moved"] == pytest.approx(100 * np.hypot(2, 1) / SIDE, abs=0.1)
    assert moved.passed


def test_a_verdict_is_reproducible_finite_and_decided_by_the_threshold() -> None:
    good = darkened(part_photo(), scratch())
    verdict = judge(good)
    assert verdict == judge(good)
    assert verdict.score == pytest.approx(verdict.location_score + verdict.quality_score)
    assert all(np.isfinite(value) for value in verdict.measurements.values())
    assert judge(good, threshold=verdict.score).passed
    assert not judge(good, threshold=min(10.0, verdict.score + 0.01)).passed


@pytest.mark.parametrize("change", ["all", "half", "pixel", "corner", "inverted"])
def test_any_change_has_a_finite_verdict(change: str) -> None:
    photo = np.random.default_rng(3).integers(0, 256, (40, 33, 3), dtype=np.uint8)
    edited = photo.copy()
    place = {"all": np.s_[:], "half": np.s_[:20], "pixel": np.s_[20:21, 9:10], "corner": np.s_[:3, :3]}
    edited[place.get(change, np.s_[:])] = 255 - photo if change == "inverted" else 7
    for normal, anomaly in ((photo, edited), (edited, photo), (np.zeros_like(photo), edited)):
        verdict = statistics.evaluate(normal, anomaly, "plate", "scratch")
        assert 0 <= verdict.score <= 10
        assert all(np.isfinite(value) for value in verdict.measurements.values())


def test_photos_that_cannot_be_compared_are_refused_with_the_cure() -> None:
    photo = part_photo()
    with pytest.raises(ValueError, match="differ in size"):
        statistics.evaluate(photo, photo[:300], "plate", "scratch")
    with pytest.raises(ValueError, match="at least 32 x 32"):
        statistics.evaluate(photo[:20, :20], photo[:20, :20], "plate", "scratch")
    with pytest.raises(ValueError, match="uint8 RGB"):
        statistics.evaluate(photo[..., 0], photo[..., 0], "plate", "scratch")
    with pytest.raises(ValueError, match="between 0 and 10"):
        judge(photo, threshold=11)


def test_every_figure_has_a_meaning_and_every_advice_is_one_that_a_policy_understands() -> None:
    assert set(MEANINGS) == set(PLACE.terms) | set(LOOK.terms)
    for meaning in (pair for pairs in MEANINGS.values() for pair in pairs if pair):
        assert meaning[0] in ADVICE
        assert advice_in(": ".join(meaning)) == [meaning[0]]
    prompt = "Using the provided image, change only the left side to introduce a mark. The defect is small and faint."
    assert refine(prompt, judge(blob_over_the_ground()).review, "plate").changes


def test_no_measurement_is_shared_with_the_judge_local() -> None:
    good = darkened(part_photo(), scratch())
    own, other = judge(good), local(part_photo(), good, "plate", "scratch", None)
    assert not set(own.measurements) & set(other.measurements)
    shared = ("mcp_servers.quality_eval.local", "mcp_servers.mask_gen", "mcp_servers.vision")
    taken = set()
    for file in sorted(Path(statistics.__file__).parent.glob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and str(node.module).startswith(shared):
                taken |= {f"{node.module}.{name.name}" for name in node.names}
    assert taken == {
        "mcp_servers.quality_eval.local.verdict.Verdict",
        "mcp_servers.mask_gen.local.check_pair",
        *(f"mcp_servers.vision.types.{name}" for name in ("Field", "Image", "Mask")),
    }


def test_the_tool_serves_it_alone_and_together_with_local(store: Store, photo: np.ndarray) -> None:
    pair = TASK | edited_pair(store, photo)
    alone, told = call(store, "quality_eval", BackendChoice("statistics"), pair)
    one = alone.structured_content
    assert (one["backend"], one["model"], one["cost_usd"], one["disagreement"]) == ("statistics", "", 0, 0)
    assert (told["name"], told["problem"], told["max_cost_usd"]) == ("statistics", "", 0)
    other = call(store, "quality_eval", BackendChoice(), pair)[0].structured_content
    both, told = call(store, "quality_eval", BackendChoice("local+statistics"), pair)
    verdict = both.structured_content
    assert told["name"] == verdict["backend"] == "local+statistics"
    assert verdict["score"] == pytest.approx((one["score"] + other["score"]) / 2, abs=0.02)
    assert verdict["disagreement"] == pytest.approx(abs(one["score"] - other["score"]), abs=0.01)
    assert verdict["measurements"]["score_statistics"] == one["score"]
    assert not facts(BackendChoice("local+statistics")).open_world


def test_it_needs_no_profile_of_the_defect_type(store: Store, photo: np.ndarray) -> None:
    odd = TASK | edited_pair(store, photo) | {"anomaly_type": "sadness"}
    assert not call(store, "quality_eval", BackendChoice("statistics"), odd)[0].is_error
    assert call(store, "quality_eval", BackendChoice("local+statistics"), odd)[0].is_error


@pytest.mark.parametrize("form", ["grey", "rgba", "deep"])
def test_grey_transparent_and_16_bit_photos_are_judged_as_the_same_photo(store: Store, form: str) -> None:
    good, bad = part_photo(), darkened(part_photo(), scratch())
    if form == "grey":
        good, bad = (cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY) for photo in (good, bad))
        plain = statistics.evaluate(
            *(np.repeat(photo[..., None], 3, axis=2) for photo in (good, bad)), "plate", "scratch"
        )
        photos = [Photo(photo) for photo in (good, bad)]
    elif form == "deep":
        plain = judge(bad)
        photos = [Photo(photo.astype(np.uint16) * 257) for photo in (good, bad)]
    else:
        plain = judge(bad)
        photos = [Photo(photo, alpha=np.full(photo.shape[:2], 255, np.uint8)) for photo in (good, bad)]
    pair = {"normal_image": store.put(photos[0]), "anomaly_image": store.put(photos[1])}

    async def main() -> Any:
        choice = {SPEC.role: BackendChoice("statistics")}
        async with Client(build_server("judges", store, [SPEC], "", choices=choice)) as client:
            return await client.call_tool("quality_eval", TASK | pair)

    verdict = anyio.run(main).structured_content
    assert verdict["score"] == pytest.approx(plain.score, abs=0.3)
    assert verdict["passed"]


def test_an_episode_is_judged_by_it(home: Path, photo_file: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "agent.run", str(photo_file), "--item", "plate", "--anomaly", "scratch"]
    done = subprocess.run(
        [*command, "--judge", "statistics", "--threshold", "1", "--out", str(tmp_path / "out")],
        cwd=ROOT, capture_output=True, text=True, timeout=120, env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    assert result["backends"]["quality_eval"] == "statistics"
    assert result["score"] >= 1
