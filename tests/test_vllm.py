"""Turns from a vLLM server, against a loopback server around the tiny model and against TRL's own client.

vLLM itself needs a GPU and is not run. Exercised for real: the HTTP requests and replies, and TRL 1.16's ``VLLMClient``
(made with its check for an installed vLLM answered yes). Not exercised: vLLM's engine and sampler.
"""

from __future__ import annotations

import io
import logging
import math
from functools import partial
from random import Random
from types import SimpleNamespace
from typing import Any

import anyio
import pytest
from PIL import Image

from agent.chat_template import END_OF_TEXT, END_OF_TURN
from agent.policies import PolicyError, Reply
from agent.protocol import Message
from tests.recorded_session import png
from tests.servers.fake_vllm import GENERATE, RENDER, Drops, FakeVllm, Hangs
from tests.tiny_model import image_ref, tiny_model, tiny_processor
from training.encoding import Encoded, Encoder
from training.errors import TrainingError
from training.generation import Generated, Sampling, control_ids, generate
from training.grpo.vllm import VllmColocated, image_places, one_per_image, sampling_parameters
from training.grpo.vllm_server import Patience, VllmServer, connect
from training.local_policy import Batcher, LocalPolicy

SIDE = 64
QUICK = Patience(seconds=60.0, attempts=3, wait=0.0)


def encoder() -> Encoder:
    return Encoder(tiny_processor(), SIDE)


def opening(size: tuple[int, int] = (64, 48)) -> list[Message]:
    return [Message("system", "Rules."), Message("user", "Make a scratch.", (image_ref(1, png(size), *size),))]


def two_pictures() -> Encoded:
    seen = Message("tool", "[Tool Response from image_gen]\n{}", (image_ref(2, png((40, 64)), 40, 64),), "image_gen")
    return encoder().encode([*opening(), Message("assistant", "A turn."), seen])


def server(fake: FakeVllm, sampling: Sampling, patience: Patience = QUICK) -> VllmServer:
    return connect(fake.url, encoder(), sampling, patience)


def ask(source: VllmServer | VllmColocated, prompt: Encoded, seed: int = 0) -> Generated:
    return anyio.run(source.turn, prompt, Random(seed))


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_turn_from_the_server_is_the_one_that_is_generated_in_process(temperature: float) -> None:
    prompt, sampling = two_pictures(), Sampling(temperature, 12)
    with FakeVllm() as fake:
        turn = ask(server(fake, sampling), prompt, seed=7)
    seed = Random(7).getrandbits(31)
    (expected,) = generate(tiny_model(), tiny_processor(), [prompt], sampling, [Random(seed)])
    assert turn.ids == expected.ids
    assert turn.logprobs == pytest.approx(expected.logprobs, abs=1e-5)
    assert turn.finish_reason == expected.finish_reason


def test_an_episode_on_the_server_has_the_tokens_of_one_in_process() -> None:
    seen = Message("tool", "[Tool Response from image_gen]\n{}", (image_ref(2, png((40, 40)), 40, 40),), "image_gen")

    async def episode(policy: LocalPolicy) -> list[Reply]:
        said, replies = opening(), []
        for _ in range(3):
            replies.append(await policy.next_turn(said))
            said += [Message("assistant", replies[-1].text), seen]
        return replies

    sampling = Sampling(0.0, 8)
    local, remote = LocalPolicy(Batcher(tiny_model(), encoder(), sampling)), None
    expected = anyio.run(episode, local)
    with FakeVllm() as fake:
        remote = LocalPolicy(server(fake, sampling))
        replies = anyio.run(episode, remote)
        assert fake.counts == {GENERATE: 3, RENDER: 2}  # each different picture is prepared once
    assert [reply.text for reply in replies] == [reply.text for reply in expected]
    assert (remote.encoded.ids, remote.sampled) == (local.encoded.ids, local.sampled)
    assert remote.logprobs == pytest.approx(local.logprobs, abs=1e-4)


def test_no_turn_waits_for_another() -> None:
    """The server answers nobody before all eight turns are there: gathered in batches, they would wait for ever."""
    with FakeVllm(at_once=8) as fake:
        source = server(fake, Sampling(1.0, 4))

        async def all_at_once() -> None:
            async with anyio.create_task_group() as group:
                for number in range(8):
                    group.start_soon(LocalPolicy(source, seed=number).next_turn, opening())

        anyio.run(all_at_once)
        seeds = {body["sampling_params"]["seed"] for body in fake.bodies(GENERATE)}
    assert len(seeds) == 8


def trl_client(fake: FakeVllm, monkeypatch: pytest.MonkeyPatch) -> Any:
    from trl.generation import vllm_client

    monkeypatch.setattr(vllm_client, "is_vllm_available", lambda *_: True)
    return vllm_client.VLLMClient(base_url=fake.url)


