"""What fine-tuning does with folders: outputs in use, damaged models and sessions."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.tiny_sft import refusal, train
from tests.tiny_training import fitted_model, planner_sessions
from training import sft


def test_an_output_folder_in_use_and_a_resume_without_checkpoint_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "note.txt").write_text("mine")
    assert train(tmp_path) == sft.UNUSABLE
    assert "is not empty" in refusal(capsys)
    assert (tmp_path / "note.txt").read_text() == "mine"
    assert train(tmp_path / "new", resume=True) == sft.UNUSABLE
    assert "holds no checkpoint" in refusal(capsys)


def test_a_folder_that_no_training_began_is_left_as_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    project = tmp_path / "project"
    shutil.copytree(planner_sessions(), project / "data")
    before = sorted(project.rglob("*"))
    assert train(project) == sft.UNUSABLE
    assert "no training of this command began there" in refusal(capsys)
    assert sorted(project.rglob("*")) == before


@pytest.mark.parametrize(("output", "sessions"), [("work", "work/data"), ("work/data/run", "work"), ("work", "work")])
def test_an_output_folder_that_holds_sessions_or_lies_among_them_is_refused(
    output: str, sessions: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(planner_sessions(), tmp_path / "work" / "data")
    before = sorted(tmp_path.rglob("*"))
    assert train(tmp_path / output, f'data.sessions=["{tmp_path / sessions}"]') == sft.UNUSABLE
    assert "lie one inside the other" in refusal(capsys)
    assert sorted(tmp_path.rglob("*")) == before


def failed_start(output: Path) -> None:
    """A training that stops after its data was written and before its first step."""
    assert train(output, "train.cache_vision_gib=1", "model.freeze_vision=false") == sft.UNUSABLE
    assert (output / "data" / "train").is_dir()


def test_a_start_that_failed_may_be_repeated_in_the_same_folder(tmp_path: Path) -> None:
    failed_start(tmp_path / "run")
    assert train(tmp_path / "run", "train.max_steps=1") == 0
    assert (tmp_path / "run" / "model" / "README.md").exists()


def test_what_was_put_into_the_folder_of_a_failed_start_is_never_removed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    failed_start(tmp_path / "run")
    capsys.readouterr()
    (tmp_path / "run" / "data" / "photo.png").write_bytes(b"mine")
    assert train(tmp_path / "run") == sft.UNUSABLE
    told = refusal(capsys)
    assert "the folder also holds data/photo.png" in told
    assert "a training runs in" in told
    assert "or ran there without a checkpoint" in told
    assert (tmp_path / "run" / "data" / "photo.png").read_bytes() == b"mine"


def test_a_failed_start_stays_until_the_next_ones_data_are_found_good(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    failed_start(tmp_path / "run")
    before = sorted((tmp_path / "run").rglob("*"))
    assert train(tmp_path / "run", "data.min_score=10.0") == sft.UNUSABLE
    assert sorted((tmp_path / "run").rglob("*")) == before


def test_a_chat_template_that_is_missing_is_refused_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.chat_template.TEMPLATE_FILE", tmp_path / "none.jinja")
    assert train(tmp_path / "out") == sft.UNUSABLE
    assert "cannot be read" in refusal(capsys)


@pytest.mark.parametrize(
    ("name", "kept", "complaint"),
    [
        ("tokenizer.json", 0, "holds no tokenizer.json"),
        ("tokenizer.json", 40, "cannot be loaded"),
        ("model.safetensors", 0, "cannot be loaded"),
        ("model.safetensors", 2000, "is damaged or cut short"),
        ("config.json", 40, "cannot be loaded"),
        ("processor_config.json", 40, "cannot be loaded"),
    ],
)
def test_a_model_folder_with_a_missing_or_cut_file_is_refused_in_one_line(
    name: str, kept: int, complaint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tmp_path / "model"
    shutil.copytree(fitted_model(), model)
    whole = (model / name).read_bytes()
    (model / name).unlink() if not kept else (model / name).write_bytes(whole[:kept])
    assert train(tmp_path / "out", f"model.path={model}") == sft.UNUSABLE
    assert complaint in refusal(capsys)


def test_damaged_sessions_are_refused_with_a_cure_that_this_command_has(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sessions = tmp_path / "sessions"
    shutil.copytree(planner_sessions(), sessions)
    log = next(sessions.rglob("session.jsonl"))
    log.write_text("no JSON\n" + log.read_text())
    place = f'data.sessions=["{sessions}"]'
    assert train(tmp_path / "out", place) == sft.UNUSABLE
    told = refusal(capsys)
    assert "with --set data.skip_broken=true" in told
    assert "--skip-broken" not in told
    assert train(tmp_path / "out", place, "data.skip_broken=true", "train.max_steps=1") == 0
