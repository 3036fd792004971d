"""Reinforcement learning through its command: a tiny real Qwen3-VL acts, with real tools, and learns from it."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import pytest
import torch
from trl.trainer.utils import RepeatSampler

from agent.session import read_session
from tests.conftest import make_photo
from tests.tiny_grpo import acting_model, history, refusal, told, train
from tests.tiny_training import planner_sessions
from training.compat import without_video
from training.grpo.task_order import TaskOrder
from training.reward_config import RewardConfig
from training.sessions import find_sessions, logged_totals

STEPS, HALF = 4, 2
"""An epoch has two steps: four tasks, two groups a step."""
TOOLS = ("prompt_gen", "image_gen", "quality_eval", "knowledge_retrieval", "mask_gen")


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a held-out photo and its task; servers that are started keep their images in it."""
    folder = tmp_path_factory.mktemp("grpo")
    cv2.imwrite(str(folder / "new.png"), make_photo(96, 96, 99))
    task = {"image": "new.png", "item_name": "plate", "anomaly_type": "scratch", "max_images": 1}
    (folder / "held-out.jsonl").write_text(json.dumps(task) + "\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ANOMALY_AGENT_HOME", str(folder / "home"))
        yield folder


@pytest.fixture(scope="module")
def trained(room: Path) -> Path:
    """The output folder of an uninterrupted training that measured before and after, and recorded its tools."""
    changes = (
        f"train.max_steps={STEPS}", f'held_out.files=["{room / "held-out.jsonl"}"]', "held_out.episodes=1",
        "held_out.max_new_tokens=60", "held_out.every=1", four_tasks(), f"tools.recording={room / 'recorded'}",
        'tools.mode="record"',
    )  # fmt: skip
    assert train(room / "whole", *changes) == 0
    return room / "whole"


@pytest.fixture(scope="module")
def resumed(trained: Path, room: Path) -> Path:
    """The same training, interrupted after half of its steps and gone on with."""
    output = room / "resumed"
    shutil.copytree(trained, output)
    shutil.rmtree(output / "model")
    shutil.rmtree(output / "checkpoints" / f"checkpoint-{STEPS}")
    changes = (f"train.max_steps={STEPS}", "held_out.episodes=1", f'held_out.files=["{room / "held-out.jsonl"}"]')
    settings = ("held_out.every=1", "held_out.max_new_tokens=60", four_tasks())
    assert train(output, *changes, *settings, resume=True) == 0
    return output


