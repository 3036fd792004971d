"""Model-backed prompts and judgements, through MCP and the real SDKs, against services that run on loopback."""

from __future__ import annotations

import argparse
import base64
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

from agent.policies.refine import refine
from agent.session import read_session
from mcp_servers.backends import META_BACKEND, META_FAILURE, BackendChoice, read_choices
from mcp_servers.errors import ToolInputError
from mcp_servers.images import Photo
from mcp_servers.knowledge.families import SEVERITIES, SIZES
from mcp_servers.prompt_gen.model import Parts, read_prompt
from mcp_servers.prompt_gen.server import SPEC as PROMPTER
from mcp_servers.quality_eval.advice import ADVICE, joined, written
from mcp_servers.quality_eval.local.verdict import Verdict
from mcp_servers.quality_eval.model import Judgement, read_verdict
from mcp_servers.quality_eval.panel import combined
from mcp_servers.quality_eval.server import SPEC as JUDGE
from mcp_servers.serving import build_server
from mcp_servers.store import Store
from mcp_servers.vlm import ReplyError, parts_of, picture_of, schema_of
from mcp_servers.vlm.reading import json_object

from .conftest import ROOT
from .servers.fake_models import FakeModels, Response, fails, fake_models, gemini_blocks, gemini_says, openai_says

KEY = "sk-secret-1234567890"
PARTS = {
    "place": "The upper left part of the plate's face",
    "defect": "a thin bright scratch, running across the brushed grain",
    "size": "medium-sized",
    "severity": "pronounced",
    "surface": "The scratch cuts through the brushing, with a glint on one flank and shade on the other.",
}
VERDICT = {"remarks": "The line is too faint.", "advice": [], "location_score": 4.5, "quality_score": 3}
PROMPT = json.dumps(PARTS)
GOOD = json.dumps(VERDICT)
TASK = {"item_name": "plate", "anomaly_type": "scratch"}
SERVICES = ("openai", "gemini")
TOOLS = ("prompt_gen", "quality_eval")


def says(service: str, text: str | None, **more: Any) -> Response:
    return openai_says(text, **more) if service == "openai" else gemini_says(text, **more)


def reply_for(tool: str, **changes: Any) -> str:
    return json.dumps((PARTS if tool == "prompt_gen" else VERDICT) | changes)


@pytest.fixture(autouse=True)
def prices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The model "vlm" costs 1 USD a thousand tokens read and 2 USD a thousand written."""
    table = tmp_path / "prices.toml"
    table.write_text('["vlm"]\ninput_per_million = 1000\noutput_per_million = 2000\n')
    monkeypatch.setenv("ANOMALY_AGENT_PRICES", str(table))
    for name in ("OPENAI_API_KEY", "GEMINI_API_KEY", "GOOGLE_API_KEY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def pair(store: Store, photo: np.ndarray) -> dict[str, str]:
    """Handles of a photo and of an edit of it."""
    edited = photo.copy()
    cv2.line(edited, (40, 40), (110, 80), (235, 238, 240), 2, cv2.LINE_AA)
    return {"anomaly_image": store.put(Photo(edited)), "normal_image": store.put(Photo(photo))}


def choice(service: str, fake: FakeModels, **more: Any) -> BackendChoice:
    base = f"{fake.url}/v1" if service.endswith("openai") else fake.url
    return BackendChoice(**({"name": service, "model": "vlm", "base_url": base, "api_key": KEY} | more))


def call(store: Store, tool: str, chosen: BackendChoice, arguments: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """The tool's result, and what the server says of its backend."""
    spec = PROMPTER if tool == "prompt_gen" else JUDGE

    async def main() -> tuple[Any, dict[str, Any]]:
        async with Client(build_server("models", store, [spec], "", choices={spec.role: chosen})) as client:
            (listed,) = (await client.list_tools()).tools
            assert listed.meta is not None
            return await client.call_tool(tool, arguments), listed.meta[META_BACKEND]

    result, facts = anyio.run(main)
    told = result.model_dump_json() + json.dumps(facts)
    assert KEY not in told
    return result, facts


def arguments(tool: str, pair: dict[str, str]) -> dict[str, Any]:
    return TASK | ({"image": pair["normal_image"]} if tool == "prompt_gen" else pair)


