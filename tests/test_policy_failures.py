"""A policy's server that fails, and a conversation that no longer fits: what is tried again, left out, or named."""

from __future__ import annotations

import json
from typing import Any

import pytest

from agent.policies import PolicyError
from agent.policies.context import ContextLimits
from agent.protocol import parse_turn, render_turn

from .servers.fake_openai import Fails, FakeOpenAI, Hangs, Raw, Says
from .test_loop import EDIT
from .test_policy_openai import KEY, REPLIES, ask, choice, conversation, shown, text

OVERFLOW = Fails(
    400, "This model's maximum context length is 4096 tokens, you asked for 9000", "context_length_exceeded"
)


def test_old_images_give_way_to_a_note_and_the_first_and_newest_stay() -> None:
    limits = ContextLimits(max_images=3)
    with FakeOpenAI([text(EDIT)]) as server:
        (reply,) = ask(choice(server.url, limits=limits), conversation(5))
    assert reply.call
    assert reply.call.dropped_images == (2, 3)
    assert [count for _, count in json.loads(shown(server.requests[0])) if isinstance(count, int)] == [1, 1, 1]
    assert "(image 2 is no longer shown)" in shown(server.requests[0])


def test_a_token_budget_leaves_out_old_images_by_what_the_server_counted() -> None:
    limits = ContextLimits(max_tokens=1400)  # 300 of them for the reply
    with FakeOpenAI([Says(render_turn(EDIT), usage=(1090, 9))]) as server:
        replies = ask(choice(server.url, limits=limits), conversation(3), conversation(4))
    assert [reply.call and reply.call.dropped_images for reply in replies] == [(), (2, 3)]


@pytest.mark.parametrize("dialect", ["text", "native"])
def test_a_conversation_that_is_too_long_is_sent_again_with_two_images(dialect: str) -> None:
    with FakeOpenAI([OVERFLOW, REPLIES[dialect][1]]) as server:
        replies = ask(choice(server.url, dialect=dialect), conversation(4), conversation(5))
    assert [reply.call and reply.call.dropped_images for reply in replies] == [(2, 3), (2, 3, 4)]
    assert [reply.call and reply.call.attempts for reply in replies] == [2, 1]
    assert len(server.requests) == 3


@pytest.mark.parametrize("images", [2, 4])
def test_a_conversation_that_stays_too_long_ends_with_the_cure(images: int) -> None:
    with FakeOpenAI([OVERFLOW]) as server, pytest.raises(PolicyError, match="serve the model with a longer context"):
        ask(choice(server.url), conversation(images))
    assert len(server.requests) == (1 if images == 2 else 2)


@pytest.mark.parametrize(
    ("fault", "options", "says", "requests"),
    [
        ([Fails(401, f"Incorrect API key provided: {KEY}")], {}, "does not accept the key: set", 1),
        ([Fails(400, f"strange {KEY}")], {}, "HTTP 400: strange [key]", 1),
        ([Fails(429, "slow down")], {}, "over its limit, asked 3 times (slow down)", 4),
        ([Fails(429, "no money", "insufficient_quota")], {}, "quota is used up (no money): check its billing", 4),
        ([Fails(503, "loading")], {}, "failed, asked 3 times (HTTP 503: loading)", 4),
        ([Fails(500, "broken")], {}, "failed, asked 3 times (HTTP 500: broken)", 4),
        ([Hangs()], {"timeout": 0.5}, "took over 0.5 s for a reply: raise --policy-timeout", 1),
        ([Raw(b"<html>hello</html>", "text/html")], {}, "no chat completion: check --base-url", 1),
        ([Raw(b"[1, 2]")], {}, "no chat completion: check --base-url", 1),
        ([Says(body={"choices": []})], {}, "answered without a choice", 1),
        ([Raw(b"{}")], {}, "answered without a choice", 1),
        ([Says("x")], {"model": "other"}, "has no model 'other': choose one with --model (some-model)", 1),
    ],
    ids=lambda value: type(value[0]).__name__ if isinstance(value, list) else "",
)
def test_a_failing_server_ends_the_turn_in_one_line_that_names_the_cure(
    fault: list[Any], options: dict[str, Any], says: str, requests: int
) -> None:
    with FakeOpenAI(fault) as server, pytest.raises(PolicyError) as failed:
        ask(choice(server.url, **({"api_key": KEY} | options)))
    assert says in str(failed.value)
    assert "\n" not in str(failed.value)
    assert KEY not in str(failed.value)
    assert len(server.requests) == requests


def test_a_server_that_is_not_there_is_named() -> None:
    with FakeOpenAI() as server:
        url = server.url
    with pytest.raises(PolicyError, match="cannot be reached: check --base-url"):
        ask(choice(url, retries=0))


def test_a_path_without_an_api_is_told_from_a_missing_model() -> None:
    with FakeOpenAI([Says("x")]) as server, pytest.raises(PolicyError, match="mostly ends in /v1"):
        ask(choice(server.url.removesuffix("/v1")))


def test_a_server_that_is_busy_is_asked_again() -> None:
    with FakeOpenAI([Fails(429), Fails(503), text(EDIT)]) as server:
        (reply,) = ask(choice(server.url))
    assert parse_turn(reply.text) == EDIT
    assert reply.call
    assert reply.call.attempts == 3
    assert "stop" in server.requests[-1]


@pytest.mark.parametrize(
    ("fault", "gone", "instead"),
    [
        (Fails(400, "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead.", param="max_tokens"),
         "max_tokens", "max_completion_tokens"),
        (Fails(422, "Unexpected fields in the request: {'seed'}"), "seed", "max_tokens"),
        (Fails(400, "stop is not supported with this model", "unsupported_parameter"), "stop", "max_tokens"),
    ],
)  # fmt: skip
def test_a_field_that_a_server_does_not_take_is_left_out_from_then_on(fault: Fails, gone: str, instead: str) -> None:
    with FakeOpenAI([fault, text(EDIT)]) as server:
        replies = ask(choice(server.url), *[conversation()] * 2)
    assert [gone in request for request in server.requests] == [True, False, False]
    assert instead in server.requests[-1]
    assert all(reply.call and gone not in reply.call.sampling for reply in replies)


def test_an_option_that_the_user_chose_is_not_left_out() -> None:
    fault = Fails(400, "temperature is not supported with this model", "unsupported_value", "temperature")
    with FakeOpenAI([fault]) as server, pytest.raises(PolicyError, match="temperature is not supported"):
        ask(choice(server.url, temperature=0.5))
