"""Models as judges: alone, with the built-in judge and with each other."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from agent.policies.refine import refine
from mcp_servers.backends import BackendChoice
from mcp_servers.images import Photo
from mcp_servers.prompt_gen.model import read_prompt
from mcp_servers.quality_eval.advice import ADVICE, joined, written
from mcp_servers.quality_eval.local.verdict import Verdict
from mcp_servers.quality_eval.model import read_verdict
from mcp_servers.quality_eval.panel import combined
from mcp_servers.quality_eval.server import facts
from mcp_servers.store import Store
from mcp_servers.vlm import parts_of

from .conftest import make_photo
from .servers.fake_models import FakeModels, fake_models, gemini_says, openai_says
from .servers.model_calls import (
    GOOD,
    KEY,
    PROMPT,
    SERVICES,
    VERDICT,
    arguments,
    call,
    choice,
    edited_pair,
    failure,
    own_prices,
    reply_for,
    says,
)


@pytest.fixture(autouse=True)
def prices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own_prices(tmp_path, monkeypatch)


@pytest.fixture
def pair(store: Store, photo: np.ndarray) -> dict[str, str]:
    return edited_pair(store, photo)


@pytest.mark.parametrize("service", SERVICES)
def test_a_model_judges_both_photos_by_the_two_criteria(store: Store, pair: dict[str, str], service: str) -> None:
    with fake_models(says(service, reply_for("quality_eval", advice=["Make the defect more pronounced"]))) as fake:
        result, _ = call(
            store, "quality_eval", choice(service, fake), arguments("quality_eval", pair) | {"threshold": 8}
        )
    verdict = result.structured_content
    assert (verdict["score"], verdict["location_score"], verdict["quality_score"]) == (7.5, 4.5, 3.0)
    assert verdict["review"] == "Make the defect more pronounced. The line is too faint."
    assert verdict["passed"] is False
    assert (verdict["backend"], verdict["model"], verdict["disagreement"]) == (service, "vlm", 0.0)
    assert verdict["cost_usd"] == pytest.approx(2.6)
    pictures = pictures_in(fake)
    assert len(pictures) == 2
    assert not np.array_equal(*pictures)
    asked = fake.texts()
    assert "good part" in asked
    assert "after the edit" in asked


def pictures_in(fake: FakeModels, number: int = -1) -> list[np.ndarray]:
    """The pictures of a request, decoded: (H, W, 3) BGR."""
    body = fake.requests[number]["body"]
    if "messages" in body:
        urls = [part["image_url"]["url"] for part in body["messages"][1]["content"] if part["type"] == "image_url"]
        encoded = [url.partition(",")[2] for url in urls]
    else:
        encoded = [part["inlineData"]["data"] for part in body["contents"][0]["parts"] if "inlineData" in part]
    data = [base64.b64decode(one.replace("-", "+").replace("_", "/")) for one in encoded]
    return [cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR) for png in data]


def test_of_a_large_photo_the_judge_is_also_shown_the_change_at_full_size(store: Store) -> None:
    good = cv2.resize(make_photo(640, 480), (2560, 1920), interpolation=cv2.INTER_CUBIC)
    edited = good.copy()
    cv2.line(edited, (1500, 900), (1580, 960), (240, 240, 240), 2, cv2.LINE_AA)
    pair = {"anomaly_image": store.put(Photo(edited)), "normal_image": store.put(Photo(good))}
    with fake_models(openai_says(GOOD)) as fake:
        call(store, "quality_eval", choice("openai", fake), arguments("quality_eval", pair))
        same = pair | {"anomaly_image": pair["normal_image"]}
        call(store, "quality_eval", choice("openai", fake), arguments("quality_eval", same))
    assert "enlarged" in fake.texts(0)
    shown = pictures_in(fake, 0)
    assert [picture.shape[:2] for picture in shown] == [(768, 1024), (768, 1024), (256, 256), (256, 256)]
    window = good[930 - 128 : 930 + 128, 1540 - 128 : 1540 + 128, ::-1]
    assert np.abs(shown[2].astype(int) - window).mean() < 12  # within a few pixels of the middle of the line
    assert np.abs(shown[3].astype(int) - shown[2]).max() > 60
    assert len(pictures_in(fake, 1)) == 2  # nothing changed, nothing to enlarge


def test_a_local_and_a_model_judge_give_the_mean_and_their_disagreement(store: Store, pair: dict[str, str]) -> None:
    alone, _ = call(store, "quality_eval", BackendChoice(), arguments("quality_eval", pair))
    local = alone.structured_content
    assert (local["cost_usd"], local["model"], local["backend"]) == (0.0, "", "local")
    low = reply_for("quality_eval", location_score=0, quality_score=0, advice=["Move the defect onto the part"])
    with fake_models(openai_says(low)) as fake:
        both, facts = call(store, "quality_eval", choice("local+openai", fake), arguments("quality_eval", pair))
    verdict = both.structured_content
    assert verdict["location_score"] == pytest.approx(local["location_score"] / 2, abs=0.01)
    assert verdict["quality_score"] == pytest.approx(local["quality_score"] / 2, abs=0.01)
    assert verdict["score"] == pytest.approx(verdict["location_score"] + verdict["quality_score"], abs=0.01)
    assert verdict["disagreement"] == pytest.approx(local["score"])
    assert verdict["measurements"]["score_local"] == local["score"]
    assert verdict["measurements"]["score_openai"] == 0
    assert "contrast" in verdict["measurements"]
    assert any("disagree" in note for note in verdict["notes"]) == (local["score"] > 2)
    assert verdict["review"].startswith("Move the defect onto the part.")
    assert (verdict["backend"], verdict["model"], facts["name"]) == ("local+openai", "vlm", "local+openai")


def test_where_one_of_two_judges_fails_there_is_no_score_and_the_cost_of_both_is_told(
    store: Store, pair: dict[str, str]
) -> None:
    with fake_models(gemini_says(GOOD)) as first, fake_models(openai_says("no")) as second:
        chosen = BackendChoice("gemini+openai", "vlm+vlm", f"{first.url}+{second.url}/v1")
        result, facts = call(store, "quality_eval", chosen, arguments("quality_eval", pair))
    assert failure(result) == {"kind": "malformed", "cost_usd": pytest.approx(4 * 2.6), "attempts": 3}
    assert facts["model"] == "vlm+vlm"
    assert facts["problem"] == ""


def test_two_services_judge_together(store: Store, pair: dict[str, str]) -> None:
    with fake_models(gemini_says(GOOD)) as first, fake_models(openai_says(GOOD)) as second:
        chosen = BackendChoice("gemini+openai", "vlm+vlm", f"{first.url}+{second.url}/v1")
        result, _ = call(store, "quality_eval", chosen, arguments("quality_eval", pair))
    assert result.structured_content["score"] == 7.5
    assert result.structured_content["disagreement"] == 0
    assert result.structured_content["cost_usd"] == pytest.approx(2 * 2.6)
    assert all("authorization" not in request["headers"] or "none" in request["headers"]["authorization"].lower()
               for request in second.requests)  # fmt: skip


def test_a_task_that_the_local_judge_cannot_take_costs_nothing(store: Store, pair: dict[str, str]) -> None:
    with fake_models(openai_says(GOOD)) as fake:
        odd = arguments("quality_eval", pair) | {"anomaly_type": "sadness"}
        both, _ = call(store, "quality_eval", choice("local+openai", fake), odd)
        assert both.is_error
        assert fake.requests == []
        alone, _ = call(store, "quality_eval", choice("openai", fake), odd)
    assert alone.structured_content["score"] == 7.5


def test_the_strictest_review_comes_first_and_is_neither_repeated_nor_contradicted() -> None:
    def verdict(score: float, review: str) -> Verdict:
        half = score / 2
        return Verdict(
            score=score, location_score=half, quality_score=half, review=review, passed=False, measurements={}
        )

    kind = verdict(8, "Make the defect less pronounced: it glares. Match the grain of the photo. Nearly there.")
    harsh = verdict(3, "Make the defect more pronounced. Match the grain of the photo: too smooth.")
    mean, apart = combined({"local": kind, "openai": harsh}, 5.0)
    assert (mean.score, apart, mean.passed) == (5.5, 5.0, True)
    assert mean.review == ("Make the defect more pronounced. Match the grain of the photo: too smooth. Nearly there.")
    assert joined(["A. B.", "B. C."]) == "A. B. C."


def test_every_piece_of_advice_is_one_that_the_planner_acts_on() -> None:
    prompt = read_prompt(PROMPT, "scratch")
    for phrase in ADVICE:
        assert refine(prompt, f"{phrase}.", "plate").changes, phrase


def test_free_text_of_a_review_cannot_pass_for_advice() -> None:
    remarks = "There is no need to make the defect larger. The rim looks soft."
    assert written(["Match the grain of the photo"], remarks) == "Match the grain of the photo. The rim looks soft."


def test_a_verdict_is_rounded_and_passes_at_the_threshold() -> None:
    verdict = read_verdict(json.dumps(VERDICT | {"location_score": 3.333, "quality_score": 3.667}), 7.0)
    assert (verdict.location_score, verdict.quality_score, verdict.score, verdict.passed) == (3.33, 3.67, 7.0, True)


@pytest.mark.parametrize(
    ("chosen", "problem"),
    [
        (BackendChoice("openai"), "OpenAI needs a key: set OPENAI_API_KEY (or ANOMALY_AGENT_JUDGE_API_KEY)"),
        (BackendChoice("gemini"), "Gemini needs a key"),
        (BackendChoice("openai", base_url="http://127.0.0.1:8000/v1"), "--judge-model is missing"),
        (BackendChoice("gemini+openai", "one", api_key=""), "name one for each of gemini+openai"),
        (BackendChoice("gemini+openai", api_key=KEY), "is for one service"),
        (BackendChoice("local+gemini"), "Gemini needs a key"),
    ],
)
def test_a_judge_that_cannot_be_used_says_why_in_the_tools_meta(
    store: Store, pair: dict[str, str], chosen: BackendChoice, problem: str
) -> None:
    result, facts = call(store, "quality_eval", chosen, arguments("quality_eval", pair))
    assert problem in facts["problem"]
    assert failure(result)["kind"] == "setup"


def test_prices_tell_what_a_call_may_cost_at_most(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    assert 0 < (facts(BackendChoice("openai")).max_cost_usd or 0) < 1
    assert facts(BackendChoice("openai")).open_world
    assert not facts(BackendChoice()).open_world
    assert facts(BackendChoice("openai", "unheard-of")).max_cost_usd is None
    assert facts(BackendChoice("openai", "unheard-of", "http://127.0.0.1:1/v1")).max_cost_usd == 0
    assert facts(BackendChoice("openai", "unheard-of", "http://10.0.0.7/v1")).max_cost_usd is None
    one, other = (facts(BackendChoice("openai", "m", f"http://127.0.0.1:{port}/v1")).version for port in (1, 2))
    assert one != other
    (tmp_path / "prices.toml").write_text("broken")
    assert "ANOMALY_AGENT_PRICES" in facts(BackendChoice("openai")).problem


def test_model_and_address_belong_to_the_service_among_the_judges() -> None:
    local, remote = parts_of(BackendChoice("local+openai", "m", "http://x/v1", KEY))
    assert (local.model, local.base_url) == ("", "")
    assert (remote.model, remote.base_url, remote.api_key) == ("m", "http://x/v1", KEY)
    first, second = parts_of(BackendChoice("gemini+openai", "+m", api_key=KEY))
    assert (first.model, second.model, first.api_key, second.api_key) == ("", "m", "", "")
