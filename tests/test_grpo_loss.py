"""The loss that training.grpo has TRL compute, against GRPO's formula worked out by hand.

    L = -1/G sum_i 1/|o_i| sum_t [min(rho A_i, clip(rho, 1 - eps, 1 + eps) A_i) - beta KL],  rho = pi_theta / pi_old,
    KL = pi_ref / pi_theta - log(pi_ref / pi_theta) - 1

over the tokens that the policy wrote. The probabilities are taken from a model of its own that TRL has not touched, one
unpadded rollout at a time.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from random import Random
from statistics import pstdev
from typing import Any

import pytest
import torch
from PIL import Image

from agent.chat_template import END_OF_TURN
from agent.protocol import Message
from tests.recorded_session import png
from tests.scripted_grpo import Stage, stage
from tests.tiny_model import image_ref, tiny_folder
from training.encoding import Encoder
from training.generation import generate
from training.grpo.batches import Batch
from training.grpo.trainer import with_behaviour
from training.grpo.trajectory import REWARD_NAMES, Group, Trajectory, cut

EPSILON, BETA = 0.2, 0.3
RATIOS = (0.4, 0.95, 1.0, 1.1, 1.7)
"""pi_theta / pi_old of replayed tokens, in turn: two of them are clipped, each on a side of its own."""


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """A trainer of groups of two whose weights have moved away from the reference's."""
    changes = ("grpo.group_size=2", "train.batch_size=2", f"grpo.beta={BETA}", "model.freeze_vision=false")
    with stage(tmp_path_factory.mktemp("loss"), *changes, tools=False) as made:
        torch.manual_seed(1)
        with torch.no_grad():
            for parameter in made.trainer.model.parameters():
                parameter += 0.02 * torch.randn_like(parameter)
        yield made


@pytest.fixture(scope="module")
def rollouts(studio: Stage) -> list[Trajectory]:
    """Two rollouts of different lengths, each with an observation and its picture between two turns."""
    encoder = studio.own.encoder
    return [
        acted(encoder, ["Edit it now.", "Done."], side=64, total=1.0),
        acted(encoder, ["I look at the rim first, then edit.", "It is done, and the mask too."], side=40, total=0.2),
    ]


def acted(encoder: Encoder, turns: Sequence[str], side: int, total: float) -> Trajectory:
    opening = Message("user", "Make a scratch.", (image_ref(1, png((96, 64)), 96, 64),))
    encoded = encoder.encode([Message("system", "Rules."), opening])
    sampled = [0] * len(encoded.ids)
    for place, turn in enumerate(turns):
        if place:
            shown = (image_ref(2, png((side, side), "#204060"), side, side),)
            seen = encoder.encode([Message("tool", "[Tool Response]", shown, "image_gen")], after_turn=True)
            encoded, sampled = encoded + seen, sampled + [0] * len(seen.ids)
        ids = encoder.processor.tokenizer(turn + END_OF_TURN)["input_ids"]
        encoded, sampled = encoded.with_ids(ids), sampled + [1] * len(ids)
    made = cut(encoded, sampled, [-0.7 * mark for mark in sampled], encoder.processor)
    rewards: dict[str, float | None] = {"task": total, "reflection": 0.0, "behaviour": 0.0, "failure": 0.0}
    assert tuple(rewards) == REWARD_NAMES
    return replace(made, rewards=rewards, total=total)


def batch_of(studio: Stage, *groups: Group) -> dict[str, Any]:
    """What TRL makes of groups, on the way that every step takes."""

    class Given:
        buffer = studio.trainer.plan.buffer

        def fill(self, *_: Any) -> Batch:
            return Batch(list(groups))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(studio.trainer, "plan", Given())
        return studio.batch([group.task for group in groups])


def untouched(state: dict[str, torch.Tensor] | None = None) -> Any:
    from transformers import AutoModelForImageTextToText

    model = AutoModelForImageTextToText.from_pretrained(tiny_folder())
    if state is not None:
        model.load_state_dict(state)
    return model


