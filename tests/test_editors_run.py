"""A run on a hosted editor as a user starts it: the session says what it cost and how it failed, and holds no key."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from agent.run import main
from agent.session import read_session
from mcp_servers.backends import BackendChoice
from mcp_servers.image_gen.backends import facts_and_editor

from .servers.fake_editors import http_editor

KEY = "sk-very-secret-0123456789"


def run(photo: Path, out: Path, url: str, *options: str) -> int:
    task = [str(photo), "--item", "plate", "--anomaly", "scratch", "--out", str(out), "--max-images", "1"]
    return main([*task, "--editor-base-url", url, *options])


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANOMALY_AGENT_EDITOR_API_KEY", KEY)
    monkeypatch.setenv("ANOMALY_AGENT_EDITOR_ATTEMPTS", "2")


def test_a_run_on_a_hosted_editor_makes_a_sample_and_tells_its_cost(
    home: Path, photo_file: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with http_editor("ok") as editor:
        assert run(photo_file, tmp_path / "out", editor.url, "--editor", "gemini") == 0
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    assert result["backends"]["image_gen"] == "gemini"
    assert result["cost_usd"] == pytest.approx(0.06765)
    assert result["mask"]["area_fraction"] > 0.001
    events = [event for event in read_session(tmp_path / "out" / "session").events if event["type"] == "tool_result"]
    edit = next(event for event in events if event["tool"] == "image_gen")
    assert edit["payload"]["told"] == editor.requests[0]["prompt"]
    assert KEY in editor.requests[0]["headers"]["x-goog-api-key"]
    written = [path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert written
    assert not any(KEY.encode() in data for data in written)
    assert KEY not in "".join(capfd.readouterr())


@pytest.mark.parametrize(("behaviour", "kind"), [("500", "unavailable"), ("block", "refused")])
def test_a_failing_editor_ends_the_run_with_its_kind_in_the_session(
    home: Path, photo_file: Path, tmp_path: Path, behaviour: str, kind: str
) -> None:
    with http_editor(behaviour) as editor:
        options = ("--editor", "openai", "--editor-model", "Qwen/Qwen-Image-Edit-2511")
        assert run(photo_file, tmp_path / "out", f"{editor.url}/v1", *options) != 0
    session = read_session(tmp_path / "out" / "session")
    failed = next(event for event in session.events if event["type"] == "tool_result" and not event["ok"])
    assert failed["error_class"] == kind
    assert session.events[-1]["stop_reason"] == "tool_error"


def test_an_editor_that_cannot_be_used_is_told_before_the_first_turn(
    home: Path, photo_file: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(photo_file, tmp_path / "out", "ftp://nowhere", "--editor", "gemini") != 0
    assert "http:// or https://" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("choice", "says"),
    [
        (BackendChoice("gemini"), "GEMINI_API_KEY or GOOGLE_API_KEY"),
        (BackendChoice("openai"), "OPENAI_API_KEY"),
        (BackendChoice("xai"), "XAI_API_KEY"),
        (BackendChoice("openai", base_url="http://127.0.0.1:9/v1"), "--editor-model"),
        (BackendChoice("openai", base_url="https://edit.example.com/v1"), "needs a key"),
        (BackendChoice("comfyui"), "--editor-model"),
        (BackendChoice("comfyui", model="nowhere.json"), "does not exist"),
    ],
)
def test_a_backend_says_what_it_lacks(choice: BackendChoice, says: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GEMINI_API_KEY", "GOOGLE_API_KEY", "OPENAI_API_KEY", "XAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    facts, editor = facts_and_editor(choice)
    assert says in facts.problem
    assert "\n" not in facts.problem
    assert editor is None


def test_a_missing_package_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mcp_servers.remote.access._installed", lambda module: False)
    assert "anomaly-agent[gemini]" in facts_and_editor(BackendChoice("gemini", api_key=KEY))[0].problem


def test_backends_tell_their_version_and_what_an_edit_may_cost(monkeypatch: pytest.MonkeyPatch) -> None:
    known, _ = facts_and_editor(BackendChoice("gemini", api_key=KEY))
    assert known.max_cost_usd == pytest.approx(0.071)
    assert known.model in known.version
    unknown, editor = facts_and_editor(BackendChoice("gemini", model="gemini-99", api_key=KEY))
    assert unknown.max_cost_usd is None
    assert editor is not None
    own, _ = facts_and_editor(BackendChoice("openai", model="qwen", base_url="http://127.0.0.1:9/v1"))
    assert own.max_cost_usd == 0
    assert own.problem == ""


def test_a_price_counts_at_any_address_and_only_this_machine_is_free_without_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def most(model: str, url: str) -> float | None:
        return facts_and_editor(BackendChoice("openai", model=model, base_url=url, api_key=KEY))[0].max_cost_usd

    proxy, elsewhere = "http://127.0.0.1:9/v1", "http://gpu.example:9/v1"
    assert most("gpt-image-1.5", proxy) == most("gpt-image-1.5", "") == pytest.approx(0.264)
    assert (most("qwen", proxy), most("qwen", elsewhere)) == (0.0, None)
    (tmp_path / "prices.toml").write_text('["qwen"]\nper_image = 0.04\n')
    monkeypatch.setenv("ANOMALY_AGENT_PRICES", str(tmp_path / "prices.toml"))
    assert most("qwen", proxy) == most("qwen", elsewhere) == pytest.approx(0.04)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "cannot be read"),
        ('{"nodes": [], "links": []}', "API format"),
        ('{"1": {"class_type": "LoadImage", "inputs": {"image": "{{image}}"}}}', "lacks the placeholder {{prompt}}"),
        ('{"1": {"class_type": "X", "inputs": {"a": "{{image}} {{prompt}} {{steps}}"}}}', "unknown placeholder"),
    ],
)
def test_a_workflow_that_cannot_be_used_says_why(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "workflow.json").write_text(text)
    facts, editor = facts_and_editor(BackendChoice("comfyui", model=str(tmp_path / "workflow.json")))
    assert says in facts.problem
    assert editor is None
