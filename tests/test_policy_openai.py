"""A model behind an OpenAI-compatible server as the policy: through the real SDK, against a server on loopback."""

from __future__ import annotations

import base64
import io
import json
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import anyio
import pytest
from PIL import Image as PILImage
from rich.console import Console

from agent.policies import Reply
from agent.policies.choose import Policies, PolicyChoice, read_policy
from agent.policies.sampling import Sampling
from agent.protocol import ANSWER, ImageRef, Message, ToolCall, Turn, observation, parse_turn, render_turn
from agent.run import main, parser_of
from agent.session import read_session
from agent.task import StopReason, Task
from agent.ticker import Ticker
from pricing import Price

from .recorded_session import png
from .servers.fake_openai import FakeOpenAI, Raw, Says
from .test_loop import DONE, EDIT, JUDGE, MASK, call, play
from .test_run import run

PROMPTED = call("prompt_gen", image=1, item_name="plate", anomaly_type="scratch")
EPISODE = [PROMPTED, EDIT, JUDGE, MASK, DONE]
ANSWERED = {"status": "success", "final_image_index": 2, "mask_generated": True, "synthesis_logic": "a scratch"}
SIGNATURES = [{"type": "function", "function": {"name": "prompt_gen", "description": "", "parameters": {}}}]
KEY = "sk-" + "never-to-be-seen"


def text(turn: Turn) -> Says:
    return Says(f"{render_turn(turn)} and then I would say more<tool_call>{{}}</tool_call>")


def native(turn: Turn) -> Says:
    action = turn.action
    if isinstance(action, ToolCall):
        return Says(turn.thinking, [(action.name, action.arguments)], finish="tool_calls")
    return Says(None, [(ANSWER, action.to_json())], finish="tool_calls")


REPLIES = {"text": [text(turn) for turn in EPISODE], "native": [native(turn) for turn in EPISODE]}


def choice(url: str, **options: Any) -> PolicyChoice:
    sampling = Sampling(max_tokens=options.pop("max_tokens", 300), temperature=options.pop("temperature", None))
    given = {"price": Price(), "retries": 2, "timeout": 20.0, "model": "some-model"} | options
    return PolicyChoice(name="openai", base_url=url, sampling=sampling, **given)


def image(index: int, side: int = 64) -> ImageRef:
    return ImageRef(index, f"img_{index}", png((side, side)), f"{index}", side, side)


def conversation(images: int = 1) -> list[Message]:
    """A conversation in which so many images have been seen."""
    messages = [Message("system", "rules"), Message("user", "make a scratch", (image(1),))]
    for index in range(2, images + 1):
        messages.append(Message("assistant", render_turn(EDIT)))
        messages.append(Message("tool", observation("image_gen", {"image_index": index}), (image(index),), "image_gen"))
    return messages


def ask(wanted: PolicyChoice, *conversations: Sequence[Message], on_text: Any = None) -> list[Reply]:
    async def main() -> list[Reply]:
        async with Policies(wanted) as policies:
            policy = policies.make(Task("", "plate", "scratch", seed=7), on_text)
            return [await policy.next_turn(messages, SIGNATURES) for messages in conversations or [conversation()]]

    return anyio.run(main)


def shown(request: dict[str, Any]) -> str:
    """What a request holds, images as their number of pictures."""
    return json.dumps([(m["role"], m["content"] if isinstance(m["content"], str) else len(m["content"]) - 1)
                       for m in request["messages"]])  # fmt: skip


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize(
    ("dialect", "stop"), [("text", "drops"), ("text", "keeps"), ("text", "ignores"), ("text", "fails"), ("native", "-")]
)
def test_a_reply_is_one_turn_of_the_protocol_whatever_the_server_does_with_stop(
    dialect: str, stop: str, streamed: bool
) -> None:
    heard: list[str] = []
    with FakeOpenAI(REPLIES[dialect], stop=stop) as server:
        replies = ask(
            choice(server.url, dialect=dialect), *[conversation()] * 2, on_text=heard.append if streamed else None
        )
    assert [parse_turn(reply.text) for reply in replies] == EPISODE[:2]
    assert bool("".join(heard)) == streamed
    calls = [reply.call for reply in replies]
    assert all(call and call.sampling["seed"] == 7 and call.sampling["max_tokens"] == 300 for call in calls)
    asked = ["stop" in request for request in server.requests]
    assert asked == {"fails": [True, False, False], "-": [False, False]}.get(stop, [True, True])
    cut_by_hand = stop == "fails" and streamed
    assert [call and call.completion_tokens for call in calls] == [None if cut_by_hand else 50] * 2


