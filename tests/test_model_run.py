"""Whole episodes, as a user starts them, with a model as prompter and judge."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from agent.session import read_session

from .conftest import ROOT
from .servers.fake_models import FakeModels, fake_models, openai_says
from .servers.model_calls import (
    GOOD,
    KEY,
    PROMPT,
    own_prices,
    reply_for,
)


@pytest.fixture(autouse=True)
def prices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own_prices(tmp_path, monkeypatch)


def run_agent(out: Path, photo: Path, fake: FakeModels, *more: str, **env: str) -> subprocess.CompletedProcess[str]:
    services = [
        option
        for role in ("prompter", "judge")
        for option in (f"--{role}", "openai", f"--{role}-model", "vlm", f"--{role}-base-url", f"{fake.url}/v1")
    ]
    command = [
        sys.executable,
        "-m",
        "agent.run",
        str(photo),
        "--item",
        "plate",
        "--anomaly",
        "scratch",
        "--out",
        str(out),
    ]
    return subprocess.run(
        [*command, *services, "--json", *more],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OPENAI_API_KEY": KEY} | env,
    )


def everything_under(folder: Path) -> str:
    return "".join(path.read_bytes().decode("latin-1") for path in folder.rglob("*") if path.is_file())


def test_an_episode_with_a_model_as_prompter_and_judge_refines_by_its_advice_and_adds_up_the_cost(
    home: Path, photo_file: Path, tmp_path: Path
) -> None:
    advice = reply_for("quality_eval", quality_score=1, advice=["Make the defect larger"])
    notes = tmp_path / "notes"
    notes.mkdir()
    (notes / "plate.md").write_text("# Scratch\n\nPaint a red banner over the scratch and the photo.", encoding="utf-8")
    with fake_models(openai_says(PROMPT), openai_says("hm"), openai_says(advice), openai_says(GOOD)) as fake:
        own = {"ANOMALY_AGENT_JUDGE_API_KEY": KEY}
        folder = ("--knowledge", "folder", "--knowledge-folder", str(notes))
        done = run_agent(tmp_path / "out", photo_file, fake, *folder, **own)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert (result["score"], result["passed"]) == (7.5, True)
    assert result["cost_usd"] == pytest.approx(4 * 2.6)
    assert result["backends"] == {
        "prompt_gen": "openai", "image_gen": "local", "quality_eval": "openai", "knowledge_retrieval": "folder",
        "mask_gen": "local",
    }  # fmt: skip
    assert "red banner" in (tmp_path / "out" / "session" / "session.jsonl").read_text()  # looked up and shown
    first, second = (image["prompt"] for image in result["images"])
    assert "medium-sized and pronounced" in first
    assert "large and pronounced" in second
    assert "banner" not in second
    judged = [
        event for event in read_session(tmp_path / "out").of_type("tool_result") if event["tool"] == "quality_eval"
    ]
    assert [event["cost_usd"] for event in judged] == [pytest.approx(5.2), pytest.approx(2.6)]
    assert KEY not in everything_under(tmp_path) + done.stdout + done.stderr
    assert fake.requests[0]["headers"]["authorization"] != f"Bearer {KEY}"  # the vendor's key, over plain HTTP
    assert fake.requests[1]["headers"]["authorization"] == f"Bearer {KEY}"  # the key that the user gave this judge


def test_an_episode_whose_judge_never_answers_usably_ends_without_a_score(
    home: Path, photo_file: Path, tmp_path: Path
) -> None:
    with fake_models(openai_says(PROMPT), openai_says("10/10!")) as fake:
        done = run_agent(tmp_path / "out", photo_file, fake)
    assert done.returncode == 1
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    assert result["score"] is None
    assert result["cost_usd"] == pytest.approx(4 * 2.6)
    assert "gave no usable reply in 3 tries" in done.stderr
    assert KEY not in everything_under(tmp_path) + done.stdout + done.stderr


def test_a_judge_without_a_key_ends_the_run_before_anything_is_spent(
    home: Path, photo_file: Path, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "agent.run", str(photo_file), "--item", "plate", "--anomaly", "scratch"]
    done = subprocess.run(
        [*command, "--judge", "local+openai", "--out", str(tmp_path / "o")],
        cwd=ROOT, capture_output=True, text=True, timeout=60, env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode != 0
    assert "OPENAI_API_KEY" in done.stderr
