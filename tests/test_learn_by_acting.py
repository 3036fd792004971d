"""Imitation, then learning by acting, through the example as a user starts it: whether it runs whole, in few steps."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from agent.session import read_session
from tests.conftest import ROOT


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The example's folder and its figures."""
    out = tmp_path_factory.mktemp("learning")
    command = [sys.executable, "examples/learn_by_acting.py", "--quick", "--json", "--out", str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return out, json.loads(done.stdout)


def test_the_figures_say_how_it_was_before_and_after(learned: tuple[Path, dict[str, Any]]) -> None:
    _, figures = learned
    assert figures.keys() == {
        "reward_first", "reward_last", "heldout_before", "heldout_after", "valid_before", "valid_after", "steps",
        "seconds",
    }  # fmt: skip
    assert figures["steps"] == 4
    assert all(0 <= figures[name] <= 1 for name in ("valid_before", "valid_after"))


def test_the_teachers_were_of_mixed_care(learned: tuple[Path, dict[str, Any]]) -> None:
    sessions = [read_session(folder) for folder in sorted((learned[0] / "sessions").iterdir())]
    called = [{event["tool"] for event in session.of_type("tool_result")} for session in sessions]
    assert all(session.end and session.end["stop_reason"] == "answered" for session in sessions)
    assert any("quality_eval" not in tools for tools in called)
    assert any("mask_gen" not in tools for tools in called)
    assert any({"quality_eval", "mask_gen"} <= tools for tools in called)


def test_every_episode_it_acted_is_a_session_with_its_rewards(learned: tuple[Path, dict[str, Any]]) -> None:
    folders = sorted((learned[0] / "grpo" / "rollouts").glob("step-*/*"))
    assert len(folders) >= 4 * 8 - 4 * 4  # a step's 2 x 4, fewer where groups were replayed
    for folder in folders:
        components = {event["component"] for event in read_session(folder).of_type("reward")}
        assert components >= {"task", "reflection", "behaviour", "total"}


def test_another_judge_reports_than_the_one_that_rewards(learned: tuple[Path, dict[str, Any]]) -> None:
    folder = learned[0] / "grpo"
    rewarding = {e["judge"] for e in read_session(next((folder / "rollouts").glob("step-*/*"))).of_type("reward")}
    held_out = next(iter(sorted((folder / "held_out" / "step-000000").iterdir())))
    reporting = {str(event["judge"]).split()[0] for event in read_session(held_out).of_type("reward")}
    assert rewarding == {"recorded"}
    assert reporting == {"statistics"}


def test_the_learned_policy_and_its_curves_are_left(learned: tuple[Path, dict[str, Any]]) -> None:
    folder = learned[0] / "grpo"
    assert (folder / "model" / "model.safetensors").is_file()
    assert (folder / "curves.png").read_bytes().startswith(b"\x89PNG")