@pytest.fixture(scope="module")
def replayed(trained: Path, room: Path) -> Path:
    """A training on the tool results that the first one recorded, where no server could be started."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "executable", "/there/is/no/python")
        recorded = (f"tools.recording={room / 'recorded'}", 'tools.mode="replay"')
        assert train(room / "replayed", f"train.max_steps={HALF}", four_tasks(), *recorded) == 0
    return room / "replayed"


def four_tasks() -> str:
    return f'tasks.sessions=["{planner_sessions()}/[0-3]"]'


def steps(output: Path) -> list[dict[str, Any]]:
    return [entry for entry in history(output) if "reward/total" in entry]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    from transformers import AutoModelForImageTextToText

    return dict(AutoModelForImageTextToText.from_pretrained(folder).state_dict())


def test_everything_that_a_training_leaves_is_in_its_folder(trained: Path) -> None:
    assert {path.name for path in trained.iterdir()} == {
        "checkpoints", "config.json", "curves.png", "held_out", "history.json", "model", "photos", "rollouts",
        "samples", "split.json", "started-by-training-grpo.txt", "tasks.json", "tensorboard",
    }  # fmt: skip
    assert (trained / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert list((trained / "tensorboard").glob("events.out.tfevents.*"))
    assert sorted(path.name for path in (trained / "held_out").iterdir()) == [
        f"step-{step:06d}" for step in range(STEPS + 1)
    ]
    for step in (HALF, STEPS):
        assert (trained / "checkpoints" / f"checkpoint-{step}" / "replay-0.pt").is_file()
        for name in ("best", "median", "worst"):
            page = (trained / "samples" / f"step-{step:06d}" / f"{name}.html").read_text()
            assert page.lower().startswith("<!doctype html>")


def test_every_rollout_is_a_session_whose_log_holds_its_rewards(trained: Path) -> None:
    places = find_sessions([trained / "rollouts"])
    assert len(places) == sum(entry["rollouts/made"] for entry in steps(trained))
    for place in places:
        session = read_session(place)
        assert session.complete
        rewards = {event["component"]: event["value"] for event in session.of_type("reward")}
        assert {"task", "reflection", "behaviour", "behaviour.transitions", "reflection.paper", "total"} <= set(rewards)
        assert len(logged_totals(session, RewardConfig().hash)) == 1
        assert session.of_type("model_call")[0]["logprobs"]
    first = [place for place in places if place.parent.name.startswith("step-000000")]
    totals = [logged_totals(read_session(place), RewardConfig().hash)[0]["value"] for place in first]
    assert steps(trained)[0]["reward/total"] == pytest.approx(sum(totals) / len(totals), abs=1e-5)


def test_every_figure_of_a_step_is_in_the_history_also_where_every_step_is_measured(trained: Path) -> None:
    entries = steps(trained)
    assert [entry["step"] for entry in entries] == [1, 2, 3, 4]
    expected = {
        "reward/total", "reward/task", "reward/reflection", "reward/behaviour", "reward/behaviour.transitions",
        "reward/reflection.paper", "episode/good", "episode/valid", "episode/answered", "episode/turns",
        "episode/images", "episode/seconds", "episode/cost_usd", "kl", "entropy", "loss", "grad_norm",
        "groups/zero_advantage", "groups/learned_from", "groups/resampled", "groups/replayed", "groups/replay_age",
        "groups/replay_size", "rollouts/made", "rollouts/left_out", "rollouts/excluded", "time/rollout", "time/score",
        "time/longest_episode", "step_time", "rollouts/tokens_per_second", "updates_left_out",
        *(f"tools/{name}" for name in TOOLS), *(f"stop/{name}" for name in ("answered", "max_turns", "policy_error")),
    }  # fmt: skip
    for entry in entries:
        assert expected <= entry.keys()
        assert 0 <= entry["groups/zero_advantage"] <= 1
        assert 0 <= entry["episode/good"] <= entry["episode/answered"] <= 1
        assert entry["rollouts/left_out"] == entry["rollouts/excluded"] == entry["updates_left_out"] == 0
    assert entries[0]["tools/image_gen"] > 0
    measured = [entry for entry in history(trained) if "eval_reward" in entry]
    assert [entry["step"] for entry in measured] == list(range(STEPS + 1))
    assert {"eval_reward_by_own_judge", "eval_valid_share", "eval_answered_share", "eval_mean_turns"} <= {*measured[0]}


def test_the_policy_begins_at_its_reference_and_moves_away_from_it(trained: Path) -> None:
    divergences = [entry["kl"] for entry in steps(trained)]
    assert divergences[0] == pytest.approx(0, abs=1e-6)
    assert all(value > 1e-4 for value in divergences[1:])


def test_later_steps_replay_a_group_of_earlier_ones(trained: Path) -> None:
    entries = steps(trained)
    assert [entry["groups/replayed"] for entry in entries[:2]] == [0, 1]
    assert all(entry["groups/replay_age"] >= 1 for entry in entries[1:])
    assert all(later["groups/replay_size"] >= sooner["groups/replay_size"] for sooner, later in pairwise(entries))


def test_the_trained_model_loads_has_its_card_and_has_learnt(trained: Path) -> None:
    from transformers import AutoProcessor

    without_video()
    assert type(AutoProcessor.from_pretrained(trained / "model")).__name__ == "Qwen3VLProcessor"
    before, after = weights(acting_model()), weights(trained / "model")
    moved = {name for name, tensor in after.items() if not torch.equal(tensor, before[name])}
    assert any("language_model" in name for name in moved)
    frozen = {name for name in after if ".visual." in name and "merger" not in name}
    assert frozen
    assert not moved & frozen
    card = (trained / "model" / "README.md").read_text()
    assert "GRPO, groups of 4" in card
    assert "reward/total" in card


def test_an_interrupted_training_goes_on_in_the_next_epoch_as_if_it_had_not_been(trained: Path, resumed: Path) -> None:
    assert told(resumed) == told(trained)
    for whole, again in zip(steps(trained), steps(resumed), strict=True):
        for name in ("step", "reward/total", "episode/turns", "groups/replayed", "groups/resampled", "kl", "entropy"):
            assert again[name] == pytest.approx(whole[name], rel=1e-4, abs=1e-6), (whole["step"], name)
    expected = weights(trained / "model")
    for name, tensor in weights(resumed / "model").items():
        torch.testing.assert_close(tensor, expected[name], rtol=0, atol=1e-5, msg=name)


def test_the_tasks_of_an_epoch_are_the_same_wherever_a_training_goes_on_in_it(trained: Path, resumed: Path) -> None:
    def tasks(output: Path) -> list[set[str]]:
        return [
            {place.name[:5] for place in find_sessions([output / "rollouts" / f"step-{step:06d}"])}
            for step in range(STEPS)
        ]

    assert tasks(resumed) == tasks(trained)
    drawn = RepeatSampler(range(8), mini_repeat_count=1, batch_size=2, seed=3)
    whole = [list(drawn) for _ in range(3)]
    assert whole[0] != whole[1] != whole[2]
    again = RepeatSampler(range(8), mini_repeat_count=1, batch_size=2, seed=3)
    assert [list(TaskOrder(again, partial(int, epoch))) for epoch in (2, 1)] == [whole[2], whole[1]]


def test_a_training_that_has_ended_is_not_trained_further_and_hands_over_again(resumed: Path) -> None:
    before, measured = weights(resumed / "model"), history(resumed)
    shutil.rmtree(resumed / "model")
    acted = told(resumed)
    settings = ("held_out.every=1", "held_out.max_new_tokens=60", "held_out.episodes=1", four_tasks())
    files = f'held_out.files=["{resumed.parent / "held-out.jsonl"}"]'
    assert train(resumed, f"train.max_steps={STEPS}", files, *settings, resume=True) == 0
    assert told(resumed) == acted
    assert max(entry["step"] for entry in history(resumed)) == STEPS
    assert [e for e in history(resumed) if "eval_reward" in e] == [e for e in measured if "eval_reward" in e]
    for name, tensor in weights(resumed / "model").items():
        torch.testing.assert_close(tensor, before[name], rtol=0, atol=0, msg=name)


def test_two_trainings_with_the_same_seed_are_the_same(trained: Path, replayed: Path) -> None:
    once, again = told(trained), told(replayed)
    assert again == {name: turns for name, turns in once.items() if int(name[5:11]) < HALF}
    expected = weights(trained / "checkpoints" / f"checkpoint-{HALF}")
    for name, tensor in weights(replayed / "model").items():
        torch.testing.assert_close(tensor, expected[name], rtol=0, atol=1e-5, msg=name)


def test_recorded_tool_results_earn_the_same_rewards_without_a_server(trained: Path, replayed: Path) -> None:
    calls = [
        event
        for place in find_sessions([replayed / "rollouts"])
        for event in read_session(place).of_type("tool_result")
        if event["error_class"] != "Refused"
    ]
    assert calls
    assert all(event["replayed"] for event in calls)
    for whole, again in zip(steps(trained), steps(replayed), strict=False):
        for name in ("reward/total", "reward/task", "reward/behaviour", "episode/good", "tools/image_gen"):
            assert again[name] == pytest.approx(whole[name], abs=1e-6)


def test_a_folder_with_a_training_is_not_begun_anew(
    trained: Path, room: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(trained) == 2
    assert "add --resume" in refusal(capsys)
    files = f'held_out.files=["{room / "held-out.jsonl"}"]'
    for change, says in (
        ("grpo.beta=0.1", "began with another [grpo]"),
        ("replay.share=0.25", "began with another [replay]"),
        ("rollout.temperature=0.9", "began with another [rollout]"),
        ("train.seed=7", "began with another train.seed"),
        ("train.learning_rate=1e-5", "began with another train.learning_rate (0.001)"),
        ("train.schedule=cosine", "began with another train.schedule"),
        ('tools.backends={judge="statistics"}', "began with another tools.backends"),
        ('tools.servers=["http://127.0.0.1:9/mcp"]', "began with another tools.servers"),
        ("held_out.share=0.5", "began with another held_out.share"),
    ):
        assert train(trained, four_tasks(), files, change, resume=True) == 2
        assert says in refusal(capsys)


def test_adapters_train_with_two_updates_a_batch_and_are_merged_into_the_model(room: Path) -> None:
    changes = ("lora.rank=4", "lora.alpha=8", "grpo.iterations=2", "train.gradient_checkpointing=true",
               "grpo.resample=0", "train.save_every=100")  # fmt: skip
    assert train(room / "adapters", *changes) == 0
    first, second = steps(room / "adapters"), history(room / "adapters")[1]
    assert first[0]["kl"] == pytest.approx(0, abs=1e-6)
    assert second["kl"] > 1e-6
    assert "reward/total" not in second, "the second update learns from the rollouts of the first"
    assert (room / "adapters" / "adapter" / "adapter_model.safetensors").is_file()
    before, after = weights(acting_model()), weights(room / "adapters" / "model")
    assert any(not torch.equal(tensor, before[name]) for name, tensor in after.items())
