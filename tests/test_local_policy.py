"""The policy that generates in this process: what it samples, keeps and refuses."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from functools import partial
from random import Random
from typing import Any

import anyio
import pytest
import torch

from agent.chat_template import END_OF_TURN, template_messages
from agent.policies import PolicyError
from agent.protocol import Message, ProtocolError
from tests.recorded_session import png
from tests.tiny_model import image_ref, tiny_model, tiny_processor
from training.encoding import Encoded, Encoder, EncodingError, check_image_tokens
from training.generation import Generated, Sampling, control_ids, generate, padded
from training.local_policy import Batcher, LocalPolicy

SIDE = 64


def opening(size: tuple[int, int] = (64, 48), text: str = "Make a scratch.") -> list[Message]:
    return [Message("system", "Rules."), Message("user", text, (image_ref(1, png(size), *size),))]


def encoder() -> Encoder:
    return Encoder(tiny_processor(), SIDE)


def sample(prompts: list[Encoded], temperature: float = 0.0, tokens: int = 12) -> list[Generated]:
    torch.manual_seed(0)
    return generate(tiny_model(), tiny_processor(), prompts, Sampling(temperature, tokens))


def test_turns_generated_together_are_those_generated_alone() -> None:
    prompts = [encoder().encode(opening(size)) for size in ((64, 48), (150, 90), (32, 32))]
    together = sample(prompts)
    for prompt, turn in zip(prompts, together, strict=True):
        (alone,) = sample([prompt])
        assert alone.ids == turn.ids
        assert alone.logprobs == pytest.approx(turn.logprobs, abs=1e-4)


@pytest.mark.parametrize("temperature", [0.0, 0.7, 1.0])
def test_log_probabilities_are_those_of_the_distribution_that_was_sampled_from(temperature: float) -> None:
    prompt = encoder().encode(opening())
    (turn,) = sample([prompt], temperature)
    whole = prompt.with_ids(turn.ids)
    tokenizer = tiny_processor().tokenizer
    with torch.no_grad():
        logits = tiny_model()(**padded([whole], tokenizer.pad_token_id, tiny_processor().image_token_id)).logits[0]
    ends = tokenizer.convert_tokens_to_ids([END_OF_TURN, "<|endoftext|>"])
    logits[:, control_ids(tokenizer, keep=ends)] = -torch.inf
    expected = torch.log_softmax(logits[len(prompt.ids) - 1 : -1] / (temperature or 1.0), dim=-1)
    assert turn.logprobs == pytest.approx([float(expected[n, token]) for n, token in enumerate(turn.ids)], abs=1e-4)


def test_a_sampled_turn_goes_by_its_own_seed_and_not_by_its_neighbours() -> None:
    prompts = [encoder().encode(opening(size)) for size in ((64, 48), (150, 90))]

    def drawn(rows: list[int], seed: int) -> list[list[int]]:
        draws = [Random(f"{seed} {row}") for row in rows]
        turns = generate(tiny_model(), tiny_processor(), [prompts[row] for row in rows], Sampling(1.0, 12), draws)
        return [turn.ids for turn in turns]

    together = drawn([0, 1], seed=3)
    assert drawn([0], seed=3) + drawn([1], seed=3) == together
    assert drawn([1, 0], seed=3) == together[::-1]
    assert drawn([0, 1], seed=4) != together


def test_a_turn_that_ended_early_takes_no_random_numbers_while_others_go_on() -> None:
    tokenizer = tiny_processor().tokenizer
    scripts = [
        tokenizer(text)["input_ids"] for text in ("</answer>", "<|im_end|>", "a turn that is longer than the others")
    ]
    steps = itertools.count()

    def say_the_scripts(module: Any, inputs: Any, logits: torch.Tensor) -> torch.Tensor:
        step = next(steps)
        scripted = torch.full_like(logits, -50.0)
        for row, script in enumerate(scripts):
            scripted[row, -1, script[min(step, len(script) - 1)]] = 50.0
        return scripted

    draws = [Random(row) for row in range(3)]
    hook = tiny_model().lm_head.register_forward_hook(say_the_scripts)
    try:
        turns = generate(tiny_model(), tiny_processor(), [encoder().encode(opening())] * 3, Sampling(1.0, 20), draws)
    finally:
        hook.remove()
    assert [turn.finish_reason for turn in turns] == ["stop", "stop", "length"]
    for row, turn in enumerate(turns):
        alone = Random(row)
        _ = [alone.random() for _ in turn.ids]
        assert draws[row].random() == alone.random()


def test_tokens_are_drawn_as_often_as_they_are_likely() -> None:
    prompt = encoder().encode(opening())
    draws = [Random(row) for row in range(400)]
    turns = generate(tiny_model(), tiny_processor(), [prompt] * 400, Sampling(0.15, 1), draws)
    chance = {turn.ids[0]: math.exp(turn.logprobs[0]) for turn in turns}
    often = Counter(turn.ids[0] for turn in turns)
    likely = {token: p for token, p in chance.items() if p > 0.05}
    assert likely
    for token, p in likely.items():
        assert often[token] / 400 == pytest.approx(p, abs=4 * math.sqrt(p / 400))


def test_tokens_that_are_no_text_are_never_sampled() -> None:
    tokenizer = tiny_processor().tokenizer
    turns = sample([encoder().encode(opening())] * 8, temperature=5.0, tokens=60)
    forbidden = set(control_ids(tokenizer, keep=tokenizer.convert_tokens_to_ids([END_OF_TURN, "<|endoftext|>"])))
    assert tiny_processor().image_token_id in forbidden
    assert not forbidden & {token for turn in turns for token in turn.ids}


@pytest.mark.parametrize("tag", ["</tool_call>", "</answer>"])
def test_a_turn_ends_at_its_closing_tag(tag: str) -> None:
    tokenizer = tiny_processor().tokenizer
    script = tokenizer(f"<thinking>a</thinking>{tag} and more")["input_ids"]
    prompts = [encoder().encode(opening()), encoder().encode(opening((32, 32)))]
    steps = itertools.count()

    def say_the_script(module: Any, inputs: Any, logits: torch.Tensor) -> torch.Tensor:
        scripted = torch.full_like(logits, -50.0)
        scripted[:, -1, script[min(next(steps), len(script) - 1)]] = 50.0
        return scripted

    hook = tiny_model().lm_head.register_forward_hook(say_the_script)
    try:
        turns = generate(tiny_model(), tiny_processor(), prompts, Sampling(0.0, 40))
    finally:
        hook.remove()
    assert [tokenizer.decode(turn.ids) for turn in turns] == [f"<thinking>a</thinking>{tag}"] * 2
    assert {turn.finish_reason for turn in turns} == {"stop"}


def test_an_episode_keeps_every_id_as_it_was_sampled_or_observed() -> None:
    batcher = Batcher(tiny_model(), encoder(), Sampling(1.0, 10))
    policy = LocalPolicy(batcher)
    messages = opening()
    seen = Message("tool", "[Tool Response from image_gen]\n{}", (image_ref(2, png((40, 40)), 40, 40),), "image_gen")

    async def episode() -> list[Any]:
        replies = []
        said = list(messages)
        for _ in range(3):
            replies.append(await policy.next_turn(said))
            said += [Message("assistant", replies[-1].text), seen]
        return replies

    calls = [reply.call for reply in anyio.run(episode)]
    ids = policy.encoded.ids
    assert len(policy.encoded.grids) == 1 + 2  # the photo, and an image in each observation but the last
    for call in calls:
        assert ids[: len(call.prompt_token_ids)] == list(call.prompt_token_ids)
        after = len(call.prompt_token_ids) + len(call.completion_token_ids)
        assert ids[len(call.prompt_token_ids) : after] == list(call.completion_token_ids)
        assert policy.sampled[len(call.prompt_token_ids) : after] == [1] * len(call.completion_token_ids)
        assert len(call.logprobs) == len(call.completion_token_ids)
    assert sum(policy.sampled) == sum(len(call.completion_token_ids) for call in calls)
    assert len(policy.sampled) == len(policy.logprobs) == len(ids)
    check_image_tokens(ids, policy.encoded.grids, tiny_processor())


def test_what_a_policy_encodes_piece_by_piece_is_what_the_template_makes_of_the_whole() -> None:
    messages = opening()
    turn = Message("assistant", "<thinking>a</thinking><tool_call>{}</tool_call>")
    seen = Message("tool", "[Tool Response from mask_gen]\n{}", name="mask_gen")
    first = encoder().encode(messages)
    written = tiny_processor().tokenizer(turn.content + END_OF_TURN)["input_ids"]
    second = encoder().encode([seen], after_turn=True)
    whole = encoder().encode([*messages, turn, seen])
    assert first.ids + written + second.ids == whole.ids
    text = tiny_processor().apply_chat_template(template_messages([*messages, turn, seen]), add_generation_prompt=True)
    unpadded = [token for token in whole.ids if token != tiny_processor().image_token_id]
    assert tiny_processor().tokenizer.decode(unpadded) == text.replace("<|image_pad|>", "")


def test_episodes_that_run_side_by_side_share_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    from training import local_policy

    sizes: list[int] = []

    def counted(model: Any, processor: Any, prompts: list[Encoded], *more: Any) -> list[Generated]:
        sizes.append(len(prompts))
        return generate(model, processor, prompts, *more)

    monkeypatch.setattr(local_policy, "generate", counted)
    batcher = Batcher(tiny_model(), encoder(), Sampling(0.0, 4), max_batch=4)

    async def all_at_once() -> None:
        async with anyio.create_task_group() as group:
            for _ in range(6):
                group.start_soon(LocalPolicy(batcher).next_turn, opening())

    anyio.run(all_at_once)
    assert sum(sizes) == 6
    assert max(sizes) == 4


def test_a_batch_waits_for_prompts_that_are_being_encoded(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []

    def counted(prompts: Any, draws: Any) -> list[Generated]:
        sizes.append(len(prompts))
        return [Generated([5], [0.0], "stop") for _ in prompts]

    batcher = Batcher(tiny_model(), encoder(), Sampling(0.0, 4), max_batch=8)
    monkeypatch.setattr(batcher, "generate", counted)

    async def act() -> None:
        async with anyio.create_task_group() as group:
            for number in range(8):
                group.start_soon(LocalPolicy(batcher).next_turn, opening(text=f"Make scratch {number}."))

    anyio.run(act)
    assert sizes == [8]


def test_a_prompt_that_cannot_be_encoded_keeps_no_batch_waiting() -> None:
    batcher = Batcher(tiny_model(), encoder(), Sampling(0.0, 4))
    refused: list[PolicyError] = []

    async def fail() -> None:
        try:
            await LocalPolicy(batcher).next_turn(opening(text="a <|image_pad|> in the text"))
        except PolicyError as error:
            refused.append(error)

    async def act() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(LocalPolicy(batcher).next_turn, opening())
            group.start_soon(fail)

    anyio.run(act)
    assert len(refused) == 1
    assert batcher.encoder.under_way == 0


def test_the_beginning_that_rollouts_share_is_encoded_once_and_never_altered() -> None:
    shared = encoder()
    first, second = shared.encode(opening()), shared.encode(opening())
    assert first == second
    assert first.patches[0] is second.patches[0]
    first.ids.append(1)
    first.pictures.clear()
    assert shared.encode(opening()) == second
    other = shared.encode(opening(size=(32, 32)))
    assert other.grids != second.grids


def test_an_error_of_one_batch_reaches_every_episode_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    from training import local_policy

    def broken(*_: Any) -> list[Generated]:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(local_policy, "generate", broken)
    batcher = Batcher(tiny_model(), encoder(), Sampling(0.0, 4))
    with pytest.raises(RuntimeError, match="out of memory"):
        anyio.run(partial(LocalPolicy(batcher).next_turn, opening()))


def test_another_conversation_than_the_one_begun_is_refused() -> None:
    policy = LocalPolicy(Batcher(tiny_model(), encoder(), Sampling(0.0, 4)))
    anyio.run(policy.next_turn, opening())
    with pytest.raises(PolicyError, match="one policy an episode"):
        anyio.run(policy.next_turn, opening(text="Make a dent."))


def test_a_conversation_longer_than_the_context_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model()
    monkeypatch.setattr(model.config.text_config, "max_position_embeddings", 40)
    policy = LocalPolicy(Batcher(model, encoder(), Sampling(0.0, 30)))
    with pytest.raises(PolicyError, match="leaves no room in 40"):
        anyio.run(policy.next_turn, opening())


def test_a_text_that_holds_an_image_token_is_refused_instead_of_altered() -> None:
    with pytest.raises(EncodingError):
        encoder().encode(opening(text="a <|image_pad|> in the text"))
    policy = LocalPolicy(Batcher(tiny_model(), encoder(), Sampling(0.0, 4)))
    with pytest.raises(PolicyError, match="image"):
        anyio.run(policy.next_turn, opening(text="a <|image_pad|> in the text"))


def test_a_garbled_turn_is_a_protocol_error_for_the_loop_not_a_crash() -> None:
    from agent.protocol import parse_turn

    policy = LocalPolicy(Batcher(tiny_model(), encoder(), Sampling(1.0, 6)))
    reply = anyio.run(policy.next_turn, opening())
    with pytest.raises(ProtocolError):
        parse_turn(reply.text)
