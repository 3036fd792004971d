"""Rescoring through the command: rewards are appended to real sessions, once, and nothing is written over."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from agent.session import LOG_NAME, SessionError, append_events, read_session
from tests.episodes import record_samples
from tests.recorded_session import png
from training.rescore import main
from training.trace import read_trace


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return record_samples(tmp_path_factory.mktemp("recorded"))


@pytest.fixture
def samples(recorded: dict[str, Path], tmp_path: Path) -> dict[str, Path]:
    """A copy of the recorded sessions that a test may alter."""
    shutil.copytree(recorded["single"].parent, tmp_path / "sessions")
    return {name: tmp_path / "sessions" / name for name in recorded}


def rescore(capsys: pytest.CaptureFixture[str], *arguments: str | Path, code: int = 0) -> dict[str, Any]:
    assert main([*map(str, arguments), "--json"]) == code
    report: dict[str, Any] = json.loads(capsys.readouterr().out)
    return {Path(result["session"]).name: result for result in report["sessions"]} | {"": report}


def test_a_real_session_reads_as_the_actions_that_were_played(recorded: dict[str, Path]) -> None:
    single = read_trace(read_session(recorded["single"]))
    assert [a.kind for a in single.actions] == ["prompt_gen", "image_gen", "quality_eval", "mask_gen", "answer"]
    assert single.images == [2]
    assert single.answer is not None
    repaired = read_trace(read_session(recorded["repaired"]))
    assert [a.kind for a in repaired.actions] == [
        *("unusable", "prompt_gen", "image_gen", "quality_eval", "unusable", "mask_gen", "answer")
    ]
    refused = read_trace(read_session(recorded["refused"]))
    assert [(a.kind, bool(a.refused)) for a in refused.actions][2:4] == [
        ("quality_eval", True),
        ("quality_eval", False),
    ]
    for session, trace in ((recorded["triple"], read_trace(read_session(recorded["triple"]))),):
        told = [e["payload"]["score"] for e in read_session(session).of_type("tool_result") if "score" in e["payload"]]
        assert list(trace.scores.values()) == told
        assert list(trace.scores) == [2, 3, 4]


def test_rewards_are_appended_and_every_line_before_them_stays_as_it_was(
    samples: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    log = samples["single"] / LOG_NAME
    before = log.read_bytes()
    result = rescore(capsys, samples["single"])["single"]
    assert result["status"] == "appended"
    assert log.read_bytes().startswith(before)
    session = read_session(samples["single"])
    assert [event["seq"] for event in session.events] == list(range(len(session.events)))
    rewards = session.of_type("reward")
    assert {event["component"]: event["value"] for event in rewards} == result["rewards"]
    assert rewards[-1]["component"] == "total"
    assert rewards[-1]["config"]["alpha"] == 1.0
    assert {event["scorer_version"] for event in rewards} == {"3"}
    score = read_trace(session).scores[2] / 10
    assert result["rewards"]["total"] == pytest.approx(score + 0.5 * score + 0.2)


def test_the_same_scoring_is_appended_once_and_another_configuration_beside_it(
    samples: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = samples["single"] / LOG_NAME
    first = rescore(capsys, samples["single"])["single"]
    once = log.read_bytes()
    again = rescore(capsys, samples["single"])["single"]
    assert log.read_bytes() == once
    assert again["status"] == "kept"
    assert again["rewards"] == first["rewards"]
    config = tmp_path / "reward.toml"
    config.write_text("[reward]\nalpha = 2.0\n")
    other = rescore(capsys, samples["single"], "--config", config)["single"]
    assert other["status"] == "appended"
    assert other["rewards"]["total"] > first["rewards"]["total"]
    assert rescore(capsys, samples["single"], "--force")["single"]["status"] == "appended"
    totals = [e for e in read_session(samples["single"]).of_type("reward") if e["component"] == "total"]
    assert [event["value"] for event in totals] == [
        first["rewards"]["total"], other["rewards"]["total"], first["rewards"]["total"],
    ]  # fmt: skip


def test_an_image_that_is_missing_is_told_with_what_can_be_done(
    samples: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    for picture in (samples["single"] / "images").iterdir():
        picture.unlink()
    result = rescore(capsys, samples["single"], "--judge", "statistics", "--force", code=1)["single"]
    assert result["status"] == "damaged"
    assert result["problem"].endswith("restore it from a copy, or leave this session out")
    assert "Errno" not in result["problem"]


def test_a_dry_run_appends_nothing(samples: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    before = (samples["triple"] / LOG_NAME).read_bytes()
    assert rescore(capsys, samples["triple"], "--dry-run")["triple"]["status"] == "scored"
    assert (samples["triple"] / LOG_NAME).read_bytes() == before


def test_a_folder_of_sessions_is_scored_and_the_table_shows_what_each_earned(
    samples: dict[str, Path], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "220")
    assert main([str(samples["single"].parent)]) == 0
    table = capsys.readouterr().out
    for name in samples:
        assert name in table
    assert "excluded: policy_error: the policy could not be asked" in table
    assert "of 5 sessions that may be learned from" in table
    found = rescore(capsys, samples["single"].parent)
    assert {result["status"] for name, result in found.items() if name} == {"kept"}
    assert found["repaired"]["rewards"]["behaviour.unusable"] == -0.5
    assert found["repaired"]["rewards"]["behaviour.format"] == 0.0
    assert found["refused"]["rewards"]["behaviour.refused"] == -0.1
    assert found["endless"]["flags"] == ["no_answer", "images_unjudged"]
    assert found[""]["learnable"] == 5
    assert found["single"]["rewards"]["total"] > found["repaired"]["rewards"]["total"]


def test_the_table_can_be_read_on_a_terminal_of_80_columns(
    samples: dict[str, Path], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert main([str(samples["single"].parent)]) == 0
    lines = capsys.readouterr().out.splitlines()
    found = rescore(capsys, samples["single"].parent)
    for name in samples:
        row = next(line for line in lines if line.split()[:2] == [name, "appended"])
        assert len(row) <= 80
        assert row.split()[-1] == f"{found[name]['rewards']['total']:.3f}"
    assert "endless: stopped by max_turns; no_answer; images_unjudged" in lines


def test_incomplete_sessions_are_left_alone_and_damaged_ones_are_an_error(
    samples: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    cut = samples["single"] / LOG_NAME
    cut.write_bytes(cut.read_bytes()[:-20])
    before = cut.read_bytes()
    found = rescore(capsys, samples["single"], samples["triple"])
    assert found["single"]["status"] == "incomplete"
    assert "torn" in found["single"]["problem"]
    assert cut.read_bytes() == before
    log = samples["triple"] / LOG_NAME
    log.write_bytes(log.read_bytes().replace(b'"seq": 3,', b'"seq" 3,', 1))
    found = rescore(capsys, samples["triple"], samples["refused"], code=1)
    assert found["triple"]["status"] == "damaged"
    assert "line 4: not valid JSON" in found["triple"]["problem"]
    assert found["refused"]["status"] == "appended"


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('"task": {', '"task": "x", "was": {', '"task" of session_start is not an object'),
        ('"threshold": ', '"threshold": "high", "was": ', '"task" of session_start is not an object'),
        ('"payload": {', '"payload": "x", "was": {', '"payload" of tool_result is not an object'),
        ('"repairs": 0', '"repairs": "two"', '"repairs" of session_end is not a number'),
        ('"seq": 3,', '"seq": 4,', "line 4: its seq is 4, not 3"),
    ],
)
def test_fields_of_another_type_are_damage_and_the_other_sessions_are_scored(
    samples: dict[str, Path], capsys: pytest.CaptureFixture[str], old: str, new: str, says: str
) -> None:
    log = samples["single"] / LOG_NAME
    log.write_text(log.read_text(encoding="utf-8").replace(old, new), encoding="utf-8")
    before = log.read_bytes()
    found = rescore(capsys, samples["single"], samples["refused"], code=1)
    assert found["single"]["status"] == "damaged"
    assert says in found["single"]["problem"]
    assert log.read_bytes() == before
    assert found["refused"]["status"] == "appended"


def test_what_an_interrupted_append_left_is_cut_off_by_the_next_one(
    samples: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    log = samples["single"] / LOG_NAME
    recorded = log.read_bytes()
    rescore(capsys, samples["single"])
    log.write_bytes(log.read_bytes()[:-30])
    assert read_session(samples["single"]).torn
    assert rescore(capsys, samples["single"])["single"]["status"] == "appended"
    session = read_session(samples["single"])
    assert not session.torn
    assert log.read_bytes().startswith(recorded)
    assert [event["seq"] for event in session.events] == list(range(len(session.events)))
    assert rescore(capsys, samples["single"])["single"]["status"] == "kept"


def test_a_log_that_cannot_be_written_is_reported_and_the_others_are_scored(
    samples: dict[str, Path], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(folder: Path, event_type: str, events: Any) -> None:
        if folder.name == "single":
            raise OSError(28, "No space left on device")
        append_events(folder, event_type, events)

    monkeypatch.setattr("training.rescore.append_events", full)
    found = rescore(capsys, samples["single"], samples["triple"], code=1)
    assert "No space left on device" in found["single"]["problem"]
    assert found["triple"]["status"] == "appended"


def test_only_rewards_follow_the_end_of_a_session_and_only_after_an_end(samples: dict[str, Path]) -> None:
    with pytest.raises(ValueError, match="may not follow the end"):
        append_events(samples["single"], "message", [{"role": "user"}])
    log = samples["single"] / LOG_NAME
    log.write_bytes(b"\n".join(log.read_bytes().split(b"\n")[:-2]) + b"\n")
    with pytest.raises(SessionError, match="no session_end"):
        append_events(samples["single"], "reward", [{"value": 1.0}])
    with pytest.raises(SessionError, match="no session in"):
        append_events(samples["single"] / "images", "reward", [{"value": 1.0}])
    before = (samples["triple"] / LOG_NAME).read_bytes()
    with pytest.raises(ValueError, match="JSON"):
        append_events(samples["triple"], "reward", [{"value": 1.0}, {"value": float("nan")}])
    assert (samples["triple"] / LOG_NAME).read_bytes() == before


def test_another_judge_scores_the_recorded_images_over_mcp_and_shows_flattery(
    samples: dict[str, Path], home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = rescore(capsys, samples["single"], samples["triple"])
    log = samples["triple"] / LOG_NAME
    log.write_text(re.sub(r'"payload": {"score": [\d.]+', '"payload": {"score": 10.0', log.read_text()))
    other = rescore(capsys, samples["single"], samples["triple"], "--judge", "local")
    for name in ("single", "triple"):
        assert other[name]["status"] == "appended"
        assert other[name]["judge"].startswith("local ")
        for component in ("task", "reflection", "reflection.paper"):  # the judge that recorded them, before the edit
            assert other[name]["rewards"][component] == pytest.approx(own[name]["rewards"][component])
    assert other["triple"]["recorded_task"] == 1.0
    assert other[""]["mean_task"] < other[""]["mean_recorded_task"]
    shown = [image for event in read_session(samples["refused"]).of_type("message") for image in event["images"]]
    (samples["refused"] / "images" / f"{shown[-1]['sha256']}.png").unlink()
    tiny = png((16, 16))
    digest = hashlib.sha256(tiny).hexdigest()
    (samples["repaired"] / "images" / f"{digest}.png").write_bytes(tiny)
    log = samples["repaired"] / LOG_NAME
    before = log.read_text()
    made = next(e for e in read_session(samples["repaired"]).of_type("tool_result") if e["tool"] == "image_gen")
    log.write_text(before.replace(made["images"][0]["sha256"], digest))
    places = [samples[name] for name in ("single", "refused", "repaired")]
    again = rescore(capsys, *places, "--judge", "local", code=1)
    assert again["repaired"]["status"] == "unjudged"
    assert "image 2: " in again["repaired"]["problem"]
    assert read_session(samples["repaired"]).of_type("reward") == []
    assert again["single"]["status"] == "kept"
    assert "cannot be read" in again["refused"]["problem"]


def test_a_judge_of_another_kind_scores_what_the_judge_local_rewarded(
    samples: dict[str, Path], home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = rescore(capsys, samples["single"], "--judge", "statistics")["single"]
    assert other["status"] == "appended"
    assert other["judge"].startswith("statistics ")
    assert 0 <= other["rewards"]["task"] <= 1
    assert other["rewards"]["task"] != pytest.approx(other["recorded_task"], abs=0.001)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["nowhere"], "no session in nowhere: name folders"),
        ([".", "--config", "absent.toml"], "absent.toml cannot be used"),
        (["{single}", "--judge-model", "x"], "name the backend too"),
        (
            ["{single}", "--judge", "nosuch"],
            "--judge nosuch: no such backend; choose one of local, statistics, gemini, openai",
        ),
        (["{single}", "--judge", "local+local"], "--judge local+local: name each backend once"),
    ],
)
def test_unusable_input_is_one_line_that_names_the_cure(
    samples: dict[str, Path], arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([argument.format(**samples) for argument in arguments]) == 2
    told = capsys.readouterr()
    assert says in told.err
    assert told.err.count("\n") == 1
    assert told.out == ""


def test_a_judge_that_cannot_be_started_is_an_error_and_nothing_is_appended(
    samples: dict[str, Path], home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = (samples["single"] / LOG_NAME).read_bytes()
    monkeypatch.setenv("ANOMALY_AGENT_JUDGE_TIMEOUT", "never")
    assert main([str(samples["single"]), "--judge", "local"]) == 1
    assert "error: " in capsys.readouterr().err
    assert (samples["single"] / LOG_NAME).read_bytes() == before