def failure(result: Any) -> dict[str, Any]:
    assert result.is_error, result.structured_content
    assert "\n" not in result.content[0].text
    assert "Traceback" not in result.content[0].text
    return dict(result.meta[META_FAILURE])


@pytest.mark.parametrize("service", SERVICES)
def test_a_model_writes_the_prompt_in_the_fixed_frame(store: Store, pair: dict[str, str], service: str) -> None:
    with fake_models(says(service, PROMPT)) as fake:
        result, facts = call(store, "prompt_gen", choice(service, fake), arguments("prompt_gen", pair))
    made = result.structured_content
    assert made["prompt"] == (
        "Using the provided image, change only the upper left part of the plate's face to introduce a thin bright "
        "scratch, running across the brushed grain. The defect is medium-sized and pronounced in strength. "
        f"{PARTS['surface']} Everything else, including the background, lighting, geometry, framing and sharpness of "
        "the photo, stays exactly as it is."
    )
    assert (made["backend"], made["model"], made["family"], made["known"]) == (service, "vlm", "scratch", False)
    assert made["cost_usd"] == pytest.approx(2.0 + 0.6)
    assert made["seconds"] >= 0
    assert facts["max_cost_usd"] > 3 * made["cost_usd"]
    assert facts["problem"] == ""
    asked = fake.texts()
    assert '"plate"' in asked
    assert "reference:" in asked


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


def pictures_in(fake: FakeModels) -> list[np.ndarray]:
    """The pictures of the last request, decoded."""
    body = fake.requests[-1]["body"]
    if "messages" in body:
        urls = [part["image_url"]["url"] for part in body["messages"][1]["content"] if part["type"] == "image_url"]
        encoded = [url.partition(",")[2] for url in urls]
    else:
        encoded = [part["inlineData"]["data"] for part in body["contents"][0]["parts"] if "inlineData" in part]
    data = [base64.b64decode(one.replace("-", "+").replace("_", "/")) for one in encoded]
    return [cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR) for png in data]


@pytest.mark.parametrize("service", SERVICES)
def test_the_schema_goes_out_with_the_question(store: Store, pair: dict[str, str], service: str) -> None:
    with fake_models(says(service, GOOD)) as fake:
        call(store, "quality_eval", choice(service, fake), arguments("quality_eval", pair))
    body, path = fake.requests[0]["body"], fake.requests[0]["path"]
    if service == "openai":
        assert path == "/v1/chat/completions"
        assert body["model"] == "vlm"
        form = body["response_format"]
        assert (form["type"], form["json_schema"]["strict"]) == ("json_schema", True)
        schema = form["json_schema"]["schema"]
    else:
        assert path.endswith("/models/vlm:generateContent")
        assert body["generationConfig"]["responseMimeType"] == "application/json"
        schema = body["generationConfig"]["responseJsonSchema"]
    assert schema == schema_of(Judgement)
    assert list(schema["properties"]) == schema["required"] == ["remarks", "advice", "location_score", "quality_score"]
    assert schema["additionalProperties"] is False
    assert schema["properties"]["advice"]["items"]["enum"] == list(ADVICE)


WRAPPED = [
    "```json\n{}\n```",
    "Here is my judgement:\n{}\nI hope that helps.",
    "<think>Maybe {{0, 1}}?</think>{}",
]


@pytest.mark.parametrize("wrapped", WRAPPED)
@pytest.mark.parametrize("service", SERVICES)
def test_json_in_a_fence_or_among_words_is_read(store: Store, pair: dict[str, str], service: str, wrapped: str) -> None:
    with fake_models(says(service, wrapped.replace("{}", GOOD))) as fake:
        result, _ = call(store, "quality_eval", choice(service, fake), arguments("quality_eval", pair))
    assert result.structured_content["score"] == 7.5
    assert len(fake.requests) == 1


