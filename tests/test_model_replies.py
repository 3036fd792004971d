"""Replies of models, good and bad, and services in trouble: through MCP and the real SDKs, against loopback."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from mcp_servers.quality_eval.advice import ADVICE
from mcp_servers.quality_eval.model import Judgement
from mcp_servers.store import Store
from mcp_servers.vlm import ReplyError, picture_of, schema_of
from mcp_servers.vlm.reading import json_object

from .servers.fake_models import Response, fails, fake_models, gemini_blocks, gemini_says, openai_says
from .servers.model_calls import (
    GOOD,
    KEY,
    SERVICES,
    TOOLS,
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


@pytest.mark.parametrize(
    ("service", "tool", "text", "says_what"),
    [("openai", *case) for case in UNUSABLE] + [("gemini", *UNUSABLE[0]), ("gemini", *UNUSABLE[-1])],
)
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
    assert result.structured_content["cost_usd"] == pytest.approx(4 + 2 * 3 + 2 * 8.192)  # text, two pictures, reply
    assert result.structured_content["cost_usd"] <= facts["max_cost_usd"] / 3


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
