"""What a fine-tuning that is gone on with may change, what its card then says, and checkpoints that are damaged."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.tiny_sft import refusal, train
from training import sft


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training that ended after four steps, with two checkpoints."""
    output = tmp_path_factory.mktemp("begun") / "run"
    assert train(output, "train.schedule=cosine") == 0
    return output


def copy_of(begun: Path, folder: Path) -> Path:
    return Path(shutil.copytree(begun, folder / "run"))


def card_of(output: Path) -> str:
    return (output / "model" / "README.md").read_text()


@pytest.mark.parametrize(
    "change",
    ["train.learning_rate=1e-4", "train.schedule=linear", "train.warmup=1", "train.batch_size=1", "train.accumulate=2",
     "train.weight_decay=0.1", "train.seed=5", "held_out.share=0.5", "held_out.max_turns=3"],
)  # fmt: skip
def test_a_key_that_a_resumed_training_cannot_take_is_refused_and_the_card_stays(
    change: str, begun: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = card_of(begun)
    assert train(begun, "train.schedule=cosine", change, resume=True) == sft.UNUSABLE
    told = refusal(capsys)
    assert f"began with another {change.split('=')[0]} (" in told
    assert told.endswith("use the same, or start again")
    assert card_of(begun) == before


def test_the_card_tells_what_was_changed_on_the_way_and_from_which_step_on(begun: Path, tmp_path: Path) -> None:
    output = copy_of(begun, tmp_path)
    changes = ("train.schedule=cosine", "train.max_steps=6", "train.max_grad_norm=0.5")
    assert train(output, *changes, "train.save_every=3", resume=True) == 0
    card = card_of(output)
    assert "- Changed from step 5 on: train.max_steps = 6 (before: 4), train.max_grad_norm = 0.5 (before: 1.0)" in card
    assert "; the cosine schedule goes by the new length from step 6 on.\n" in card
    assert '"max_steps": 6' in card
    assert (output / "checkpoints" / "checkpoint-6").is_dir()
    rates = {e["step"]: e["learning_rate"] for e in json.loads((output / "history.json").read_text()) if "loss" in e}
    assert rates[5] == 0, "the end of the schedule that it began with"
    assert 0 < rates[6] < rates[1]


def test_the_card_of_a_training_that_has_ended_tells_nothing_that_no_step_was_trained_with(
    begun: Path, tmp_path: Path
) -> None:
    output = copy_of(begun, tmp_path)
    assert train(output, "train.schedule=cosine", "train.max_grad_norm=7.0", resume=True) == 0
    assert "Changed" not in card_of(output)
    assert '"max_grad_norm": 1.0' in card_of(output)


def test_checkpoints_are_written_as_often_as_the_resumed_training_is_told(begun: Path, tmp_path: Path) -> None:
    output = copy_of(begun, tmp_path)
    settings = ("train.schedule=cosine", "train.max_steps=6", "train.save_every=1", "train.keep_checkpoints=9")
    assert train(output, *settings, resume=True) == 0
    assert {path.name for path in (output / "checkpoints").iterdir()} >= {"checkpoint-5", "checkpoint-6"}


def test_a_resume_warns_of_no_weights_that_are_tied_to_others_and_of_those_that_are_missing(
    begun: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    from safetensors.torch import load_file, save_file

    output = copy_of(begun, tmp_path)
    assert train(output, "train.schedule=cosine", resume=True) == 0
    assert "missing keys" not in capsys.readouterr().err + caplog.text
    path = output / "checkpoints" / "checkpoint-4" / "model.safetensors"
    kept = load_file(path)
    norm = next(name for name in kept if name.endswith("language_model.norm.weight"))
    save_file({name: weight for name, weight in kept.items() if name != norm}, path, {"format": "pt"})
    assert train(output, "train.schedule=cosine", resume=True) == 0
    assert f"missing keys in the checkpoint model loaded: ['{norm}']" in capsys.readouterr().err + caplog.text


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:1000])


@pytest.mark.parametrize(
    ("name", "damage", "says"),
    [
        ("trainer_state.json", Path.unlink, "trainer_state.json is missing, so it was cut short"),
        ("trainer_state.json", cut, "trainer_state.json cannot be read"),
        ("model.safetensors", cut, "model.safetensors: "),
        ("model.safetensors", Path.unlink, "model.safetensors is missing"),
        ("optimizer.pt", cut, "optimizer.pt is cut short"),
        ("optimizer.pt", Path.unlink, "optimizer.pt is missing"),
        ("scheduler.pt", cut, "scheduler.pt is cut short"),
        ("rng_state.pth", cut, "rng_state.pth is cut short"),
    ],
)
def test_a_damaged_checkpoint_is_refused_by_its_name_with_the_one_that_can_be_gone_on_from(
    name: str, damage: object, says: str, begun: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert callable(damage)
    output = copy_of(begun, tmp_path)
    damage(output / "checkpoints" / "checkpoint-4" / name)
    assert train(output, "train.schedule=cosine", resume=True) == sft.UNUSABLE
    told = refusal(capsys)
    assert f"checkpoint-4 is damaged ({says}" in told
    assert told.endswith("): remove it and --resume goes on from checkpoint-2")


def test_what_is_told_of_damaged_checkpoints_holds(
    begun: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = copy_of(begun, tmp_path)
    checkpoints = output / "checkpoints"
    (checkpoints / "checkpoint-4" / "trainer_state.json").unlink()
    (checkpoints / "checkpoint-3").mkdir()
    assert train(output, "train.schedule=cosine", resume=True) == sft.UNUSABLE
    assert refusal(capsys).endswith("remove them and --resume goes on from checkpoint-2")
    shutil.rmtree(checkpoints / "checkpoint-4")
    shutil.rmtree(checkpoints / "checkpoint-3")
    shutil.copytree(checkpoints / "checkpoint-2", tmp_path / "whole")
    (checkpoints / "checkpoint-2" / "trainer_state.json").unlink()
    assert train(output, "train.schedule=cosine", resume=True) == sft.UNUSABLE
    assert refusal(capsys).endswith("there is no other, so start again in another folder with --set output=DIR")
    shutil.copytree(tmp_path / "whole", checkpoints / "checkpoint-2", dirs_exist_ok=True)
    assert train(output, "train.schedule=cosine", resume=True) == 0