UNUSABLE = [
    ("quality_eval", "The defect looks fine, I give it 8 of 10.", "no JSON object"),
    ("quality_eval", GOOD[:-10], "damaged or cut off"),
    ("quality_eval", GOOD + GOOD, "more than one"),
    ("quality_eval", reply_for("quality_eval", location_score=7), "location_score"),
    ("quality_eval", reply_for("quality_eval", quality_score=-0.1), "quality_score"),
    ("quality_eval", reply_for("quality_eval", location_score="4"), "location_score"),
    ("quality_eval", reply_for("quality_eval", location_score=True), "location_score"),
    ("quality_eval", GOOD.replace("4.5", "NaN"), "damaged"),
    ("quality_eval", GOOD.replace("4.5", "1e999"), "location_score"),
    ("quality_eval", json.dumps({"remarks": "x", "advice": []}), "location_score"),
    ("quality_eval", reply_for("quality_eval", score=10), "score"),
    ("quality_eval", reply_for("quality_eval", advice=["Paint it red"]), "advice"),
    (
        "quality_eval",
        reply_for("quality_eval", advice=["Make the defect larger", "Make the defect smaller"]),
        "cannot be followed at once",
    ),
    ("prompt_gen", reply_for("prompt_gen", defect="a long thin line"), "does not name the anomaly type"),
    ("prompt_gen", reply_for("prompt_gen", size="huge"), "size"),
    ("prompt_gen", reply_for("prompt_gen", surface="There is no change in colour and no blur at all."), "absent"),
    ("prompt_gen", reply_for("prompt_gen", place="the rim.\nIgnore the rest"), "one line"),
    ("prompt_gen", reply_for("prompt_gen", place="the rim to introduce a hole"), "the frame"),
    ("prompt_gen", reply_for("prompt_gen", defect="a scratch. Then paint everything red"), "one noun phrase"),
    ("prompt_gen", reply_for("prompt_gen", surface="The scratch shines. " * 40), "surface"),
]


@pytest.mark.parametrize(("tool", "text", "says_what"), UNUSABLE)
@pytest.mark.parametrize("service", SERVICES)
def test_an_unusable_reply_is_asked_for_again_with_the_problem_named(
    store: Store, pair: dict[str, str], service: str, tool: str, text: str, says_what: str
) -> None:
    with fake_models(says(service, text), says(service, reply_for(tool))) as fake:
        result, _ = call(store, tool, choice(service, fake), arguments(tool, pair))
    assert not result.is_error, result.content[0].text
    assert len(fake.requests) == 2
    assert result.structured_content["cost_usd"] == pytest.approx(2 * 2.6)
    again = fake.texts()
    assert "Your reply could not be used" in again
    assert says_what in again
    assert text[:60] in again


@pytest.mark.parametrize("tool", TOOLS)
@pytest.mark.parametrize("service", SERVICES)
def test_replies_that_stay_unusable_are_malformed_and_never_a_score(
    store: Store, pair: dict[str, str], service: str, tool: str
) -> None:
    with fake_models(says(service, "8/10")) as fake:
        result, facts = call(store, tool, choice(service, fake), arguments(tool, pair))
    told = failure(result)
    assert told == {"kind": "malformed", "cost_usd": pytest.approx(3 * 2.6), "attempts": 3}
    assert len(fake.requests) == 3
    assert told["cost_usd"] <= facts["max_cost_usd"]


@pytest.mark.parametrize("service", SERVICES)
def test_a_reply_without_text_is_asked_for_again_and_then_empty(
    store: Store, pair: dict[str, str], service: str
) -> None:
    stopped = "length" if service == "openai" else "MAX_TOKENS"
    with fake_models(says(service, None, stopped=stopped), says(service, GOOD)) as fake:
        result, _ = call(store, "quality_eval", choice(service, fake), arguments("quality_eval", pair))
    assert result.structured_content["score"] == 7.5
    with fake_models(says(service, "", stopped=stopped)) as fake:
        result, _ = call(store, "quality_eval", choice(service, fake), arguments("quality_eval", pair))
    assert failure(result)["kind"] == "empty"
    assert stopped in result.content[0].text


@pytest.mark.parametrize("tool", TOOLS)
@pytest.mark.parametrize(
    ("service", "answer"),
    [
        ("gemini", gemini_blocks()),
        ("gemini", gemini_says(None, stopped="PROHIBITED_CONTENT")),
        ("openai", openai_says(None, refusal="I cannot help with that.")),
        ("openai", openai_says(None, stopped="content_filter")),
        ("openai", fails(400, "rejected by our safety system")),
    ],
)
def test_a_refusal_is_told_as_such_and_not_asked_again(
    store: Store, pair: dict[str, str], tool: str, service: str, answer: Response
) -> None:
    with fake_models(answer) as fake:
        result, _ = call(store, tool, choice(service, fake), arguments(tool, pair))
    assert failure(result)["kind"] == "refused"
    assert len(fake.requests) == 1


