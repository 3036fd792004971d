"""What the command of reinforcement learning refuses, in one line that names the cure, before anything is trained."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import cv2
import pytest

from agent.session import read_session
from tests.conftest import make_photo
from tests.tiny_grpo import CONFIG, refusal
from tests.tiny_model import tiny_folder
from tests.tiny_training import planner_sessions
from training import held_out
from training.config import ConfigError, check_config, read_toml
from training.data import Selection, read_examples
from training.grpo import __main__ as command
from training.grpo.config import GrpoConfig
from training.grpo.photos import fingerprint
from training.grpo.tasks import load, prepare
from training.sessions import find_sessions
from training.sft import changed
from training.split_record import read_split, write_record


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
        ("reward={alpha=0, beta=0, gamma=0.0}", "alpha, beta and gamma are all 0, so every episode earns the same"),
        ("output=/proc/none/out", "/proc/none/out cannot be written ("),
        ('tools.backends={Editor="gemini"}', "no backend option Editor; known are"),
        ("tools.mode=sometimes", "tools.mode is not usable"),
        ('tools.mode="replay"', "tools.recording"),
        ("grpo.groups=3", "2 tasks to train on are fewer than grpo.groups 3: name more, or lower it"),
        ("held_out.episodes=2", "no task is held out: raise held_out.share"),
        ("grpo.failure_reward=nan", "grpo.failure_reward is not usable: input should be a finite number"),
        ("train.learning_rate=inf", "train.learning_rate is not usable: input should be a finite number"),
        ("rollout.temperature=inf", "rollout.temperature is not usable: input should be a finite number"),
        ("grpo.beta=inf", "grpo.beta is not usable: input should be a finite number"),
        ("grpo.epsilon=1.0", "grpo.epsilon is not usable: input should be less than 1"),
        ("grpo.resample=11", "grpo.resample is not usable: input should be less than or equal to 10"),
        ("replay.share=1.0", "replay.share is not usable: input should be less than 1"),
        ("rollout.max_new_tokens=4096", "rollout: max_new_tokens 4096 of a turn leave no room in the episode's"),
        ("vllm.base_url=127.0.0.1:8000", "vllm.base_url: '127.0.0.1:8000' is no address: write it as http://HOST:PORT"),
        ("held_out.judge=gemmini", "held_out.judge: judge gemmini: no such backend; choose one of local, statistics"),
        ("held_out.judge=local+local", "held_out.judge: judge local+local: name each backend once"),
        ('tools.backends={editor="gemmini"}', "tools.backends: editor gemmini: no such backend; choose one of"),
        ('tools={servers=["http://a"], backends={editor="local"}}', "leave tools.backends or tools.servers out"),
        ("grpo.iterations=3", "train.save_every 20 is no multiple of grpo.iterations 3"),
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
        ('{"image": "gone.png", "item_name": "plate", "anomaly_type": "scratch"}',
         "line 2: image: {folder}/gone.png cannot be read (No such file or directory): name a picture"),
        ('{"image": "tasks.jsonl", "item_name": "plate", "anomaly_type": "scratch"}',
         "line 2: image: {folder}/tasks.jsonl is not an image of a supported format"),
        ('{"image": "torn.png", "item_name": "plate", "anomaly_type": "scratch"}',
         "line 2: image: {folder}/torn.png is damaged or cut off"),
        ('{"image": "0.png", "item_name": "plate", "anomaly_type": "scratch", "example_image": "0.png"}',
         "line 2: example_image and example_mask go together"),
        ('{"image": "0.png", "item_name": "plate", "anomaly_type": "scratch", "example_image": "0.png", '
         '"example_mask": "gone.png"}', "line 2: example_mask: {folder}/gone.png cannot be read"),
        ('{"image": "0.png", "item_name": "plate", "anomaly_type": "scratch", "region": "mask.png"}',
         "line 2: region 'mask.png' is neither a box X,Y,WIDTH,HEIGHT in pixels nor a mask image"),
        ('{"image": "0.png", "item_name": "plate", "anomaly_type": "scratch", "region": "60,0,9,9"}',
         "line 2: region '60,0,9,9' reaches outside the photo (64x64)"),
        ('{"image": "0.png", "item_name": "plate", "anomaly_type": "scratch", "region": "torn.png"}',
         "line 2: region: {folder}/torn.png is damaged or cut off"),
    ],
)  # fmt: skip
def test_a_task_that_cannot_be_used_is_named_by_its_line_or_its_photo(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], line: str, says: str
) -> None:
    tasks = listed(tmp_path / "mine.jsonl", task_on(tmp_path, 0), line)
    (tmp_path / "torn.png").write_bytes((tmp_path / "0.png").read_bytes()[:-2000])
    assert begin(tmp_path, f'tasks.files=["{tasks}"]') == 2
    assert says.replace("{folder}", str(tmp_path)) in refusal(capsys)


@pytest.mark.parametrize(
    ("field", "value", "limits"),
    [
        ("max_images", "-3", "1 to 20"), ("max_turns", "-1", "5 to 200"), ("threshold", "99", "0 to 10"),
        ("threshold", "NaN", "0 to 10"), ("count", "13", "0 to 12"), ("margin", "-1", "0 to 200"),
        ("seed", "9223372036854775808", "0 to 9223372036854775807"),
    ],
)  # fmt: skip
def test_a_number_that_no_episode_could_have_is_named_with_its_line_and_its_range(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], field: str, value: str, limits: str
) -> None:
    line = '{"image": "0.png", "item_name": "plate", "anomaly_type": "scratch", "%s": %s}' % (field, value)  # noqa: UP031
    tasks = listed(tmp_path / "mine.jsonl", task_on(tmp_path, 0), line)
    assert begin(tmp_path, f'tasks.files=["{tasks}"]') == 2
    assert f"{tasks}, line 2: {field} {value} is out of range: choose {limits}" in refusal(capsys)


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


def test_a_damaged_session_to_take_tasks_from_is_refused_with_what_can_be_done(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sessions = Path(shutil.copytree(planner_sessions(), tmp_path / "sessions"))
    log = find_sessions([sessions])[0] / "session.jsonl"
    lines = log.read_text().splitlines()
    log.write_text("\n".join([*lines[:3], lines[3][:20], *lines[4:]]))
    assert begin(tmp_path, "tasks.files=[]", f'tasks.sessions=["{sessions}"]') == 2
    line = refusal(capsys)
    assert "line 4: not valid JSON" in line
    assert line.endswith(": mend or remove this session, or leave it out of tasks.sessions")


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
    task = task_on(tmp_path, 0, max_turns=5, threshold=2.0, seed=7)
    tasks = listed(tmp_path / "mine.jsonl", task, task, "", task_on(tmp_path, 1))
    settings = (f'tasks.files=["{tasks}"]', "tasks.sessions=[]", "tasks.threshold=5.0", "tasks.max_turns=9",
                "held_out.share=0.0", "held_out.episodes=0", "grpo.groups=1")  # fmt: skip
    sets = prepare(config_of(*settings), tmp_path / "out")
    assert [(made.seed, made.threshold, made.max_turns) for made in sets.train] == [(7, 5.0, 9), (0, 5.0, 9)]
    (tmp_path / "0.png").unlink()
    assert all(Path(made.image).is_file() for made in sets.train)
    assert all(Path(made.image).parent == tmp_path / "out" / "photos" for made in sets.train)
    assert load(tmp_path / "out") == sets


ALONE = ("tasks.sessions=[]", "held_out.share=0.0", "held_out.episodes=0", "grpo.groups=1")


def test_pictures_that_a_tasks_options_name_are_kept_with_its_photo(tmp_path: Path) -> None:
    for name in ("defect.png", "mask.png", "where.png"):
        cv2.imwrite(str(tmp_path / name), make_photo(64, 64, len(name)))
    options = {"example_image": "defect.png", "example_mask": "mask.png"}
    tasks = listed(tmp_path / "mine.jsonl", task_on(tmp_path, 0, region="where.png", **options),
                   task_on(tmp_path, 1, region="1,2,30,30"))  # fmt: skip
    first, second = prepare(config_of(f'tasks.files=["{tasks}"]', *ALONE), tmp_path / "out").train
    photos = tmp_path / "out" / "photos"
    for kept, name in (
        (first.region, "where.png"), (first.example_image, "defect.png"), (first.example_mask, "mask.png")
    ):  # fmt: skip
        assert Path(kept).parent == photos
        assert Path(kept).read_bytes() == (tmp_path / name).read_bytes()
    assert second.region == "1,2,30,30"


def test_a_folder_that_was_moved_still_has_its_tasks_and_their_pictures(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "where.png"), make_photo(64, 64, 5))
    tasks = listed(tmp_path / "mine.jsonl", task_on(tmp_path, 0, region="where.png"),
                   task_on(tmp_path, 1, region="1,2,30,30"))  # fmt: skip
    prepare(config_of(f'tasks.files=["{tasks}"]', *ALONE), tmp_path / "out")
    (tmp_path / "out").rename(tmp_path / "moved")
    first, second = load(tmp_path / "moved").train
    pictures = [Path(first.image), Path(first.region), Path(second.image)]
    assert [path.parent for path in pictures] == [tmp_path / "moved" / "photos"] * 3
    assert all(path.is_file() for path in pictures)
    assert second.region == "1,2,30,30"


def test_a_list_with_a_byte_order_mark_and_a_line_separator_in_a_text_is_read_as_meant(tmp_path: Path) -> None:
    line = json.dumps(task_on(tmp_path, 0, item_name="a\u2028plate"), ensure_ascii=False)
    tasks = tmp_path / "mine.jsonl"
    tasks.write_bytes(f"\ufeff{line}\r\n".encode())
    (task,) = prepare(config_of(f'tasks.files=["{tasks}"]', *ALONE), tmp_path / "out").train
    assert task.item_name == "a\u2028plate"


def test_fewer_tasks_than_all_processes_take_in_a_step_are_refused_with_the_number_needed(tmp_path: Path) -> None:
    tasks = listed(tmp_path / "mine.jsonl", task_on(tmp_path, 0), task_on(tmp_path, 1))
    config = config_of(f'tasks.files=["{tasks}"]', *ALONE)
    with pytest.raises(ConfigError, match=r"2 tasks to train on are fewer than the 3 of a step .* lower grpo.groups"):
        prepare(config, tmp_path / "out", processes=3)
    assert len(prepare(config, tmp_path / "out", processes=2).train) == 2


def test_held_out_tasks_are_kept_where_none_is_measured_while_training(tmp_path: Path) -> None:
    settings = (f'tasks.sessions=["{planner_sessions()}"]', "held_out.share=0.34", "grpo.groups=1", "tasks.files=[]")
    sets = prepare(config_of(*settings, "held_out.episodes=0"), tmp_path / "out")
    assert len(sets.held_out) == 2
    assert load(tmp_path / "out") == sets


def test_what_was_learned_from_is_told_by_the_photos_as_sessions_record_them(tmp_path: Path) -> None:
    before = tmp_path / "before"
    shutil.copytree(tiny_folder(), before / "model")
    write_record(before, [], {"0" * 64})
    settings = (f'tasks.sessions=["{planner_sessions()}"]', "held_out.share=0.34", "grpo.groups=1", "tasks.files=[]")
    sets = prepare(config_of(*settings, f"model.path={before / 'model'}"), tmp_path / "out")
    recorded = {example.original_sha256 for example in read_examples([planner_sessions()], Selection(mixed=True))}
    known = read_split(tmp_path / "out").trained_on
    assert known == {"0" * 64, *(fingerprint(Path(task.image)) for task in sets.train)}
    assert known - {"0" * 64} <= recorded
    assert not {fingerprint(Path(task.image)) for task in sets.held_out} & known


def test_a_training_by_acting_is_measured_afterwards_on_what_it_held_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = (f'tasks.sessions=["{planner_sessions()}"]', "held_out.share=0.34", "grpo.groups=1", "tasks.files=[]")
    sets = prepare(config_of(*settings, "held_out.episodes=0"), tmp_path / "out")
    shutil.copytree(tiny_folder(), tmp_path / "out" / "model")
    brief = ("--max-new-tokens", "2", "--image-side", "64", "--dtype", "float32", "--json", "--episodes", "1")
    model = str(tmp_path / "out" / "model")
    assert held_out.main([model, "--from", str(tmp_path / "out"), "--out", str(tmp_path / "a"), *brief]) == 0
    said = capsys.readouterr()
    assert "warning" not in said.err
    assert json.loads(said.out)["episodes"] == 1
    (place,) = find_sessions([tmp_path / "a"])
    assert read_session(place).start["task"]["image"] == sets.held_out[0].image
    sessions = str(planner_sessions())
    assert held_out.main([model, sessions, "--out", str(tmp_path / "b"), *brief[:-1], "6"]) == 0
    assert f"warning: {model} was trained on the photos of 4 of these 6 tasks" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "same"),
    [
        ((), True),
        (("held_out.judge=statistics",), False),
        (('tools.backends={judge="openai", judge_model="a"}', "held_out.judge=openai"), False),
        (('tools.backends={judge="openai", judge_model="a"}', "held_out.judge=openai", "held_out.judge_model=a"), True),
        (("held_out.judge=openai", 'tools.backends={judge="openai"}', "held_out.judge_base_url=http://other"), False),
        (('tools.servers=["http://127.0.0.1:1"]',), False),
    ],
)  # fmt: skip
def test_judges_are_the_same_where_backend_model_and_address_are(changes: tuple[str, ...], same: bool) -> None:
    assert config_of(*changes).same_judge is same


def test_measurements_replay_what_a_recording_that_begins_anew_has_recorded(tmp_path: Path) -> None:
    for mode, measured in (("record", "replay-else-live"), ("replay", "replay")):
        tools = config_of(f"tools.recording={tmp_path}", f'tools.mode="{mode}"').tools
        made, again = tools.make_recording(), tools.make_recording(measuring=True)
        assert made is not None
        assert again is not None
        assert (made.mode.value, again.mode.value) == (mode, measured)


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