def test_requests_are_those_of_trls_own_client(monkeypatch: pytest.MonkeyPatch) -> None:
    from trl.generation.vllm_generation import VLLMGeneration

    prompt, sampling = two_pictures(), Sampling(0.0, 12)
    pictures = [Image.open(io.BytesIO(data)) for data in prompt.pictures]
    with FakeVllm() as fake:
        ours = ask(server(fake, sampling), prompt)
        client = trl_client(fake, monkeypatch)
        (features,) = client.image_features([pictures])
        placed = VLLMGeneration._place_features(
            SimpleNamespace(processing_class=tiny_processor()), features, prompt.ids
        )
        parameters = sampling_parameters(sampling, tiny_processor().tokenizer)
        named = {name: parameters.pop(name) for name in ("n", "repetition_penalty", "temperature", "top_p", "top_k",
                                                        "min_p", "max_tokens", "logprobs")}  # fmt: skip
        theirs = client.generate([prompt.ids], [placed], **named, generation_kwargs=parameters)
        our_request, their_request = fake.bodies(GENERATE)
        our_render, their_render = fake.bodies(RENDER)[0], fake.bodies(RENDER)[-1]
    assert theirs["completion_ids"] == [ours.ids]
    assert [step[0] for step in theirs["logprobs"][0]] == ours.logprobs
    assert our_request["sampling_params"].pop("seed") is not None
    assert their_request.pop("request_id").startswith("trl-")  # the server makes one up
    tensors = [request["features"].pop("kwargs_data") for request in (our_request, their_request)]
    assert [len(kind["image"]) for kind in tensors] == [2, 2]
    for request in (our_request, their_request):
        request["features"].pop("mm_hashes")  # of the PNG that each wrote
    assert our_request == their_request
    for render in (our_render, their_render):
        assert {part["type"] for part in render["messages"][0].pop("content")} == {"image_url"}
    assert our_render == their_render


def test_the_server_is_asked_to_sample_as_training_does() -> None:
    tokenizer = tiny_processor().tokenizer
    ends = tokenizer.convert_tokens_to_ids([END_OF_TURN, END_OF_TEXT])
    with FakeVllm() as fake:
        ask(server(fake, Sampling(0.8, 5)), encoder().encode(opening()))
        (asked,) = (body["sampling_params"] for body in fake.bodies(GENERATE))
    assert (asked["temperature"], asked["max_tokens"]) == (0.8, 5)
    assert (asked["top_p"], asked["top_k"], asked["min_p"], asked["repetition_penalty"]) == (1.0, 0, 0.0, 1.0)
    assert (asked["stop"], asked["include_stop_str_in_output"]) == (["</tool_call>", "</answer>"], True)
    assert asked["stop_token_ids"] == ends
    assert {int(token) for token in asked["logit_bias"]} == set(control_ids(tokenizer, keep=ends))
    assert set(asked["logit_bias"].values()) == {-100.0}


def say(fake_reply: dict[str, Any], text: str, reason: str = "stop") -> None:
    """Let a reply hold other words."""
    (choice,) = fake_reply["choices"]
    choice["token_ids"] = tiny_processor().tokenizer(text)["input_ids"]
    choice["logprobs"]["content"] = [{"token": "token_id:0", "logprob": -1.0} for _ in choice["token_ids"]]
    choice["finish_reason"] = reason


@pytest.mark.parametrize(
    ("said", "kept", "reason"),
    [
        ("<tool_call>{}</tool_call> and more", "<tool_call>{}</tool_call>", "stop"),
        (f"<answer>{{}}</answer>{END_OF_TURN}", "<answer>{}</answer>", "stop"),
        (f"words{END_OF_TURN}{END_OF_TURN}", f"words{END_OF_TURN}", "stop"),
        ("words without an end", "words without an end", "length"),
    ],
)
def test_a_turn_is_cut_where_training_ends_one(said: str, kept: str, reason: str) -> None:
    with FakeVllm(alter=partial(say, text=said, reason=reason)) as fake:
        turn = ask(server(fake, Sampling(1.0, 4)), encoder().encode(opening()))
    assert tiny_processor().tokenizer.decode(turn.ids) == kept
    assert len(turn.logprobs) == len(turn.ids)
    assert turn.finish_reason == reason


@pytest.mark.parametrize("unknown", [None, -9999.0])
def test_a_log_probability_that_vllm_does_not_know_is_nan_as_in_trl(unknown: float | None) -> None:
    def forget(reply: dict[str, Any]) -> None:
        reply["choices"][0]["logprobs"]["content"][1]["logprob"] = unknown

    with FakeVllm(alter=forget) as fake:
        policy = LocalPolicy(server(fake, Sampling(0.0, 4)))
        reply = anyio.run(policy.next_turn, opening())
    known = [math.isnan(value) for value, own in zip(policy.logprobs, policy.sampled, strict=True) if own]
    assert known == [False, True, False, False]
    assert reply.call is not None
    assert reply.call.logprobs is None  # the session's log holds numbers alone


