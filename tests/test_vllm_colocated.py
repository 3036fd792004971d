"""Turns from a vLLM engine in the trainer's process, and the weights that vLLM is given.

vLLM itself needs a GPU and is not run. Exercised for real: the colocate path of TRL 1.16's ``VLLMGeneration.generate``,
around a stand-in for vLLM's ``LLM`` that generates with the tiny model. Not exercised: vLLM's engine and sampler, the
NCCL transfer of weights (``VLLMClient.init_communicator`` and ``update_named_params``), and TRL's loading of weights
into a colocated engine.
"""

from __future__ import annotations

import math
from random import Random
from types import SimpleNamespace
from typing import Any

import anyio
import pytest
import torch

from agent.policies import PolicyError
from tests.recorded_session import png
from tests.servers.fake_vllm import FakeVllm
from tests.test_vllm import encoder, opening, trl_client, two_pictures
from tests.tiny_model import tiny_model, tiny_processor
from training.encoding import Encoded
from training.errors import TrainingError
from training.generation import Generated, Sampling, generate
from training.grpo.vllm import VllmColocated, sync


class Engine:
    """A stand-in for vLLM's ``LLM``: puts in image tokens and generates, one prompt after another."""

    def __init__(self) -> None:
        self.llm_engine = SimpleNamespace(
            model_config=SimpleNamespace(max_model_len=4096), reset_encoder_cache=lambda: self.resets.append("encoder")
        )
        self.resets: list[str] = []
        self.batches: list[int] = []
        self.parameters: dict[str, Any] = {}

    def generate(self, prompts: list[dict[str, Any]], sampling_params: dict[str, Any], use_tqdm: bool) -> list[Any]:
        self.batches.append(len(prompts))
        self.parameters = sampling_params
        return [
            self._one(prompt, Sampling(sampling_params["temperature"], sampling_params["max_tokens"]))
            for prompt in prompts
        ]

    def _one(self, prompt: dict[str, Any], sampling: Sampling) -> Any:
        images = prompt["multi_modal_data"]["image"]
        images = images if isinstance(images, list) else [images]
        out = tiny_processor().image_processor(images=images, return_tensors="pt")
        grids = [tuple(grid) for grid in out["image_grid_thw"].tolist()]
        counts, ids = iter([math.prod(grid) // 4 for grid in grids]), []
        for token in prompt["prompt_token_ids"]:
            ids += [token] * (next(counts) if token == tiny_processor().image_token_id else 1)
        patches = list(torch.split(out["pixel_values"], [math.prod(grid) for grid in grids]))
        (turn,) = generate(tiny_model(), tiny_processor(), [Encoded(ids, patches, grids)], sampling)
        told = [{i: SimpleNamespace(logprob=p, rank=1)} for i, p in zip(turn.ids, turn.logprobs, strict=True)]
        return SimpleNamespace(prompt_token_ids=ids, outputs=[SimpleNamespace(token_ids=turn.ids, logprobs=told)])


def colocated(monkeypatch: pytest.MonkeyPatch, **fields: Any) -> Any:
    """TRL's real ``VLLMGeneration`` around the stand-in."""
    from trl.generation import vllm_generation

    monkeypatch.setattr(vllm_generation, "SamplingParams", dict, raising=False)
    settings = {"mode": "colocate", "temperature": 0.3, "top_p": 0.5, "top_k": 7, "min_p": 0.1, "logprobs": 0,
                "repetition_penalty": 1.1, "max_completion_length": 3, "structured_outputs_regex": None,
                "enable_sleep_mode": False, "tensor_parallel_size": 1, "model": tiny_model(), "llm": Engine(),
                "accelerator": SimpleNamespace(device="cpu")}  # fmt: skip
    vllm = vllm_generation.VLLMGeneration.__new__(vllm_generation.VLLMGeneration)
    vars(vllm).update(settings | fields)
    return vllm


def test_colocated_turns_share_batches_and_are_those_generated_in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    vllm, sampling = colocated(monkeypatch), Sampling(0.0, 12)
    source = VllmColocated(vllm, encoder(), sampling, max_batch=3)
    prompts = [two_pictures(), *(encoder().encode(opening((size, 48))) for size in (32, 64, 150))]
    turns: dict[int, Generated] = {}

    async def all_at_once() -> None:
        async def one(number: int) -> None:
            turns[number] = await source.turn(prompts[number], Random(number))

        async with anyio.create_task_group() as group:
            for number in range(len(prompts)):
                group.start_soon(one, number)

    anyio.run(all_at_once)
    assert vllm.llm.batches == [3, 1]
    for number, expected in enumerate(generate(tiny_model(), tiny_processor(), prompts, sampling)):
        assert turns[number].ids == expected.ids
        assert turns[number].logprobs == pytest.approx(expected.logprobs, abs=1e-4)
    asked = vllm.llm.parameters
    assert (asked["temperature"], asked["top_p"], asked["top_k"], asked["min_p"], asked["max_tokens"]) == (
        0,
        1,
        0,
        0,
        12,
    )
    assert "seed" not in asked  # one seed for all would make a group's rollouts the same
    assert source.room == 4096


def test_a_colocated_engine_that_reads_other_tokens_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    source = VllmColocated(colocated(monkeypatch), encoder(), Sampling(0.0, 4))
    prompt = encoder().encode(opening())
    prompt.pictures[0] = png((128, 128))
    with pytest.raises(PolicyError, match="reads other tokens"):
        anyio.run(source.turn, prompt, Random(0))


@pytest.mark.parametrize("field", [{"tensor_parallel_size": 2}, {"enable_sleep_mode": True}])
def test_a_colocated_engine_that_would_wait_for_other_processes_is_refused(
    field: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(TrainingError, match="vllm_tensor_parallel_size to 1 and vllm_enable_sleep_mode to false"):
        VllmColocated(colocated(monkeypatch, **field), encoder(), Sampling())


def trainer(vllm: Any, events: list[str], main: bool = True) -> Any:
    vllm.sync_weights = lambda: events.append("weights")
    accelerator = SimpleNamespace(is_main_process=main, wait_for_everyone=lambda: events.append("wait"))
    return SimpleNamespace(
        state=SimpleNamespace(global_step=0),
        _last_loaded_step=-1,
        vllm_generation=vllm,
        accelerator=accelerator,
        args=SimpleNamespace(report_to=[]),
    )


def test_weights_are_synchronised_once_a_step_and_old_image_features_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[str] = []
    with FakeVllm() as fake:
        subject = trainer(SimpleNamespace(mode="server", vllm_client=trl_client(fake, monkeypatch)), events)
        assert [sync(subject), sync(subject)] == [True, False]
        subject.state.global_step = 1
        assert sync(subject)
        assert fake.counts == {"/reset_encoder_cache": 2}
    assert events == ["weights", "wait"] * 2


def test_every_process_takes_part_and_waits_but_one_alone_speaks_to_the_server() -> None:
    events: list[str] = []
    assert sync(trainer(SimpleNamespace(mode="server"), events, main=False))
    assert events == ["weights", "wait"]


def test_a_colocated_engine_drops_its_image_features_too(monkeypatch: pytest.MonkeyPatch) -> None:
    vllm, events = colocated(monkeypatch), []
    assert sync(trainer(vllm, events))
    assert (events, vllm.llm.resets) == (["weights", "wait"], ["encoder"])


def test_a_server_that_keeps_old_image_features_stops_the_training(monkeypatch: pytest.MonkeyPatch) -> None:
    with FakeVllm(missing=["/reset_encoder_cache"]) as fake:
        subject = trainer(SimpleNamespace(mode="server", vllm_client=trl_client(fake, monkeypatch)), [])
        with pytest.raises(TrainingError, match=r"keeps image features of earlier weights \(404\)"):
            sync(subject)
        assert subject._last_loaded_step == -1