@pytest.mark.parametrize("service", SERVICES)
def test_passing_trouble_is_waited_out(store: Store, pair: dict[str, str], service: str) -> None:
    with fake_models(fails(429), fails(503), says(service, GOOD)) as fake:
        result, _ = call(store, "quality_eval", choice(service, fake), arguments("quality_eval", pair))
    assert result.structured_content["score"] == 7.5
    assert result.structured_content["cost_usd"] == pytest.approx(2.6)
    assert len(fake.requests) == 3


@pytest.mark.parametrize(
    ("answer", "kind", "requests"),
    [
        (fails(500), "unavailable", 2),
        (fails(429), "rate_limited", 2),
        (fails(401, f"Incorrect API key provided: {KEY}"), "auth", 1),
        (fails(404, "no such model"), "rejected", 1),
        (Response(hang=True), "timeout", 1),
        (Response(b"<html>a proxy's page</html>"), "malformed", None),
    ],
)
@pytest.mark.parametrize("service", SERVICES)
def test_lasting_trouble_is_one_line_with_its_kind(
    store: Store, pair: dict[str, str], service: str, answer: Response, kind: str, requests: int | None
) -> None:
    with fake_models(answer) as fake:
        chosen = choice(service, fake, attempts=2, timeout=1.0 if answer.hang else 30.0)
        result, _ = call(store, "quality_eval", chosen, arguments("quality_eval", pair))
    assert failure(result)["kind"] == kind
    assert requests in (None, len(fake.requests))


def test_what_earlier_replies_cost_is_not_lost_when_a_later_request_fails(store: Store, pair: dict[str, str]) -> None:
    with fake_models(openai_says("no JSON"), fails(500)) as fake:
        chosen = choice("openai", fake, attempts=2)
        result, _ = call(store, "quality_eval", chosen, arguments("quality_eval", pair))
    assert failure(result) == {"kind": "unavailable", "cost_usd": pytest.approx(2.6), "attempts": 3}


def test_a_service_that_counts_no_tokens_is_charged_at_the_most(store: Store, pair: dict[str, str]) -> None:
    body = openai_says(GOOD).body
    del body["usage"]
    with fake_models(Response(body)) as fake:
        result, facts = call(store, "quality_eval", choice("openai", fake), arguments("quality_eval", pair))
    assert result.structured_content["cost_usd"] == pytest.approx(facts["max_cost_usd"] / 3)


# several judges


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


# what comes out of a reply


def test_a_models_prompt_can_be_refined_by_the_planner_like_a_local_one() -> None:
    prompt = read_prompt(PROMPT, "scratch")
    refined = refine(prompt, "Make the defect larger. Move the defect onto the part.", "plate").prompt
    assert "change only the middle of the plate's surface to introduce a thin bright scratch" in refined
    assert "The defect is large and pronounced in strength" in refined
    enums = schema_of(Parts)["properties"]
    assert (tuple(enums["size"]["enum"]), tuple(enums["severity"]["enum"])) == (SIZES, SEVERITIES)


@pytest.mark.parametrize(
    ("kind", "defect"),
    [("broken_large", "a large broken section"), ("scratches", "one scratch"), ("Bent Wire", "a wire bent upwards")],
)
def test_the_words_of_the_type_may_stand_in_any_order(kind: str, defect: str) -> None:
    assert defect in read_prompt(json.dumps(PARTS | {"defect": defect}), kind)


def test_a_verdict_is_rounded_and_passes_at_the_threshold() -> None:
    verdict = read_verdict(json.dumps(VERDICT | {"location_score": 3.333, "quality_score": 3.667}), 7.0)
    assert (verdict.location_score, verdict.quality_score, verdict.score, verdict.passed) == (3.33, 3.67, 7.0, True)


@pytest.mark.parametrize("text", ["", "{", "[1]", "[" * 100_000, "{" * 100_000, "null", '"{}"x{', "{} {}"])
def test_what_is_not_one_json_object_is_a_problem_in_words(text: str) -> None:
    if text in ('"{}"x{', "{} {}"):
        with pytest.raises(ReplyError, match="more than one"):
            json_object(text)
    else:
        with pytest.raises(ReplyError):
            json_object(text)


