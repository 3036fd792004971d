"""The doctor: what it finds in good and bad set-ups, as a user hears it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from agent.doctor import main
from agent.protocol import ToolCall, Turn, render_turn

from .servers.fake_openai import Fails, FakeOpenAI, Says

ROOT = Path(__file__).resolve().parent.parent
KEY = "sk-" + "never-to-be-seen"
CALLS = [
    ToolCall("prompt_gen", {"image": 1, "item_name": "flange", "anomaly_type": "scratch"}),
    ToolCall("image_gen", {"prompt": "Using the provided image, change only the rim.", "target_image": 1}),
]
TEXT = [Says(render_turn(Turn("next", call))) for call in CALLS]
NATIVE = [Says("next", [(call.name, call.arguments)]) for call in CALLS]
SEES = [Says("Red."), Says("<think>red? no</think>blue")]


def doctor(capsys: pytest.CaptureFixture[str], *options: str) -> tuple[int, dict[str, tuple[str, str]]]:
    """The exit code, and status and detail by check."""
    code = main([*options, "--json"])
    told = json.loads(capsys.readouterr().out)
    assert told["ok"] == (code == 0)
    return code, {check["name"]: (check["status"], check["detail"]) for check in told["checks"]}


def test_a_bare_installation_is_healthy_and_says_so_in_one_line_a_check(home: Path, tmp_path: Path) -> None:
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-m", "agent.doctor"], cwd=tmp_path, capture_output=True, text=True, timeout=120, env=env
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert [line[:5].strip() for line in done.stdout.splitlines()] == ["ok"] * 3
    assert "planner called prompt_gen" in done.stdout
    assert "prompt_gen local, image_gen local defect-renderer-1, quality_eval local" in done.stdout


@pytest.mark.parametrize("dialect", ["text", "native"])
def test_a_model_that_sees_and_calls_is_healthy(
    dialect: str, home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with FakeOpenAI([*SEES, *{"text": TEXT, "native": NATIVE}[dialect]], key=KEY) as server:
        code, checks = doctor(capsys, "--base-url", server.url, "--model", "some-model", "--dialect", dialect)
    assert code == 0
    assert {status for status, _ in checks.values()} == {"ok"}
    assert "lists some-model" in checks["policy"][1]
    assert "openai called prompt_gen, read what it returned, and would go on with image_gen" in checks["tool call"][1]
    assert "[Tool Response from prompt_gen]" in json.dumps(server.requests[-1]) or dialect == "native"
    assert KEY not in json.dumps(checks)


@pytest.mark.parametrize(
    ("replies", "models", "failing", "says"),
    [
        ([Says("red"), Says("red"), *TEXT], ["some-model"], "sees images", '"red" of the blue one: is some-model'),
        ([Says("red or blue"), Says("blue"), *TEXT], ["some-model"], "sees images", '"red or blue" of the red one'),
        ([*SEES, Says("I would edit it.")], ["some-model"], "tool call", 'its turn "I would edit it." cannot be read'),
        ([*SEES, Says("", finish="length")], ["some-model"], "tool call", "raise --max-tokens"),
        ([*SEES, TEXT[1]], ["some-model"], "tool call", "it called image_gen first"),
        ([*SEES], ["a", "b"], "sees images", "has no model 'some-model': choose one with --model (a, b)"),
        ([Fails(400, "image input is not enabled")], ["some-model"], "sees images", "image input is not enabled"),
    ],
)  # fmt: skip
def test_a_model_that_falls_short_is_named_with_the_cure(
    replies: list[Any],
    models: list[str],
    failing: str,
    says: str,
    home: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with FakeOpenAI(replies, models=models) as server:
        code, checks = doctor(capsys, "--base-url", server.url, "--model", "some-model")
    assert code == 1
    assert [name for name, (status, _) in checks.items() if status == "FAIL"] == [failing]
    assert says in checks[failing][1]
    assert checks["tools"][0] == "ok"


def test_a_server_that_is_not_there_and_tools_that_do_not_start_are_both_named(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with FakeOpenAI() as server:
        url = server.url
    options = ("--base-url", url, "--model", "m", "--policy-retries", "0", "--server", "no-such-command")
    code, checks = doctor(capsys, *options)
    assert code == 1
    assert "cannot be reached: check --base-url" in checks["policy"][1]
    assert "cannot be reached: check that the command starts" in checks["tools"][1]
    assert checks["tool call"][0] == "skip"


def test_a_backend_that_is_not_ready_is_named_in_its_servers_words(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server = f"{sys.executable} {ROOT / 'tests/servers/faulty.py'} unready {tmp_path}"
    code, checks = doctor(capsys, "--server", f"env PYTHONPATH={ROOT} {server}")
    assert code == 1
    assert checks["tools"] == ("FAIL", "image_gen: there is no key: set SOME_API_KEY")
    assert checks["tool call"][0] == "skip"


def test_options_that_cannot_be_used_are_refused_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--policy", "openai"]) == 2
    assert capsys.readouterr().err == "error: --model is missing: name a model of the policy's server\n"
