"""The contract of the one private method of TRL that training.grpo takes the place of.

Where a test fails after TRL was updated, its message says what TRL changed: mend ``training/grpo/trainer.py`` and the
pin in ``pyproject.toml`` together.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import io
import textwrap
import tomllib
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from packaging.requirements import Requirement
from PIL import Image
from trl import GRPOTrainer

from agent.session import read_session
from tests.conftest import ROOT
from tests.scripted_grpo import ASK, DONE, EDIT, GIVEN_UP, JUDGE, MASK, UNREADABLE, Stage, stage
from training.grpo.trajectory import REWARD_NAMES

FIELDS = [
    "prompt_ids",
    "completion_ids",
    "tool_mask",
    "completions",
    "logprobs",
    "extra_fields",
    "images",
    "tool_images",
]
"""What ``GRPOTrainer._generate`` of trl 1.16 returns, in order."""
UNPACKED = {"tool_mask": "tool_mask_list", "logprobs": "sampling_per_token_logps_list"} | {
    name: f"{name}_list" for name in ("prompt_ids", "completion_ids")
}
"""What its caller calls some of them."""


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Stage, tuple[Any, ...], dict[str, Any]]]:
    """A stage, what ``_generate`` returned for a group of four, and the batch that TRL made of it."""
    with stage(tmp_path_factory.mktemp("seam")) as made:
        made.scripts = {
            "00000-0": [ASK, EDIT, JUDGE, MASK, DONE],
            "00000-1": [UNREADABLE, EDIT, JUDGE, MASK, DONE],
            "00000-2": [ASK, EDIT, EDIT, GIVEN_UP],
            "00000-3": [EDIT] * 6,
        }
        made.letter_by_letter = ("00000-1",)
        returned: list[tuple[Any, ...]] = []
        generate = made.trainer._generate

        def kept(prompts: list[Any]) -> tuple[Any, ...]:
            returned.append(generate(prompts))
            return returned[-1]

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(made.trainer, "_generate", kept)
            batch = made.batch([0])
        yield made, returned[0], batch


def source(method: Callable[..., Any]) -> ast.Module:
    return ast.parse(textwrap.dedent(inspect.getsource(method)))


def test_the_installed_trl_is_one_that_the_seam_was_written_for() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    (pinned,) = {str(need) for need in map(Requirement, extras["train"]) if need.name == "trl"}
    assert version("trl") in Requirement(pinned).specifier, f"trl {version('trl')} is installed, the pin is {pinned}"
    assert version("trl").startswith("1.16."), "this contract was read from trl 1.16: read the new _generate anew"


def test_trls_generate_returns_the_fields_that_ours_returns_in_the_same_order() -> None:
    returns = [node.value for node in ast.walk(source(GRPOTrainer._generate)) if isinstance(node, ast.Return)]
    assert len(returns) == 1, f"TRL's _generate now returns in {len(returns)} places"
    assert isinstance(returns[0], ast.Tuple), "TRL's _generate no longer returns a tuple"
    names = [element.id if isinstance(element, ast.Name) else ast.unparse(element) for element in returns[0].elts]
    assert names == FIELDS, f"TRL's _generate now returns {names}: return the same from EpisodeGRPOTrainer._generate"


def test_trl_unpacks_those_fields_in_that_order() -> None:
    found = [
        ast.unparse(node.targets[0])
        for node in ast.walk(source(GRPOTrainer._generate_and_score_completions))
        if isinstance(node, ast.Assign) and ast.unparse(node.value).startswith("self._generate(")
    ]
    assert len(found) == 1, f"_generate_and_score_completions now calls _generate in {len(found)} places"
    expected = ", ".join(UNPACKED.get(name, name) for name in FIELDS)
    assert found[0].strip("()") == expected, f"TRL now unpacks {found[0]}"


def test_the_methods_and_attributes_that_are_used_are_there(played: tuple[Stage, Any, Any]) -> None:
    trainer = played[0].trainer
    assert list(inspect.signature(GRPOTrainer._generate).parameters) == ["self", "prompts"]
    assert list(inspect.signature(GRPOTrainer._generate_and_score_completions).parameters) == ["self", "inputs"]
    assert list(inspect.signature(GRPOTrainer._log_metric).parameters) == ["self", "name", "value"]
    for name in ("_metrics", "_pending_metrics", "tools", "num_generations", "_image_pad_token_id"):
        assert hasattr(trainer, name), f"TRL's trainer has no {name} any more"
    assert trainer._is_vlm, "TRL no longer sees that the model takes images"
    assert trainer.multi_objective_aggregation == "sum_then_normalize", "TRL now combines rewards in another way"
    assert trainer.importance_sampling_level == "token", "TRL's ratio is no longer one a token"


def test_every_field_of_ours_has_its_type_and_one_entry_a_rollout(played: tuple[Stage, Any, Any]) -> None:
    fields = dict(zip(FIELDS, played[1], strict=True))
    for name, entry in (("prompt_ids", int), ("completion_ids", int), ("tool_mask", int), ("logprobs", float)):
        assert len(fields[name]) == 4
        assert all(type(row) is list and {type(value) for value in row} == {entry} for row in fields[name]), name
    for name in ("tool_mask", "logprobs"):
        assert list(map(len, fields[name])) == list(map(len, fields["completion_ids"])), name
    assert [conversation[0]["role"] for conversation in fields["completions"]] == ["assistant"] * 4
    assert fields["extra_fields"].keys() == {f"earned_{name}" for name in REWARD_NAMES}
    assert all(len(values) == 4 for values in fields["extra_fields"].values())
    assert all(image.mode == "RGB" for row in fields["images"] for image in row)
    assert fields["tool_images"] == fields["images"]


def test_images_that_came_up_on_the_way_are_in_the_batch_as_many_as_its_image_tokens(
    played: tuple[Stage, Any, Any],
) -> None:
    made, _, batch = played
    assert batch["num_images"] == [2, 2, 3, 6], "TRL dropped or added images"
    assert len(batch["image_grid_thw"]) == sum(batch["num_images"])
    assert len(batch["pixel_values"]) == int(batch["image_grid_thw"].prod(-1).sum())
    ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], dim=1)
    image = made.own.encoder.processor.image_token_id
    tokens = (ids == image).sum(1).tolist()
    features = [int(grids.prod(-1).sum()) // 4 for grids in batch["image_grid_thw"].split(batch["num_images"])]
    assert tokens == features
    assert torch.equal(batch["mm_token_type_ids"], (ids == image).long())
    in_completion = (batch["completion_ids"] == image).sum(1)
    assert bool((in_completion > 0).all()), "no image stands behind the first sampled token"


def test_pixels_that_are_trained_on_are_those_that_were_sampled_with(played: tuple[Stage, Any, Any]) -> None:
    made, _, batch = played
    pictures = [png for rollout in made.trainer.batch.groups[0].rollouts for png in rollout.pictures]
    images = [Image.open(io.BytesIO(png)).convert("RGB") for png in pictures]
    shown = made.own.encoder.processor.image_processor(images=images)["pixel_values"]
    assert np.array_equal(batch["pixel_values"].numpy(), np.asarray(shown, np.float32))
    assert len({hashlib.sha256(png).hexdigest() for png in pictures}) == 2, "the photo and the edited image"


def test_tokens_go_in_as_they_came_out(played: tuple[Stage, Any, Any]) -> None:
    made, returned, _ = played
    tokenizer = made.own.encoder.processor.tokenizer
    retokenized = 0
    for rollout, prompt, completion, mask, logprobs in zip(
        made.trainer.batch.groups[0].rollouts, returned[0], returned[1], returned[2], returned[4], strict=True
    ):
        calls = read_session(rollout.session).of_type("model_call")
        last = [*calls[-1]["prompt_token_ids"], *calls[-1]["completion_token_ids"]]
        assert (prompt + completion)[: len(last)] == last
        assert len(prompt) == len(calls[0]["prompt_token_ids"])
        own = [token for token, sampled in zip(completion, mask, strict=True) if sampled]
        assert own == [token for call in calls for token in call["completion_token_ids"]]
        values = [value for value, sampled in zip(logprobs, mask, strict=True) if sampled]
        assert values == [value for call in calls for value in call["logprobs"]]
        assert {value for value, sampled in zip(logprobs, mask, strict=True) if not sampled} <= {0.0}
        retokenized += tokenizer(tokenizer.decode(own))["input_ids"] != own
    assert retokenized, "no script was spelled in other tokens than the tokenizer's"


def test_the_mask_is_1_on_sampled_tokens_alone_and_pads_carry_no_loss(played: tuple[Stage, Any, Any]) -> None:
    _, returned, batch = played
    loss_mask = batch["completion_mask"] * batch["tool_mask"]
    for row, mask in enumerate(returned[2]):
        assert loss_mask[row].tolist() == mask + [0] * (loss_mask.shape[1] - len(mask))
    assert 0 < int(loss_mask.sum()) < int(batch["completion_mask"].sum())


def test_what_the_model_makes_of_observations_changes_no_loss(
    played: tuple[Stage, Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    made, _, batch = played
    trainer = made.trainer
    batch = batch | {"advantages": torch.tensor([1.0, -1.0, 0.5, -0.5])}
    batch["old_per_token_logps"] = batch["sampling_per_token_logps"]
    own = (batch["completion_mask"] * batch["tool_mask"]).bool()
    found = batch["sampling_per_token_logps"] + torch.rand(own.shape, generator=torch.manual_seed(0)) / 10

    def loss(shift: torch.Tensor) -> float:
        def shifted(*_: Any, **__: Any) -> Any:
            return found + shift, torch.zeros_like(found), None

        monkeypatch.setattr(trainer, "_get_per_token_logps_and_entropies", shifted)
        return float(trainer.compute_loss(trainer.model, batch))

    as_it_is = loss(torch.zeros_like(own, dtype=torch.float32))
    assert loss(torch.randn(own.shape).masked_fill(own, 0.0)) == as_it_is
    assert loss(torch.full(own.shape, -0.05).masked_fill(~own, 0.0)) != pytest.approx(as_it_is, abs=1e-6)


def test_a_reward_of_trl_is_what_the_episode_earned(played: tuple[Stage, Any, Any]) -> None:
    made, _, batch = played
    weights = [*made.config.rewards.weights, 1.0]
    assert made.trainer.reward_weights.tolist() == pytest.approx(weights)
    totals = torch.tensor([rollout.total for rollout in made.trainer.batch.groups[0].rollouts])
    expected = (totals - totals.mean()) / (totals.std() + 1e-4)
    assert batch["advantages"].tolist() == pytest.approx(expected.tolist(), abs=1e-5)


def test_a_batch_without_whole_groups_is_refused(played: tuple[Stage, Any, Any]) -> None:
    made = played[0]
    with pytest.raises(ValueError, match="whole groups of 4"):
        made.trainer._generate_and_score_completions(made.rows([0])[:3] + made.rows([1])[:1])


def test_sessions_lie_where_the_step_and_the_rollout_say(played: tuple[Stage, Any, Any]) -> None:
    made = played[0]
    assert [rollout.session for rollout in made.trainer.batch.groups[0].rollouts] == [
        Path(made.config.output / "rollouts" / "step-000000" / f"00000-{copy}") for copy in range(4)
    ]