@pytest.mark.parametrize("dialect", ["text", "native"])
def test_a_model_drives_an_episode_with_the_real_tools(
    dialect: str, home: Path, photo_file: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    with FakeOpenAI(REPLIES[dialect], key=KEY) as server:
        done = run(photo_file, "--item", "plate", "--anomaly", "scratch", "--out", out, "--json", "--seed", 5,
                   "--base-url", server.url, "--model", "some-model", "--dialect", dialect, "--image-side", 48,
                   OPENAI_API_KEY=KEY)  # fmt: skip
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert (result["stop_reason"], result["policy"], result["cost_usd"]) == ("answered", "openai", 0)
    assert result["mask"]
    session = read_session(out)
    turns = [parse_turn(event["content"]) for event in session.of_type("message") if event["role"] == "assistant"]
    assert [turn.action for turn in turns] == [turn.action for turn in EPISODE]
    assert [event["prompt_tokens"] for event in session.of_type("model_call")] == [1000] * 5
    assert session.start["policy"]["dialect"] == dialect
    assert session.start["policy"]["sampling"]["seed"] == 5
    last = server.requests[-1]["messages"]
    pictures = [part["image_url"]["url"] for message in last for part in message["content"] or []
                if isinstance(part, dict) and part["type"] == "image_url"]  # fmt: skip
    assert len(pictures) == 2
    for uri in pictures:
        assert max(PILImage.open(io.BytesIO(base64.b64decode(uri.split(",")[1]))).size) == 48
    if dialect == "text":
        assert {message["role"] for message in last} == {"system", "user", "assistant"}
        assert "tools" not in server.requests[-1]
        assert last[3]["content"].startswith("[Tool Response from prompt_gen]\n{")
    else:
        assert "<tools>" not in last[0]["content"]
        assert "<thinking>" not in json.dumps(last)
        assert [tool["function"]["name"] for tool in server.requests[-1]["tools"]][-1] == ANSWER
        assert server.requests[-1]["parallel_tool_calls"] is False
        results = [message for message in last if message["role"] == "tool"]
        assert all(isinstance(json.loads(message["content"]), dict) for message in results)
        asked = [message["tool_calls"][0]["id"] for message in last if message["role"] == "assistant"]
        assert [message["tool_call_id"] for message in results] == asked
    for file in out.rglob("*"):
        assert file.is_dir() or KEY.encode() not in file.read_bytes(), file
    assert KEY not in done.stdout + done.stderr


THOUGHT = "<thinking>look</thinking>"
CALL = '<tool_call>{"name": "mask_gen", "arguments": {"anomaly_image": 2}}</tool_call>'


@pytest.mark.parametrize(
    "said",
    [
        Says(f"<think>first I ponder</think>\n{THOUGHT}{CALL}"),
        Says(f"first I ponder</think>\n\n{THOUGHT}{CALL}"),
        Says(f"<think>I may write {THOUGHT}{CALL}</think>{THOUGHT}{CALL}"),
        Says(f"{THOUGHT}{CALL}", message={"reasoning_content": "first I ponder"}),
        Says(f"{THOUGHT}{CALL}", message={"reasoning": "first I ponder"}),
    ],
    ids=["tags", "closing tag alone", "rehearsed", "reasoning_content", "reasoning"],
)
@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
def test_what_a_reasoning_model_thought_is_recorded_and_not_said(said: Says, streamed: bool) -> None:
    with FakeOpenAI([said], stop="ignores") as server:
        (reply,) = ask(choice(server.url, stop=False), on_text=(lambda _: None) if streamed else None)
    assert reply.text == THOUGHT + CALL
    assert reply.call
    assert reply.call.reasoning in ("first I ponder", f"I may write {THOUGHT}{CALL}")


@pytest.mark.parametrize(
    ("dialect", "said", "problem"),
    [
        ("text", Says(f"{THOUGHT}<tool_call>{{", finish="length"), "cut off at 300 tokens"),
        ("text", Says("", finish="length"), "raise --max-tokens"),
        ("text", Says(None), "it was empty"),
        ("text", Says(None, message={"refusal": "I may not"}), "the model refused: I may not"),
        ("text", Says("", finish="content_filter"), "content filter"),
        ("text", Says("<think>on and on"), "ended within the reasoning"),
        ("native", Says("well"), "no function was called"),
        ("native", Says(None, finish="length"), "cut off at 300 tokens"),
        ("native", Says("", [("mask_gen", '{"anomaly_im')], finish="length"), "cut off at 300 tokens"),
        ("native", Says("", [("mask_gen", "[1]")]), "the arguments of mask_gen are no JSON object"),
        ("native", Says("", [("mask_gen", {}), ("image_gen", {})]), "2 functions were called at once"),
        ("native", Says(None, message={"refusal": "I may not"}), "the model refused: I may not"),
    ],
)
def test_a_reply_without_a_usable_turn_says_what_is_wrong_with_it(dialect: str, said: Says, problem: str) -> None:
    with FakeOpenAI([said]) as server:
        (reply,) = ask(choice(server.url, dialect=dialect))
    assert problem in reply.problem


@pytest.mark.parametrize("said", [
    Says(None, [(ANSWER, ANSWERED)]), Says(json.dumps(ANSWERED)), Says(f"```json\n{json.dumps(ANSWERED)}\n```"),
    Says(f"<thinking>x</thinking><answer>{json.dumps(ANSWERED)}</answer>"),
], ids=["function", "bare", "fenced", "tags"])  # fmt: skip
def test_a_native_model_may_answer_by_function_or_in_words(said: Says) -> None:
    with FakeOpenAI([said]) as server:
        (reply,) = ask(choice(server.url, dialect="native"))
    assert parse_turn(reply.text).action == DONE.action
    assert reply.problem == ""


@pytest.mark.parametrize(
    "pieces",
    [
        [{"function": {"name": "mask_gen", "arguments": '{"anomaly_image": 2}'}}],
        [{"function": {"name": "mask_gen", "arguments": {"anomaly_image": 2}}}],
        [{"id": "a", "function": {"name": "mask_gen"}}, {"function": {"arguments": '{"anomaly_'}},
         {"function": {"arguments": 'image": 2}'}}],
    ],
    ids=["without a number", "as an object", "in pieces without a number"],
)  # fmt: skip
def test_function_calls_are_read_as_servers_really_send_them(pieces: list[dict[str, Any]]) -> None:
    chunks = [{"choices": [{"index": 0, "delta": {"tool_calls": [piece]}}]} for piece in pieces]
    data = "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks) + "data: [DONE]\n\n"
    with FakeOpenAI([Raw(data.encode(), "text/event-stream")]) as server:
        (reply,) = ask(choice(server.url, dialect="native"), on_text=lambda _: None)
    assert parse_turn(reply.text).action == MASK.action


def test_a_server_that_reads_the_tags_away_is_understood_in_the_text_dialect() -> None:
    with FakeOpenAI([Says("<thinking>next</thinking>", [("mask_gen", {"anomaly_image": 2})])]) as server:
        (reply,) = ask(choice(server.url))
    assert parse_turn(reply.text) == MASK


@pytest.mark.parametrize(
    ("dialect", "bad", "told"),
    [
        ("text", Says(f"{THOUGHT}<tool_call>{{", finish="length"), "cut off at"),
        ("native", Says("", [("image_gen", {}), ("mask_gen", {})]), "2 functions were called at once"),
        ("native", Says("", [(ANSWER, ANSWERED)]), "no mask for image 2"),
    ],
)
def test_an_unusable_reply_is_repaired_in_either_dialect(
    dialect: str, bad: Says, told: str, home: Path, photo_file: Path, tmp_path: Path
) -> None:
    replies = REPLIES[dialect]
    with FakeOpenAI([*replies[:2], bad, *replies[2:]]) as server:
        policy = Policies(choice(server.url, dialect=dialect)).make(Task("", "plate", "scratch"))
        episode, _ = play(policy, photo_file, tmp_path / "s")
    assert episode.stop_reason is StopReason.ANSWERED
    assert episode.repairs == 1
    assert told in json.dumps(server.requests[3]["messages"][-1])


def test_a_model_that_never_gets_a_turn_right_ends_as_policy_error(
    home: Path, photo_file: Path, tmp_path: Path
) -> None:
    with FakeOpenAI([Says("", finish="length")]) as server:
        policy = Policies(choice(server.url, price=Price(input_per_million=1))).make(Task("", "plate", "scratch"))
        episode, session = play(policy, photo_file, tmp_path / "s")
    assert episode.stop_reason is StopReason.POLICY_ERROR
    assert "raise --max-tokens" in str(episode.error)
    assert len(session.of_type("model_call")) == 3
    assert episode.cost_usd == pytest.approx(0.003)


def test_a_server_that_does_not_stream_is_read_whole() -> None:
    heard: list[str] = []
    with FakeOpenAI([text(EDIT)], streams=False) as server:
        (reply,) = ask(choice(server.url), on_text=heard.append)
    assert parse_turn(reply.text) == EDIT
    assert len(heard) == 1


def test_token_ids_and_log_probabilities_are_recorded_where_the_server_gives_them() -> None:
    logprobs = {"content": [{"token": "a", "logprob": -0.25}, {"token": "b", "logprob": -1.5}]}
    told = Says(
        render_turn(EDIT), choice={"token_ids": [4, 5], "logprobs": logprobs}, body={"prompt_token_ids": [1, 2]}
    )
    with FakeOpenAI([told]) as server:
        (asked,) = ask(choice(server.url, record_tokens=True))
        (unasked,) = ask(choice(server.url))
    assert [bool(request.get("return_token_ids")) for request in server.requests] == [True, False]
    assert asked.call
    assert asked.call.prompt_token_ids == (1, 2)
    assert asked.call.completion_token_ids == (4, 5)
    assert asked.call.logprobs == (-0.25, -1.5)
    assert unasked.call


@pytest.mark.parametrize(("price", "cost"), [(Price(2.0, 10.0), 0.0025), (Price(), 0.0), (None, 0.0)])
def test_a_turn_costs_its_tokens_and_never_more_than_was_foreseen(price: Price | None, cost: float) -> None:
    async def main(url: str) -> tuple[float, Reply]:
        async with Policies(choice(url, price=price)) as policies:
            policy = policies.make(Task("", "plate", "scratch"))
            messages = conversation(3)
            foreseen = policy.max_cost_usd(messages)
            return foreseen, await policy.next_turn(messages, SIGNATURES)

    with FakeOpenAI([Says(render_turn(EDIT), usage=(1000, 50) if price else None)]) as server:
        foreseen, reply = anyio.run(main, server.url)
    assert reply.call
    assert reply.call.cost_usd == pytest.approx(cost)
    assert (foreseen == math.inf) == (price is None)
    assert foreseen > 0.003 or price == Price()


def test_a_reply_that_broke_but_was_paid_for_is_in_the_log(home: Path, photo_file: Path, tmp_path: Path) -> None:
    with FakeOpenAI([Says(body={"choices": []})]) as server:
        policy = Policies(choice(server.url, price=Price(1, 1))).make(Task("", "plate", "scratch"))
        episode, session = play(policy, photo_file, tmp_path / "s")
    assert episode.stop_reason is StopReason.POLICY_ERROR
    assert [event["turn"] for event in session.of_type("model_call")] == [1]
    assert episode.cost_usd == pytest.approx(0.00105)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--policy", "openai"], "--model is missing"),
        (["--model", "m"], "set OPENAI_API_KEY"),
        (["--model", "m", "--base-url", "localhost:8000"], "is no URL of a server"),
        (["--model", "m", "--base-url", "http://me:secret@127.0.0.1/v1"], "put the key into"),
        (["--model", "m", "--base-url", "http://127.0.0.1/v1", "--temperature", "3"], "choose 0 to 2"),
        (["--model", "m", "--base-url", "http://127.0.0.1/v1", "--policy-price", "cheap"], "write two prices"),
        (["--policy", "oracle"], "invalid choice"),
    ],
)
def test_options_that_cannot_be_used_are_refused_before_anything_starts(
    photo_file: Path,
    tmp_path: Path,
    options: list[str],
    says: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "ANOMALY_AGENT_POLICY_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    code = main([str(photo_file), "--item", "plate", "--anomaly", "scratch", "--out", str(tmp_path / "o"), *options])
    told = capsys.readouterr().err
    assert code == 2
    assert says in told
    assert "secret" not in told
    assert len(told.splitlines()) == 1
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize(
    ("url", "environ", "sent"),
    [
        ("http://gpu-box:8000/v1", {"OPENAI_API_KEY": KEY}, ""),
        ("http://gpu-box:8000/v1", {"ANOMALY_AGENT_POLICY_API_KEY": KEY}, KEY),
        ("https://models.example/v1", {"OPENAI_API_KEY": KEY}, KEY),
        ("http://127.0.0.1:8000/v1", {"OPENAI_API_KEY": KEY}, KEY),
    ],
)
def test_a_key_is_sent_in_the_clear_only_where_it_was_set_for_that(
    url: str, environ: dict[str, str], sent: str
) -> None:
    chosen = read_policy(parser_of().parse_args(["--model", "m", "--base-url", url]), environ)
    assert chosen.api_key == sent
    assert KEY not in repr(chosen)
    assert (chosen.price == Price()) == url.startswith("http://127.")
    assert os.environ.get("OPENAI_API_KEY") != KEY


def test_a_terminal_shows_what_the_model_is_writing_and_a_file_does_not() -> None:
    shown, plain = (Console(file=io.StringIO(), force_terminal=terminal, width=40) for terminal in (True, False))
    with Ticker(shown) as ticker:
        assert ticker.on_text
        for piece in ("I look at the ", "rim [bold]\nand ", "see a gap"):
            ticker.on_text(piece)
    assert "rim [bold] and see a gap" in shown.file.getvalue()
    with Ticker(plain) as ticker:
        assert ticker.on_text is None
        ticker.say("a line")
    assert plain.file.getvalue() == "a line\n"
