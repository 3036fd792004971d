"""A training that is broken off can be gone on with, and one that cannot says so in one line."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import TrainerControl, TrainerState, TrainingArguments

from agent.session import read_session
from tests.conftest import ROOT
from tests.paid import Shop
from tests.test_grpo_inputs import config_of
from tests.tiny_grpo import arguments, history, refusal, told, train
from training.config import ConfigError
from training.curves import Panel
from training.grpo import run
from training.grpo.replay_buffer import ReplayBuffer, ReplayError
from training.interrupt import Interrupt
from training.output_folder import same_training
from training.sessions import find_sessions


def stop_reasons(output: Path) -> list[str]:
    ends = [read_session(place).end for place in find_sessions([output / "rollouts"])]
    return [str((end or {}).get("stop_reason")) for end in ends]


def test_sigterm_during_rollouts_cancels_them_and_leaves_a_checkpoint_to_go_on_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANOMALY_AGENT_HOME", str(tmp_path / "home"))
    output = tmp_path / "out"
    hangs = (f"image_gen=until:{tmp_path / 'mended'}",)
    server = shlex.join(Shop(output / "photos", Path("/dev/stderr"), hangs).command())
    tools = f'tools.servers=["{server}"]'
    process = subprocess.Popen(
        [sys.executable, "-m", "training.grpo", *arguments(output, tools)],
        cwd=ROOT, stderr=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert process.stderr is not None
    seen = []
    for line in process.stderr:
        seen.append(line)
        if line == "image_gen\n":
            break
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 130, "".join(seen) + errors
    assert errors.splitlines()[-1] == "error: interrupted: go on with --resume"
    assert "SIGTERM: the training ends with a checkpoint; once more ends it at once" in errors
    assert "Traceback" not in errors
    assert "cancelled" in stop_reasons(output)
    assert "tool_error" not in stop_reasons(output)
    assert (output / "checkpoints" / "checkpoint-0" / "replay-0.pt").is_file()

    (tmp_path / "mended").touch()
    assert train(output, "train.max_steps=1", tools, resume=True) == 0
    assert "cancelled" not in stop_reasons(output)
    assert train(tmp_path / "whole", "train.max_steps=1") == 0
    assert [turns[:1] for turns in told(output).values()] == [turns[:1] for turns in told(tmp_path / "whole").values()]
    assert history(output)[0]["reward/total"] == pytest.approx(history(tmp_path / "whole")[0]["reward/total"])


def test_a_training_none_of_whose_rollouts_can_be_used_fails_with_what_ended_them(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("ANOMALY_AGENT_HOME", str(tmp_path / "home"))
    assert train(tmp_path / "out", "rollout.max_new_tokens=16", "rollout.max_tokens=40", "train.max_steps=1") == 1
    line = refusal(capsys)
    assert "no rollout could be learned from in 2 waves in a row: the conversation of" in line
    assert "leaves no room in 40" in line
    left_out = [record.getMessage() for record in caplog.records if "is left out of the loss" in record.getMessage()]
    assert left_out
    assert all("leaves no room in 40" in message for message in left_out)


def test_running_out_of_memory_while_the_model_is_loaded_says_what_helps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(run, "load_model", full)
    assert train(tmp_path / "out") == 2
    assert "the GPU's memory does not suffice" in refusal(capsys)


def test_a_signal_while_weights_are_updated_ends_the_training_after_the_step() -> None:
    before = signal.getsignal(signal.SIGTERM)
    state, control = TrainerState(), TrainerControl()
    with Interrupt() as interrupt:
        interrupt.on_pre_optimizer_step(None, state, control)
        signal.raise_signal(signal.SIGTERM)
        interrupt.on_step_end(None, state, control)
        assert control.should_save
        assert control.should_training_stop
        with pytest.raises(KeyboardInterrupt):
            interrupt.on_step_begin(None, state, control)
        assert signal.getsignal(signal.SIGINT) == signal.SIG_DFL, "the next one ends it at once"
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.mark.parametrize(("begun", "says"), [(False, "ends;"), (True, "ends with a checkpoint;")])
def test_a_signal_promises_a_checkpoint_only_where_there_will_be_one(
    begun: bool, says: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with Interrupt() as interrupt:
        if begun:
            interrupt.on_train_begin(TrainingArguments(str(tmp_path)), TrainerState(), TrainerControl())
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
    assert f"SIGTERM: the training {says}" in caplog.text


def test_figures_of_an_earlier_step_are_not_told_as_the_final_models(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ANOMALY_AGENT_HOME", str(tmp_path / "home"))
    output = tmp_path / "out"
    held_out = ("held_out.share=0.3", "held_out.max_new_tokens=8", "held_out.episodes=1")
    assert train(output, *held_out, "train.max_steps=1", "train.save_every=1") == 0
    assert "eval_reward" in capsys.readouterr().out
    card = (output / "model" / "README.md").read_text()
    assert "| eval_reward |" in card

    (output / "checkpoints" / "checkpoint-1").rename(output / "checkpoints" / "checkpoint-2")
    cut = output / "checkpoints" / "checkpoint-2" / "model.safetensors"
    whole = cut.read_bytes()
    cut.write_bytes(whole[:5000])
    assert train(output, *held_out, resume=True) == 2
    told = refusal(capsys)
    assert "checkpoint-2 is damaged (model.safetensors: " in told
    assert told.endswith("there is no other, so start again in another folder with --set output=DIR")
    cut.write_bytes(whole)
    (output / "checkpoints" / "checkpoint-2").rename(output / "checkpoints" / "checkpoint-1")

    assert train(output, *held_out, "held_out.judge=statistics", resume=True) == 2
    assert "began with another held_out.judge (" in refusal(capsys)
    none = (*held_out, "held_out.episodes=0", "held_out.judge=statistics", "train.batch_size=4", "train.save_every=1")
    assert train(output, *none, resume=True) == 0
    told = capsys.readouterr().out
    assert "reward/total" in told
    assert "eval_" not in told
    card = (output / "model" / "README.md").read_text()
    assert "eval_" not in card
    assert "Nothing was measured at the last step." in card
    assert "- Changed from step 2 on: " in card
    assert "train.batch_size = 4 (before: 8)" in card


def test_a_signal_breaks_a_measurement_off_and_the_step_is_still_saved() -> None:
    state, control = TrainerState(), TrainerControl()
    went_on = False
    with Interrupt() as interrupt:
        interrupt.on_pre_optimizer_step(None, state, control)
        with interrupt.allowed():
            signal.raise_signal(signal.SIGINT)
            went_on = True
        assert not went_on
        assert interrupt.came
    with Interrupt() as interrupt, pytest.raises(KeyboardInterrupt), interrupt.allowed():
        signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize(
    ("text", "says"), [(None, "config.json, which says how the training began, is missing"), ('{"out', "is damaged")]
)
def test_a_resume_without_the_configuration_that_it_began_with_says_what_to_do(
    text: str | None, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "checkpoints" / "checkpoint-1").mkdir(parents=True)
    if text is not None:
        (tmp_path / "config.json").write_text(text)
    assert train(tmp_path, resume=True) == 2
    line = refusal(capsys)
    assert says in line
    assert "--set output=DIR" in line


def test_the_same_files_by_another_path_are_the_same_training(tmp_path: Path) -> None:
    began = config_of('tasks.files=["lists/a.jsonl"]')
    (tmp_path / "config.json").write_text(began.model_dump_json())
    same_training(config_of(f'tasks.files=["{Path.cwd()}/lists/a.jsonl"]'), tmp_path, ("tasks", "train.seed"))
    with pytest.raises(ConfigError, match=r"another \[tasks\]"):
        same_training(config_of('tasks.files=["lists/b.jsonl"]'), tmp_path, ("tasks", "train.seed"))


def test_a_damaged_replay_buffer_is_told_apart_and_changes_nothing(tmp_path: Path) -> None:
    buffer = ReplayBuffer(8, 4)
    buffer.save(tmp_path / "whole.pt")
    whole = (tmp_path / "whole.pt").read_bytes()
    for damaged in (b"", b"junk", whole[: len(whole) // 2]):
        (tmp_path / "torn.pt").write_bytes(damaged)
        with pytest.raises(ReplayError, match=r"torn\.pt is damaged"):
            buffer.load(tmp_path / "torn.pt")
    assert len(buffer) == 0


@pytest.mark.parametrize(
    ("values", "limit"), [([0.1] * 30 + [50.0], 0.11), ([0.0, 0.1, 0.2, 0.3], None), ([0.1, float("nan")], None)]
)
def test_one_spike_does_not_flatten_a_panel(values: Sequence[float], limit: float | None) -> None:
    found = Panel("KL divergence", {"kl": "from the reference"}, percentile=98).limit(values)
    assert found == (None if limit is None else pytest.approx(limit))
