"""The fine-tuning command with a short training of the tiny model, for its tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.tiny_training import fitted_model, planner_sessions
from training import sft

CONFIG = Path("training/configs/tiny-cpu.toml")


def train(output: Path, *changes: str, resume: bool = False) -> int:
    """The command with a short training; ``changes`` come last and win."""
    settings = (
        f"output={output}",
        f"model.path={fitted_model()}",
        f'data.sessions=["{planner_sessions()}"]',
        "train.max_steps=4",
        "train.batch_size=2",
        "train.warmup=0",
        "train.log_every=1",
        'train.schedule="constant"',
        "train.save_every=2",
        "held_out.share=0.0",
        *changes,
    )
    chosen = [part for setting in settings for part in ("--set", setting)]
    return sft.main([str(CONFIG), *chosen, *(["--resume"] if resume else [])])


def refusal(capsys: pytest.CaptureFixture[str]) -> str:
    """The one line that a refused command prints."""
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    return lines[0]


def train_with_held_out(output: Path) -> Path:
    """The output folder of a training with a held-out photo and one episode on it."""
    held_out = ("held_out.share=0.1", "held_out.episodes=1", "held_out.every=4", "held_out.max_new_tokens=8")
    assert train(output, *held_out, "held_out.max_turns=2") == 0
    return output
