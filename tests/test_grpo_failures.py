"""What goes wrong in a rollout, in its tools or in an update ends there: the step goes on, and nothing is hidden."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import pytest
import torch

from agent.session import read_session
from agent.task import StopReason
from agent.toolbox import ToolboxError
from tests.conftest import ROOT
from tests.scripted_grpo import ASK, DONE, EDIT, GIVEN_UP, JUDGE, MASK, UNREADABLE, Stage, stage
from tests.test_grpo_inputs import begin
from tests.tiny_grpo import refusal
from training.grpo import rollouts
from training.grpo.batches import Batch
from training.grpo.trajectory import Group, Trajectory, blank
from training.local_policy import Batcher
from training.rewards import reward
from training.trace import read_trace

PLAN = {
    "00000-0": [ASK, EDIT, JUDGE, MASK, DONE],
    "00000-1": [EDIT, JUDGE, MASK, DONE],
    "00000-2": [ASK, GIVEN_UP],
    "00000-3": [UNREADABLE] * 3,
}


def faulty(folder: Path, fault: str, *changes: str, timeout: float = 60.0) -> Any:
    """A stage whose tool server has a fault in image_gen."""
    command = f"{sys.executable} {ROOT / 'tests/servers/faulty.py'} {fault} {folder / 'photos'}"
    return stage(folder, f'tools.servers=["{command}"]', f"tools.call_timeout={timeout}", *changes)


def rollouts_of(made: Stage) -> Sequence[Trajectory]:
    found: Sequence[Trajectory] = made.trainer.batch.groups[0].rollouts
    return found


def test_a_tool_that_hangs_ends_its_episodes_and_no_other(tmp_path: Path) -> None:
    with faulty(tmp_path, "hangs", timeout=8.0) as made:
        made.scripts.update(PLAN)
        batch = made.batch([0])
        acted = rollouts_of(made)
    sessions = [read_session(rollout.session) for rollout in acted]
    assert [rollout.stop_reason for rollout in acted] == ["tool_error", "tool_error", "answered", "policy_error"]
    assert all("took over 8 s" in str((session.end or {})["error"]) for session in sessions[:2])
    assert [rollout.rewards["failure"] for rollout in acted] == [-0.5, -0.5, 0.0, 0.0]
    assert not any(rollout.problem for rollout in acted)
    totals = [rollout.total or 0.0 for rollout in acted]
    assert totals == [-0.5, -0.5, *[reward(read_trace(session)).total for session in sessions[2:]]]
    spread = torch.tensor(totals)
    expected = (spread - spread.mean()) / (spread.std() + 1e-4)
    assert batch["advantages"].tolist() == pytest.approx(expected.tolist(), abs=1e-5)


@pytest.fixture
def excluding(tmp_path: Path) -> Iterator[Stage]:
    with faulty(tmp_path, "garbage", 'grpo.tool_failure="exclude"') as made:
        yield made


def test_tools_that_return_garbage_can_be_left_out_of_a_groups_mean_and_end_a_training_that_has_nothing_else(
    excluding: Stage, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    excluding.scripts.update(PLAN)
    batch = excluding.batch([0])
    totals = [rollout.total for rollout in rollouts_of(excluding)]
    assert totals[:2] == [None, None]
    assert batch["advantages"][:2].tolist() == [0.0, 0.0]
    others = torch.tensor([total for total in totals if total is not None])
    expected = (others - others.mean()) / (others.std() + 1e-4)
    assert batch["advantages"][2:].tolist() == pytest.approx(expected.tolist(), abs=1e-5)
    figures = excluding.trainer._metrics["train"]
    assert figures["rollouts/excluded"] == [2.0]
    assert figures["reward/total"] == [pytest.approx(float(others.mean()))]
    monkeypatch.setattr(rollouts, "PATIENCE", 1)
    excluding.scripts |= {f"00000-{copy}": [EDIT] for copy in range(4)}
    assert excluding.batch([0])["advantages"].tolist() == [0.0] * 4
    assert "no rollout of this wave can be learned from: image_gen returned no JSON" in caplog.text
    with pytest.raises(ToolboxError, match=r"2 waves in a row: image_gen returned no JSON.*--resume"):
        excluding.batch([0])


def test_servers_that_died_are_started_anew_for_the_next_step(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with faulty(tmp_path, "dies") as made:
        made.scripts |= {f"00000-{copy}": [EDIT] for copy in range(4)}
        made.batch([0])
        assert {rollout.stop_reason for rollout in rollouts_of(made)} == {"tool_error"}
        assert "died" in str((read_session(rollouts_of(made)[0].session).end or {})["error"])
        made.scripts |= {f"00000-{copy}": [ASK, GIVEN_UP] for copy in range(4)}
        with caplog.at_level(logging.WARNING, "training"):
            made.batch([0])
    assert {rollout.stop_reason for rollout in rollouts_of(made)} == {"answered"}
    assert "the tool servers are started anew" in caplog.text


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with stage(tmp_path_factory.mktemp("failures")) as made:
        yield made


@pytest.fixture
def acting(studio: Stage) -> Iterator[Stage]:
    studio.scripts |= {f"00000-{copy}": turns for copy, turns in enumerate(PLAN.values())}
    yield studio
    studio.scripts.clear()


def test_a_rollout_whose_images_and_tokens_do_not_match_is_masked_and_the_others_learn(
    acting: Stage, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    image = acting.own.encoder.processor.image_token_id
    turn = acting.trainer.generating

    @contextmanager
    def generating() -> Iterator[Batcher]:
        with turn() as batcher:
            generate = batcher.generate

            def smuggle(prompts: Any, draws: Any) -> Any:
                turns = generate(prompts, draws)
                for number, made in enumerate(turns):
                    if acting.own.encoder.processor.tokenizer.decode(made.ids) == GIVEN_UP:
                        turns[number] = replace(made, ids=[image, *made.ids], logprobs=[-1.0, *made.logprobs])
                return turns

            monkeypatch.setattr(batcher, "generate", smuggle)
            yield batcher

    monkeypatch.setattr(acting.trainer, "generating", generating)
    with caplog.at_level(logging.ERROR, "training"):
        batch = acting.batch([0])
    made = rollouts_of(acting)
    assert [bool(rollout.problem) for rollout in made] == [False, False, True, False]
    assert "image tokens for" in made[2].problem
    assert caplog.text.count("is left out of the loss") == 1
    assert batch["num_images"] == [2, 2, 1, 1]
    assert (batch["completion_mask"] * batch["tool_mask"]).sum(1).tolist()[2] == 0
    assert batch["advantages"][2] == 0
    assert bool(batch["advantages"][[0, 1, 3]].all())
    assert "pixel_values" in batch


def test_a_blank_rollout_has_a_picture_and_no_loss(acting: Stage) -> None:
    made = blank(acting.own.encoder)
    assert len(made.pictures) == 1
    assert list(made.sampled) == [0]
    assert made.total is None
    batch = only(acting, [made] * 4)
    assert batch["num_images"] == [1] * 4
    assert int((batch["completion_mask"] * batch["tool_mask"]).sum()) == 0
    acting.trainer.model.zero_grad()
    loss = acting.trainer.compute_loss(acting.trainer.model, batch)
    loss.backward()
    assert loss.item() == 0.0
    grads = [parameter.grad for parameter in acting.trainer.model.parameters() if parameter.grad is not None]
    assert grads
    assert not any(bool(grad.any()) for grad in grads)


def only(made: Stage, given: Sequence[Trajectory]) -> dict[str, Any]:
    """The batch that TRL makes of rollouts that are given."""

    class Given:
        buffer = made.trainer.plan.buffer

        def fill(self, *_: Any) -> Batch:
            return Batch([Group(0, 0, given)])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(made.trainer, "plan", Given())
        return made.batch([0])


def test_a_batch_of_episodes_that_took_too_long_to_write_anything_still_runs(
    acting: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def never(*_: Any) -> Any:
        await anyio.sleep_forever()

    monkeypatch.setattr(Batcher, "turn", never)
    sooner = acting.config.rollout.model_copy(update={"seconds": 0.1})
    monkeypatch.setattr(acting.trainer.rollouts, "config", acting.config.model_copy(update={"rollout": sooner}))
    batch = acting.batch([0])
    assert [rollout.stop_reason for rollout in rollouts_of(acting)] == ["cancelled"] * 4
    assert {rollout.problem for rollout in rollouts_of(acting)} == {"the policy wrote nothing"}
    assert batch["num_images"] == [1] * 4
    assert acting.trainer.compute_loss(acting.trainer.model, batch).item() == 0.0


def test_a_session_that_cannot_be_read_leaves_its_rollout_out(
    acting: Stage, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def read(folder: Path) -> Any:
        if folder.name == "00000-1":
            raise OSError(28, "no space left on device")
        return read_session(folder)

    monkeypatch.setattr(rollouts, "read_session", read)
    acting.batch([0])
    assert [bool(rollout.problem) for rollout in rollouts_of(acting)] == [False, True, False, False]
    assert "no space left" in caplog.text
    assert acting.trainer._metrics["train"]["rollouts/left_out"][-1] == 1.0


def test_running_out_of_memory_while_generating_ends_the_training_with_what_helps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(Batcher, "generate", full)
    assert begin(tmp_path) == 2
    line = refusal(capsys)
    assert "the GPU's memory does not suffice" in line
    assert "train.batch_size = 1" in line


def test_a_training_step_whose_gradients_are_no_numbers_is_counted_and_changes_nothing(
    acting: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = acting.trainer
    before = {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}
    loss = trainer.compute_loss
    monkeypatch.setattr(trainer, "compute_loss", lambda *values, **named: loss(*values, **named) * float("nan"))
    monkeypatch.setattr(trainer.args, "max_steps", 1)
    trainer.args.save_strategy = "no"
    short = ([ASK, GIVEN_UP], [UNREADABLE] * 3) * 2
    acting.scripts |= {f"{task:05d}-{copy}": turns for task in range(2) for copy, turns in enumerate(short)}
    trainer.train()
    assert trainer.guard.skipped == 1
    assert trainer.state.global_step == 1
    after = trainer.model.state_dict()
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())


def test_every_reason_to_stop_is_counted(acting: Stage) -> None:
    acting.batch([0])
    figures = acting.trainer._metrics["train"]
    assert {name for name in figures if name.startswith("stop/")} == {f"stop/{reason.value}" for reason in StopReason}
