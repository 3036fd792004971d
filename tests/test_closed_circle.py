"""The circle closed for real: sessions are recorded, a tiny Qwen3-VL learns from them, a server serves it, and the
agent's command finishes a sample with it. Nothing on the way is a stand-in.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from agent.policies.pictures import picture_for_model
from agent.protocol import Message, parse_turn
from agent.session import Session, read_session
from tests.conftest import ROOT
from tests.tiny_model import ids_of, image_ref


@pytest.fixture(scope="module")
def circle(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The example's folder and its figures."""
    out = tmp_path_factory.mktemp("circle")
    command = [sys.executable, "examples/closed_circle.py", "--quick", "--json", "--out", str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return out, json.loads(done.stdout)


def runs(folder: Path) -> list[Path]:
    return sorted((folder / "runs").iterdir())


def finished(folder: Path) -> Path:
    """The first run whose every turn could be read."""
    return next(run for run in runs(folder) if (read_session(run).end or {})["repairs"] == 0)


def task_text(folder: Path) -> str:
    """What the policy was told of the task."""
    return next(str(m["content"]) for m in read_session(folder).of_type("message") if m["role"] == "user")


def session_of(folder: Path) -> Session:
    return read_session(finished(folder))


def test_a_model_trained_for_seconds_finishes_its_episodes(circle: tuple[Path, dict[str, Any]]) -> None:
    folder, figures = circle
    assert figures.keys() >= {
        "loss_first", "loss_last", "episodes", "valid_share", "answered_share", "mean_score", "seconds",
    }  # fmt: skip
    assert figures["loss_last"] < 0.3 * figures["loss_first"]
    assert figures["episodes"] == len(runs(folder))
    assert figures["answered_share"] >= figures["valid_share"] > 0.5
    assert (folder / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_the_model_is_given_its_tasks_in_the_words_it_was_trained_on(circle: tuple[Path, dict[str, Any]]) -> None:
    folder, _ = circle
    learned = {task_text(session) for session in (folder / "sessions" / "planner").iterdir()}
    assert {task_text(run) for run in runs(folder)} == learned


def test_the_served_model_left_a_whole_sample(circle: tuple[Path, dict[str, Any]]) -> None:
    run = finished(circle[0])
    result = json.loads((run / "result.json").read_text())
    assert result["status"] in {"success", "below_threshold"}
    assert all((run / name).stat().st_size for name in ("original.png", "anomaly.png", "mask.png", "report.html"))


def test_every_turn_came_from_the_served_model_and_could_be_read(circle: tuple[Path, dict[str, Any]]) -> None:
    folder, _ = circle
    session = session_of(folder)
    assert session.start["policy"]["name"] == "openai"
    assert session.start["policy"]["model"] == str(folder / "sft" / "model")
    turns = [event["content"] for event in session.of_type("message") if event["role"] == "assistant"]
    calls = session.of_type("model_call")
    assert len(turns) == len(calls) >= 5
    assert all(call["completion_tokens"] > 0 for call in calls)
    assert [parse_turn(turn) for turn in turns]


def test_the_server_saw_the_very_tokens_that_training_would_have_made(circle: tuple[Path, dict[str, Any]]) -> None:
    folder, _ = circle
    session = session_of(folder)
    processor = trained_processor(folder / "sft" / "model")
    messages: list[Message] = []
    counts = []
    for event in session.of_type("message"):
        if event["role"] == "assistant":
            counts.append(len(ids_of(processor, messages, generate=True)))
        shown = tuple(
            image_ref(n, small(session.image(image["sha256"])), 96, 96) for n, image in enumerate(event["images"], 1)
        )
        messages.append(Message(event["role"], event["content"], shown))
    assert counts == [call["prompt_tokens"] for call in session.of_type("model_call")]


def small(png: bytes) -> bytes:
    return picture_for_model(png, 96)


def trained_processor(folder: Path) -> Any:
    from transformers import AutoProcessor

    from training.compat import without_video

    without_video()
    return AutoProcessor.from_pretrained(folder)
