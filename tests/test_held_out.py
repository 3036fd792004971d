"""The command that measures a trained folder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.tiny_sft import train_with_held_out
from tests.tiny_training import fitted_model, planner_sessions
from training import held_out


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training with a held-out photo and one episode on it, uninterrupted."""
    return train_with_held_out(tmp_path_factory.mktemp("trained") / "run")


def measured(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Exit code, output and errors of the command that measures a trained folder."""
    brief = ("--max-new-tokens", "2", "--image-side", "64", "--dtype", "float32", "--json")
    capsys.readouterr()
    code = held_out.main([*arguments, *brief])
    return code, *capsys.readouterr()


def test_a_trained_model_is_measured_afterwards_on_what_its_training_kept_out(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = str(trained / "model")
    code, out, err = measured(capsys, model, "--from", str(trained), "--out", str(tmp_path / "out"))
    assert code == 0
    assert "warning" not in err
    assert json.loads(out)["episodes"] == 1
    (task,) = json.loads((trained / "held_out.json").read_text())
    start = json.loads((tmp_path / "out" / "000" / "session.jsonl").read_text().splitlines()[0])
    assert start["task"]["image"] == task["image"]


def test_measuring_on_photos_that_were_trained_on_is_warned_of(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sessions, model = str(planner_sessions()), str(trained / "model")
    code, _, err = measured(capsys, model, sessions, "--episodes", "6", "--out", str(tmp_path / "out"))
    assert code == 0
    assert f"warning: {model} was trained on the photos of 5 of these 6 tasks" in err


def test_measuring_wants_either_sessions_or_a_training_that_kept_some_out(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = ("--out", str(tmp_path / "out"))
    for places in ((), (str(planner_sessions()), "--from", str(trained))):
        code, _, err = measured(capsys, str(trained / "model"), *places, *out)
        assert code == 2
        assert "name either SESSIONS" in err
    code, _, err = measured(capsys, str(trained / "model"), "--from", str(tmp_path), *out)
    assert code == 2
    assert "name the output folder of a training.sft" in err
    (tmp_path / "split.json").write_text('{"held_out": [], "trained_on": []}')
    code, _, err = measured(capsys, str(trained / "model"), "--from", str(tmp_path), *out)
    assert code == 2
    assert "kept no session out" in err


def test_a_trained_folder_is_measured_on_the_tasks_of_sessions(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sessions = str(planner_sessions())
    options = ["--episodes", "1", "--max-new-tokens", "4", "--image-side", "64", "--dtype", "float32", "--json"]
    assert held_out.main([str(fitted_model()), sessions, "--out", str(tmp_path / "runs"), *options]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["episodes"] == 1
    assert figures["answered_share"] == 0.0
    assert (tmp_path / "runs" / "000" / "session.jsonl").exists()


def test_measuring_without_sessions_or_model_is_refused_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = ["--out", str(tmp_path / "runs")]
    assert held_out.main([str(fitted_model()), str(tmp_path / "none"), *out]) == 2
    assert "no session in" in capsys.readouterr().err
    assert held_out.main([str(tmp_path / "no-model"), str(planner_sessions()), *out]) == 2
    assert "name a model folder" in capsys.readouterr().err


def test_measuring_into_a_folder_in_use_is_refused_before_the_model_is_loaded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "000").mkdir()
    arguments = [str(tmp_path / "no-model"), str(planner_sessions()), "--out", str(tmp_path)]
    assert held_out.main(arguments) == 2
    assert capsys.readouterr().err == f"error: {tmp_path} is not empty: choose another --out\n"


def test_a_log_that_cannot_be_written_is_one_failure_and_no_group(tmp_path: Path) -> None:
    from agent.session import SessionError, SessionWriter
    from agent.task import Task
    from tests.tiny_model import tiny_processor
    from training.encoding import Encoder
    from training.generation import Sampling
    from training.local_policy import Batcher

    SessionWriter(tmp_path / "000").close()
    photo = next((planner_sessions().parent / "photos").iterdir())
    batcher = Batcher(None, Encoder(tiny_processor(), 64), Sampling(), 1)
    with pytest.raises(SessionError, match="already holds a session"):
        held_out.measure(batcher, [Task(str(photo), "plate", "scratch")], tmp_path)


def test_damaged_sessions_are_left_out_of_measuring_by_the_option_that_the_refusal_names(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number, session in enumerate(sorted(planner_sessions().iterdir())[:2]):
        shutil.copytree(session, tmp_path / "sessions" / str(number))
    log = tmp_path / "sessions" / "0" / "session.jsonl"
    log.write_text("no JSON\n" + log.read_text())
    options = ["--max-new-tokens", "2", "--image-side", "64", "--dtype", "float32", "--json"]
    arguments = [str(fitted_model()), str(tmp_path / "sessions"), "--out", str(tmp_path / "out"), *options]
    assert held_out.main(arguments) == 2
    assert "--skip-broken" in capsys.readouterr().err
    assert held_out.main([*arguments, "--skip-broken"]) == 0
    assert json.loads(capsys.readouterr().out)["episodes"] == 1