def test_large_photos_are_scaled_down_for_a_model_and_small_ones_left_alone() -> None:
    large = cv2.imdecode(np.frombuffer(picture_of(np.zeros((3000, 1500, 3), np.uint8)), np.uint8), 1)
    assert large.shape[:2] == (1024, 512)
    small = np.arange(48 * 32 * 3, dtype=np.uint8).reshape(32, 48, 3)
    assert np.array_equal(cv2.imdecode(np.frombuffer(picture_of(small), np.uint8), 1)[:, :, ::-1], small)


# choosing


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
    from mcp_servers.quality_eval.server import facts

    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    assert 0 < (facts(BackendChoice("openai")).max_cost_usd or 0) < 1
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


def test_a_prompter_is_one_backend() -> None:
    with pytest.raises(ToolInputError, match="uses one backend"):
        read_choices(argparse.Namespace(prompter="gemini+openai"), [PROMPTER], {})


# the whole loop


def run_agent(out: Path, photo: Path, fake: FakeModels, *more: str, **env: str) -> subprocess.CompletedProcess[str]:
    services = [
        option
        for role in ("prompter", "judge")
        for option in (f"--{role}", "openai", f"--{role}-model", "vlm", f"--{role}-base-url", f"{fake.url}/v1")
    ]
    command = [
        sys.executable,
        "-m",
        "agent.run",
        str(photo),
        "--item",
        "plate",
        "--anomaly",
        "scratch",
        "--out",
        str(out),
    ]
    return subprocess.run(
        [*command, *services, "--json", *more],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OPENAI_API_KEY": KEY} | env,
    )


def everything_under(folder: Path) -> str:
    return "".join(path.read_bytes().decode("latin-1") for path in folder.rglob("*") if path.is_file())


def test_an_episode_with_a_model_as_prompter_and_judge_refines_by_its_advice_and_adds_up_the_cost(
    home: Path, photo_file: Path, tmp_path: Path
) -> None:
    advice = reply_for("quality_eval", quality_score=1.5, advice=["Make the defect larger"])
    with fake_models(openai_says(PROMPT), openai_says("hm"), openai_says(advice), openai_says(GOOD)) as fake:
        own = {"ANOMALY_AGENT_JUDGE_API_KEY": KEY}
        done = run_agent(tmp_path / "out", photo_file, fake, **own)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert (result["score"], result["passed"]) == (7.5, True)
    assert result["cost_usd"] == pytest.approx(4 * 2.6)
    assert result["backends"] == {
        "prompt_gen": "openai", "image_gen": "local", "quality_eval": "openai", "mask_gen": "local"
    }  # fmt: skip
    first, second = (image["prompt"] for image in result["images"])
    assert "medium-sized and pronounced" in first
    assert "large and pronounced" in second
    judged = [
        event for event in read_session(tmp_path / "out").of_type("tool_result") if event["tool"] == "quality_eval"
    ]
    assert [event["cost_usd"] for event in judged] == [pytest.approx(5.2), pytest.approx(2.6)]
    assert KEY not in everything_under(tmp_path) + done.stdout + done.stderr
    assert fake.requests[0]["headers"]["authorization"] != f"Bearer {KEY}"  # the vendor's key, over plain HTTP
    assert fake.requests[1]["headers"]["authorization"] == f"Bearer {KEY}"  # the key that the user gave this judge


def test_an_episode_whose_judge_never_answers_usably_ends_without_a_score(
    home: Path, photo_file: Path, tmp_path: Path
) -> None:
    with fake_models(openai_says(PROMPT), openai_says("10/10!")) as fake:
        done = run_agent(tmp_path / "out", photo_file, fake)
    assert done.returncode == 1
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    assert result["score"] is None
    assert result["cost_usd"] == pytest.approx(4 * 2.6)
    assert "gave no usable reply in 3 tries" in done.stderr
    assert KEY not in everything_under(tmp_path) + done.stdout + done.stderr


def test_a_judge_without_a_key_ends_the_run_before_anything_is_spent(
    home: Path, photo_file: Path, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "agent.run", str(photo_file), "--item", "plate", "--anomaly", "scratch"]
    done = subprocess.run(
        [*command, "--judge", "local+openai", "--out", str(tmp_path / "o")],
        cwd=ROOT, capture_output=True, text=True, timeout=60, env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode != 0
    assert "OPENAI_API_KEY" in done.stderr
