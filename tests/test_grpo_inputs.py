"""What the command of reinforcement learning refuses, in one line that names the cure, before anything is trained."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import pytest

from tests.conftest import make_photo
from tests.tiny_grpo import CONFIG, refusal
from tests.tiny_model import tiny_folder
from tests.tiny_training import planner_sessions
from training.config import check_config, read_toml
from training.grpo import __main__ as command
from training.grpo.config import GrpoConfig
from training.grpo.tasks import load, prepare
from training.sft import changed


def begin(tmp_path: Path, *changes: str) -> int:
    """The command on two photos of plates; ``changes`` come last and win."""
    listed(tmp_path / "tasks.jsonl", *[task_on(tmp_path, seed) for seed in range(2)])
    settings = (
        f"output={tmp_path / 'out'}", f"model.path={tiny_folder()}", f'tasks.files=["{tmp_path / "tasks.jsonl"}"]',
        "tasks.sessions=[]", "grpo.groups=1", "held_out.episodes=0", "held_out.share=0.0", *changes,
    )  # fmt: skip
    return command.main([str(CONFIG), *[part for setting in settings for part in ("--set", setting)]])


def task_on(folder: Path, number: int, **fields: Any) -> dict[str, Any]:
    cv2.imwrite(str(folder / f"{number}.png"), make_photo(64, 64, number))
    return {"image": f"{number}.png", "item_name": "plate", "anomaly_type": "scratch", **fields}


def listed(path: Path, *tasks: dict[str, Any] | str) -> Path:
    path.write_text("".join((task if isinstance(task, str) else json.dumps(task)) + "\n" for task in tasks))
    return path


def config_of(*changes: str) -> GrpoConfig:
    settings = ["output=out", "model.path=model", *changes]
    return check_config(changed(read_toml(CONFIG), settings), GrpoConfig, "test")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("tools.server=x", "there is no key tools.server; known beside server are servers, backends"),
        ("grpo.group_size=1", "grpo.group_size is not usable"),
        ("tasks.files=[]", "name files or sessions to take tasks from"),
        ("train.batch_size=3", "train.batch_size 3 does not divide the step's 8 rollouts"),
        ("reward.alhpa=1", "unknown key 'alhpa' in [reward]: use alpha"),
        ('tools.backends={Editor="gemini"}', "no backend option Editor; known are"),
        ("tools.mode=sometimes", "tools.mode is not usable"),
        ('tools.mode="replay"', "tools.recording"),
        ("grpo.groups=3", "2 tasks to train on are fewer than grpo.groups 3: name more, or lower it"),
        ("held_out.episodes=2", "no task is held out: raise held_out.share"),
        ("model.dtype=bfloat16", "weights in bfloat16 lose most updates"),
        ('tasks.files=["nowhere.jsonl"]', "nowhere.jsonl cannot be read"),
    ],
)  # fmt: skip
def test_a_configuration_that_cannot_be_used_gives_one_line_with_its_cure(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], change: str, says: str
) -> None:
    assert begin(tmp_path, change) == 2
    line = refusal(capsys)
    assert says in line
    assert "value error" not in line


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("{not json", "line 2 is no JSON"),
        ("[1]", "line 2 is no object: write a task's fields, such as image, item_name, anomaly_type"),
        ('{"image": "0.png", "item_name": "plate"}', "line 2: anomaly_type is missing"),
        ('{"image": "0.png", "item_name": "plate", "anomaly_type": "scratch", "colour": 1}', "a task has no 'colour'"),
        ('{"image": 5, "item_name": "plate", "anomaly_type": "scratch"}', "line 2: image is 5: write text"),
        ('{"image": "0.png", "item_name": ["a"], "anomaly_type": "scratch"}', 'line 2: item_name is ["a"]: write text'),
        ('{"image": "0.png", "item_name": "plate", "anomaly_type": "scratch", "seed": "x"}',
         'line 2: seed is "x": write a whole number'),
        ('{"image": "0.png", "item_name": "plate", "anomaly_type": "scratch", "threshold": true}',
         "line 2: threshold is true: write a number"),
        ('{"image": "0.png", "item_name": "plate", "anomaly_type": "scratch", "region": 7}',
         "line 2: region is 7: write text"),
        ('{"image": "gone.png", "item_name": "plate", "anomaly_type": "scratch"}', "gone.png cannot be read"),
        ('{"image": "tasks.jsonl", "item_name": "plate", "anomaly_type": "scratch"}', "tasks.jsonl is no picture"),
    ],
)  # fmt: skip
def test_a_task_that_cannot_be_used_is_named_by_its_line_or_its_photo(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], line: str, says: str
) -> None:
    tasks = listed(tmp_path / "mine.jsonl", task_on(tmp_path, 0), line)
    assert begin(tmp_path, f'tasks.files=["{tasks}"]') == 2
    assert says in refusal(capsys)


def test_a_held_out_photo_that_is_trained_on_is_refused_whatever_it_is_called(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    held_out = task_on(tmp_path, 0) | {"image": "copy.PNG", "anomaly_type": "dent"}
    (tmp_path / "copy.PNG").write_bytes((tmp_path / "0.png").read_bytes())
    listed(tmp_path / "held-out.jsonl", held_out)
    assert begin(tmp_path, f'held_out.files=["{tmp_path / "held-out.jsonl"}"]', "held_out.episodes=1") == 2
    assert "1 photos of held_out.files are among the tasks to train on" in refusal(capsys)


def test_a_place_without_sessions_and_a_list_without_tasks_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    assert begin(tmp_path, "tasks.files=[]", f'tasks.sessions=["{tmp_path / "empty"}"]') == 2
    assert "no session in" in refusal(capsys)
    assert begin(tmp_path, f'tasks.files=["{listed(tmp_path / "none.jsonl", "")}"]') == 2
    assert "there is no task" in refusal(capsys)


def test_a_start_that_was_refused_leaves_nothing_in_the_way_of_the_next(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(2):
        assert begin(tmp_path, "grpo.groups=3") == 2
        assert "fewer than grpo.groups" in refusal(capsys)


def test_resuming_where_nothing_was_begun_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = [part for s in (f"output={tmp_path / 'out'}", f"model.path={tiny_folder()}") for part in ("--set", s)]
    assert command.main([str(CONFIG), *settings, "--resume"]) == 2
    assert "holds no checkpoint to go on from: start without --resume" in refusal(capsys)


def test_tasks_are_read_once_with_the_configurations_settings_and_their_photos_kept(tmp_path: Path) -> None:
    task = task_on(tmp_path, 0, max_turns=3, threshold=2.0, seed=7)
    tasks = listed(tmp_path / "mine.jsonl", task, task, "", task_on(tmp_path, 1))
    settings = (f'tasks.files=["{tasks}"]', "tasks.sessions=[]", "tasks.threshold=5.0", "tasks.max_turns=9",
                "held_out.share=0.0", "held_out.episodes=0", "grpo.groups=1")  # fmt: skip
    sets = prepare(config_of(*settings), tmp_path / "out")
    assert [(made.seed, made.threshold, made.max_turns) for made in sets.train] == [(7, 5.0, 9), (0, 5.0, 9)]
    (tmp_path / "0.png").unlink()
    assert all(Path(made.image).is_file() for made in sets.train)
    assert all(Path(made.image).parent == tmp_path / "out" / "photos" for made in sets.train)
    assert load(tmp_path / "out") == sets


def test_tasks_of_sessions_are_on_the_photos_that_were_recorded_and_split_by_photo(tmp_path: Path) -> None:
    settings = (f'tasks.sessions=["{planner_sessions()}"]', "held_out.share=0.34", "grpo.groups=1", "tasks.files=[]")
    sets = prepare(config_of(*settings), tmp_path / "out")
    assert (len(sets.train), len(sets.held_out)) == (4, 2)
    assert not {task.image for task in sets.train} & {task.image for task in sets.held_out}
    assert {task.item_name for task in sets.train} == {"plate"}
    again = prepare(config_of(*settings), tmp_path / "again")
    assert [Path(task.image).name for task in again.held_out] == [Path(task.image).name for task in sets.held_out]


@pytest.mark.parametrize("name", ["grpo-tiny", "grpo-qwen3-vl-4b"])
def test_the_ready_configurations_are_valid(name: str) -> None:
    path = CONFIG.with_name(f"{name}.toml")
    assert check_config(read_toml(path), GrpoConfig, str(path)).grpo.group_size == 8