def log_probabilities(model: Any, encoder: Encoder, rollout: Trajectory) -> torch.Tensor:
    """Natural logarithm of the probability of each completion token: (tokens,)."""
    images = [Image.open(io.BytesIO(picture)).convert("RGB") for picture in rollout.pictures]
    seen = encoder.processor.image_processor(images=images, return_tensors="pt")
    ids = torch.tensor([[*rollout.prompt_ids, *rollout.completion_ids]])
    kinds = (ids == encoder.processor.image_token_id).long()
    logits = model(input_ids=ids, attention_mask=torch.ones_like(ids), mm_token_type_ids=kinds, **seen).logits[0]
    first = len(rollout.prompt_ids)
    spread = torch.log_softmax(logits[first - 1 : -1].float(), dim=-1)
    return spread.gather(1, ids[0, first:].unsqueeze(1)).squeeze(1)


def loss_by_hand(
    new: Sequence[torch.Tensor],
    old: Sequence[torch.Tensor],
    reference: Sequence[torch.Tensor],
    rollouts: Sequence[Trajectory],
    advantage: Sequence[float],
    beta: float,
    replayed: bool,
) -> torch.Tensor:
    """The formula, token by token; the KL term of replayed tokens is weighed by the ratio."""
    total = torch.tensor(0.0)
    for i, rollout in enumerate(rollouts):
        own = [t for t, sampled in enumerate(rollout.sampled) if sampled]
        for t in own:
            ratio = torch.exp(new[i][t] - old[i][t])
            clipped = min(max(ratio, torch.tensor(1 - EPSILON)), torch.tensor(1 + EPSILON))
            surrogate = min(ratio * advantage[i], clipped * advantage[i])
            away = reference[i][t] - new[i][t]
            kl = (torch.exp(away) - away - 1) * (ratio if replayed else 1.0)
            total = total - (surrogate - beta * kl) / len(own) / len(rollouts)
    return total


