"""The rollouts of a step run side by side: none waits for another's tool."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import pytest

from agent.chat_template import END_OF_TURN
from agent.session import read_session
from agent.task import Task
from benchmarks.rollout_script import ANOMALY, ITEM, ScriptedBatcher, turn_due
from tests.paid import Shop
from tests.tiny_model import tiny_folder, tiny_model, tiny_processor
from training.config import ModelSection
from training.encoding import Encoded, Encoder
from training.generation import Generated, Sampling
from training.grpo.config import GrpoConfig, GrpoSection, TasksSection, ToolsSection
from training.grpo.rollouts import Rollouts
from training.grpo.trajectory import Group

INSTANT = ("prompt_gen=instant", "quality_eval=instant", "mask_gen=instant")


def roll_out(
    photo: Path, folder: Path, image_gen: str, groups: int, kind: type[ScriptedBatcher] = ScriptedBatcher, **tools: Any
) -> list[Group]:
    """Groups of eight over one tool server, whose image_gen has manners of its own."""
    shop = Shop(photo.parent, folder / "calls.txt", (f"image_gen=instant,{image_gen}", *INSTANT))
    config = GrpoConfig(
        output=folder,
        model=ModelSection(path=str(tiny_folder()), dtype="float32"),
        tasks=TasksSection(files=[photo.parent]),
        tools=ToolsSection(servers=[shlex.join(shop.command())], **tools),
        grpo=GrpoSection(group_size=8, groups=groups),
    )
    tasks = [Task(str(photo), ITEM, ANOMALY, seed=seed) for seed in range(groups)]
    batcher = kind(tiny_model(), Encoder(tiny_processor(), 64), Sampling(1.0))
    with Rollouts(config, tasks, folder / "rollouts") as rollouts:
        return rollouts.groups(batcher, range(groups), 0)


def stop_reasons(groups: Sequence[Group]) -> Counter[str]:
    return Counter(rollout.stop_reason for group in groups for rollout in group.rollouts)


@pytest.fixture
def server_path(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).resolve().parent.parent))


@pytest.mark.usefixtures("server_path")
def test_the_editor_has_the_calls_of_all_32_episodes_before_it_answers_one(photo_file: Path, tmp_path: Path) -> None:
    groups = roll_out(photo_file, tmp_path, "together:32", groups=4)
    assert stop_reasons(groups) == {"answered": 32}
    for rollout in (rollout for group in groups for rollout in group.rollouts):
        results = read_session(rollout.session).of_type("tool_result")
        assert [result["tool"] for result in results] == ["prompt_gen", "image_gen", "quality_eval", "mask_gen"]
        assert all(result["ok"] for result in results)
        assert not rollout.problem


@pytest.mark.usefixtures("server_path")
def test_seven_episodes_end_while_the_eighth_still_waits_for_its_tool(photo_file: Path, tmp_path: Path) -> None:
    gate = tmp_path / "seven have answered"

    class Watching(ScriptedBatcher):
        """Opens the gate when seven episodes have been given their answers."""

        answers = 0

        def generate(self, prompts: Sequence[Encoded], draws: Sequence[Random]) -> list[Generated]:
            end = self.encoder.processor.tokenizer.convert_tokens_to_ids(END_OF_TURN)
            self.answers += sum(turn_due(prompt.ids, end) == 4 for prompt in prompts)
            if self.answers == 7:
                gate.touch()
            return super().generate(prompts, draws)

    assert stop_reasons(roll_out(photo_file, tmp_path, f"held:{gate}", 1, Watching)) == {"answered": 8}


@pytest.mark.usefixtures("server_path")
def test_a_tool_that_never_answers_ends_its_own_episode_alone(photo_file: Path, tmp_path: Path) -> None:
    (group,) = roll_out(photo_file, tmp_path, f"held:{tmp_path / 'never'}", 1, call_timeout=5.0)
    assert stop_reasons([group]) == {"answered": 7, "tool_error": 1}
    (failed,) = [rollout for rollout in group.rollouts if rollout.stop_reason == "tool_error"]
    assert not failed.problem
    assert failed.total == GrpoSection().failure_reward
    assert read_session(failed.session).of_type("tool_result")[-1]["error_class"] == "timeout"