def failure(fake: FakeVllm, patience: Patience = QUICK, of_the_server: bool = True) -> str:
    source = server(fake, Sampling(1.0, 4), patience)
    with pytest.raises(PolicyError) as caught:
        ask(source, encoder().encode(opening()))
    assert source.failure is (caught.value if of_the_server else None)
    return str(caught.value)


def test_an_error_of_the_server_and_a_lost_connection_are_tried_again() -> None:
    with FakeVllm([503, Drops()]) as fake:
        assert ask(server(fake, Sampling(1.0, 4)), encoder().encode(opening())).ids
        first, *others = [body["sampling_params"]["seed"] for body in fake.bodies(GENERATE)]
    assert others == [first, first]


def test_a_server_that_stays_broken_ends_the_episode_and_says_why() -> None:
    with FakeVllm([500] * 3) as fake:
        message = failure(fake)
    assert "failed 3 times (500: the engine is dead)" in message
    with FakeVllm() as fake:
        source = server(fake, Sampling(1.0, 4))
    with pytest.raises(PolicyError, match=r"failed 3 times \(ConnectError.*vllm serve"):
        ask(source, encoder().encode(opening()))


def test_a_turn_that_does_not_come_in_time_ends_the_episode() -> None:
    with FakeVllm([Hangs()]) as fake:
        assert "no turn within 0.3 s" in failure(fake, Patience(seconds=0.3), of_the_server=False)


@pytest.mark.parametrize("body", [b"{", b"[]", b'{"choices": []}', b'{"choices": [{"token_ids": [1]}]}'])
def test_a_reply_of_another_form_ends_the_episode(body: bytes) -> None:
    with FakeVllm([body]) as fake:
        assert "another form than TRL 1.16 knows" in failure(fake)


def test_a_reply_that_cannot_be_trained_on_ends_the_episode() -> None:
    with FakeVllm(alter=partial(say, text="words <|image_pad|>")) as fake:
        assert "sampled <|image_pad|> in spite of its logit_bias" in failure(fake, of_the_server=False)
    with FakeVllm(alter=partial(say, text="words", reason="abort")) as fake:
        assert "ended a turn with 'abort'" in failure(fake, of_the_server=False)
    with FakeVllm(alter=lambda reply: reply["choices"][0]["token_ids"].append(5)) as fake:
        assert "log-probabilities of" in failure(fake, of_the_server=False)


def test_a_request_that_is_refused_is_not_repeated() -> None:
    with FakeVllm([400]) as fake:
        assert "refused /inference/v1/generate (400)" in failure(fake, of_the_server=False)
        assert fake.counts[GENERATE] == 1
    with FakeVllm(missing=[RENDER]) as fake:
        assert "--enable-scale-out" in failure(fake)


def test_a_server_that_makes_other_tokens_of_an_image_is_found_out() -> None:
    with FakeVllm(pixels=128) as fake:
        assert "makes [16] tokens of the images, the trainer [4]" in failure(fake)


def test_a_conversation_longer_than_the_servers_context_is_refused() -> None:
    with FakeVllm(max_model_len=40) as fake, pytest.raises(PolicyError, match="leaves no room in 40"):
        anyio.run(LocalPolicy(server(fake, Sampling(0.0, 30))).next_turn, opening())


@pytest.mark.parametrize(
    ("mode", "warning"),
    [("processed_logprobs", None), ("raw_logprobs", "--logprobs-mode processed_logprobs"), (None, "does not tell")],
)
def test_log_probabilities_of_another_distribution_are_warned_of(
    mode: str | None, warning: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    with FakeVllm(logprobs_mode=mode) as fake, caplog.at_level(logging.WARNING):
        server(fake, Sampling())
    messages = [record.getMessage() for record in caplog.records if record.name == "training.grpo.vllm_server"]
    assert len(messages) == (0 if warning is None else 1)
    assert all(warning in message for message in messages if warning)


def test_without_a_server_training_does_not_begin() -> None:
    with FakeVllm() as fake:
        url = fake.url
    with pytest.raises(TrainingError, match="no vLLM server answers"):
        connect(url, encoder(), Sampling())


def test_images_are_found_among_the_ids_and_shown_to_vllm_as_one_token_each() -> None:
    ids = [1, 9, 9, 9, 2, 3, 9, 4]
    assert image_places(ids, 9) == [{"offset": 1, "length": 3}, {"offset": 6, "length": 1}]
    assert one_per_image(ids, 9) == [1, 9, 2, 3, 9, 4]
    assert image_places([1, 2], 9) == []