@pytest.mark.parametrize("beta", [0.0, BETA])
@pytest.mark.parametrize("replayed", [False, True])
def test_the_loss_and_its_gradient_are_those_of_the_formula(
    studio: Stage, rollouts: list[Trajectory], replayed: bool, beta: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer, encoder = studio.trainer, studio.own.encoder
    monkeypatch.setattr(trainer, "beta", beta)
    mine = untouched(trainer.model.state_dict())
    new = [log_probabilities(mine, encoder, rollout) for rollout in rollouts]
    with torch.no_grad():
        reference = [log_probabilities(untouched(), encoder, rollout) for rollout in rollouts]
    old = [values.detach() for values in new]
    if replayed:
        old = [values - torch.log(torch.tensor(RATIOS).repeat(99)[: len(values)]) for values in old]
        rollouts = [
            replace(rollout, logprobs=[float(v) * s for v, s in zip(values, rollout.sampled, strict=True)])
            for rollout, values in zip(rollouts, old, strict=True)
        ]
    batch = batch_of(studio, Group(0, 0, rollouts, replayed))
    trainer.model.zero_grad()
    loss = trainer.compute_loss(trainer.model, batch)
    loss.backward()
    expected = loss_by_hand(new, old, reference, rollouts, batch["advantages"].tolist(), beta, replayed)
    expected.backward()  # type: ignore[no-untyped-call]
    assert loss.item() == pytest.approx(expected.item(), rel=1e-4, abs=1e-6)
    assert abs(expected.item()) > 1e-3 or not (replayed or beta)
    largest = 0.0
    for (name, parameter), same in zip(trainer.model.named_parameters(), mine.parameters(), strict=True):
        if same.grad is None:
            assert parameter.grad is None or not bool(parameter.grad.any())
        else:
            largest = max(largest, float(same.grad.abs().max()))
            torch.testing.assert_close(parameter.grad, same.grad, rtol=1e-3, atol=1e-5, msg=name)
    assert largest > 1e-3
    if replayed:
        clipped = trainer._metrics["train"]
        assert clipped["clip_ratio/high_mean"][-1] > 0
        assert clipped["clip_ratio/low_mean"][-1] > 0


def test_new_and_replayed_groups_of_one_batch_have_the_probabilities_of_the_policy_that_wrote_them(
    studio: Stage, rollouts: list[Trajectory], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(studio.trainer, "beta", 0.0)
    batch = batch_of(studio, Group(0, 3, rollouts), Group(1, 1, rollouts, replayed=True))
    own = (batch["completion_mask"] * batch["tool_mask"]).bool()
    assert batch["old_per_token_logps"].shape == own.shape
    assert batch["old_per_token_logps"][own].tolist() == pytest.approx([-0.7] * int(own.sum()))


def test_a_batch_without_replayed_groups_is_left_as_trl_made_it(studio: Stage, rollouts: list[Trajectory]) -> None:
    assert "old_per_token_logps" not in batch_of(studio, Group(0, 3, rollouts))
    batch = {"sampling_per_token_logps": torch.zeros(2, 3)}
    assert with_behaviour(batch, torch.tensor([False, False])) is batch
    assert batch.keys() == {"sampling_per_token_logps"}


def test_replayed_rows_take_their_probabilities_at_sampling_and_an_importance_ratio_of_1() -> None:
    sampled = torch.tensor([[-1.0, -2.0], [-3.0, math.nan]])
    present = torch.tensor([[-1.5, -2.5], [-3.5, -4.5]])
    batch = {
        "sampling_per_token_logps": sampled,
        "old_per_token_logps": present,
        "importance_sampling_ratio": torch.tensor([[0.5, 0.6], [0.7, 0.8]]),
    }
    made = with_behaviour(batch, torch.tensor([False, True]))
    assert made["old_per_token_logps"].tolist() == [[-1.5, -2.5], [-3.0, -4.5]]
    assert made["importance_sampling_ratio"].tolist() == [[0.5, pytest.approx(0.6)], [1.0, 1.0]]


def advantages(totals: list[float]) -> list[float]:
    """A_i = (r_i - mean r) / std r (formula 1 of GRPO; population deviation)."""
    mean, spread = sum(totals) / len(totals), pstdev(totals)
    return [(total - mean) / spread for total in totals]


def test_trls_advantages_are_the_papers_but_for_the_sample_deviation_and_a_ten_thousandth(
    studio: Stage, rollouts: list[Trajectory]
) -> None:
    totals = [rollout.total or 0.0 for rollout in rollouts]
    trls = batch_of(studio, Group(0, 0, rollouts))["advantages"].tolist()
    population = math.sqrt(sum((total - sum(totals) / 2) ** 2 for total in totals) / 2)
    for value, papers in zip(trls, advantages(totals), strict=True):
        assert value == pytest.approx(papers * population / (population * math.sqrt(2 / (2 - 1)) + 1e-4), rel=1e-5)


def test_rollouts_that_earned_the_same_have_no_advantage_and_one_that_is_excluded_has_none(
    studio: Stage, rollouts: list[Trajectory]
) -> None:
    same = [replace(rollout, rewards=rollouts[0].rewards) for rollout in rollouts]
    left_out = [rollouts[0], replace(rollouts[1], rewards=dict.fromkeys(REWARD_NAMES), total=None)]
    batch = batch_of(studio, Group(0, 0, same), Group(1, 0, left_out))
    assert batch["advantages"].tolist() == [0.0] * 4


def test_sampled_probabilities_are_those_that_the_trainer_finds(studio: Stage, rollouts: list[Trajectory]) -> None:
    encoder, trainer = studio.own.encoder, studio.trainer
    opening = [
        encoder.encode([Message("user", text, (image_ref(1, png(size), *size),))])
        for text, size in (("Make a scratch.", (96, 64)), ("Make a dent on the rim of this plate.", (40, 64)))
    ]
    sampling = replace(studio.own.sampling, max_new_tokens=24)
    turns = generate(trainer.model, encoder.processor, opening, sampling, [Random(1), Random(2)])
    made = [
        replace(
            cut(
                prompt.with_ids(turn.ids),
                [0] * len(prompt.ids) + [1] * len(turn.ids),
                [0.0] * len(prompt.ids) + turn.logprobs,
                encoder.processor,
            ),
            rewards=rollouts[0].rewards,
        )
        for prompt, turn in zip(opening, turns, strict=True)
    ]
    batch = batch_of(studio, Group(0, 0, made))
    ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], dim=1)
    mask = torch.cat([batch["prompt_mask"], batch["completion_mask"]], dim=1)
    pictures = {name: batch[name] for name in ("pixel_values", "image_grid_thw", "num_images", "mm_token_type_ids")}
    with torch.no_grad():
        found, _, _ = trainer._get_per_token_logps_and_entropies(
            trainer.model, ids, mask, batch["completion_ids"].shape[1], **pictures
        )
    own = batch["completion_mask"].bool()
    more = (batch["sampling_per_token_logps"] - found)[own]
    # Control tokens cannot be sampled, so the others are a little likelier there: by what those have of the whole.
    assert float(more.min()) > -1e-4
    assert float(more.max()) < 0.05
