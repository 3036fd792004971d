"""The session log: nothing is lost, nothing is written over, a crash shows."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from agent.session import LOG_NAME, SessionError, SessionWriter, append_events, read_session

PNG = b"\x89PNG\r\n\x1a\n" + b"pixels"


def test_events_read_back_in_order_with_their_images(tmp_path: Path) -> None:
    with SessionWriter(tmp_path / "s") as writer:
        digest = writer.add_image(PNG)
        assert writer.add_image(PNG) == digest
        writer.append("session_start", task={"item_name": "Mutter größe 8"})
        writer.append("message", role="user", content="hello\nworld", images=[{"sha256": digest}])
        writer.append("session_end", stop_reason="answered")
    session = read_session(tmp_path / "s")
    assert [event["seq"] for event in session.events] == [0, 1, 2]
    assert session.start["task"]["item_name"] == "Mutter größe 8"
    assert session.image(digest) == PNG
    assert session.complete
    assert not session.torn
    assert len(list((tmp_path / "s" / "images").iterdir())) == 1


@pytest.mark.parametrize("lost", [1, 7, 30])
def test_a_torn_last_line_is_left_out_and_the_session_is_incomplete(tmp_path: Path, lost: int) -> None:
    with SessionWriter(tmp_path) as writer:
        writer.append("session_start", task={})
        writer.append("session_end", stop_reason="answered")
    log = tmp_path / LOG_NAME
    log.write_bytes(log.read_bytes()[:-lost])
    session = read_session(tmp_path)
    assert [event["type"] for event in session.events] == ["session_start"]
    assert session.torn
    assert not session.complete


def whole(folder: Path) -> Path:
    """The log of a short session."""
    with SessionWriter(folder) as writer:
        writer.append("session_start", task={"item_name": "nut", "threshold": 7.0})
        writer.append("message", role="user", content="x", images=[])
        writer.append("tool_result", tool="image_gen", ok=True, payload={}, images=[])
        writer.append("session_end", stop_reason="answered", repairs=0)
    append_events(folder, "reward", [{"component": "task", "value": 0.5}, {"component": "total", "value": 0.5}])
    return folder / LOG_NAME


@pytest.mark.parametrize(
    ("order", "says"),
    [
        ([0, 2, 3], "line 2: its seq is 2, not 1: lines are missing"),
        ([0, 2, 1, 3], "line 2: its seq is 2, not 1"),
        ([0, 1, 1, 2, 3], "line 3: its seq is 1, not 2"),
        ([1, 2, 3], "line 1: its seq is 1, not 0"),
        ([0, 1, 2, 3, 5], "line 5: its seq is 5, not 4"),
    ],
)
def test_lines_that_are_missing_doubled_or_swapped_are_damage(tmp_path: Path, order: list[int], says: str) -> None:
    log = whole(tmp_path)
    assert len(read_session(tmp_path).of_type("reward")) == 2
    lines = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(b"".join(lines[number] for number in order))
    with pytest.raises(SessionError, match=says):
        read_session(tmp_path)


@pytest.mark.parametrize(
    ("order", "says"),
    [
        ([1, 2, 3], "line 1: a log has one session_start, its first line, and this is 'message'"),
        ([0, 0, 1, 3], "line 2: a log has one session_start"),
        ([0, 1, 3, 3], "line 4: only rewards follow session_end, and this is 'session_end'"),
        ([0, 3, 1], "line 3: only rewards follow session_end, and this is 'message'"),
    ],
)
def test_a_log_without_a_start_or_with_two_ends_is_damage_however_it_is_numbered(
    tmp_path: Path, order: list[int], says: str
) -> None:
    log = whole(tmp_path)
    events = [json.loads(line) for line in log.read_bytes().splitlines()]
    kept = [events[old] | {"seq": seq} for seq, old in enumerate(order)]
    log.write_text("".join(json.dumps(event) + "\n" for event in kept))
    with pytest.raises(SessionError, match=says):
        read_session(tmp_path)


@pytest.mark.parametrize(
    ("line", "field", "value", "says"),
    [
        (0, "task", "x", '"task" of session_start is not an object'),
        (0, "task", {"threshold": "high"}, '"task" of session_start is not an object with'),
        (0, "policy", ["x"], '"policy" of session_start is not an object'),
        (1, "images", ["abc"], '"images" of message is not a list of images with their SHA-256'),
        (2, "images", [{"sha256": "../../x"}], '"images" of tool_result is not a list'),
        (2, "payload", [1], '"payload" of tool_result is not an object'),
        (3, "repairs", "two", '"repairs" of session_end is not a number from 0'),
        (4, "value", "much", '"value" of reward is not a number'),
        (4, "value", float("nan"), "line 5: not valid JSON"),
        (4, "value", 10**400, '"value" of reward is not a number'),
    ],
)
def test_fields_of_another_type_are_damage_that_is_named(
    tmp_path: Path, line: int, field: str, value: object, says: str
) -> None:
    log = whole(tmp_path)
    events = [json.loads(text) for text in log.read_bytes().splitlines()]
    events[line][field] = value
    log.write_text("".join(json.dumps(event) + "\n" for event in events))
    with pytest.raises(SessionError, match=says) as caught:
        read_session(tmp_path)
    assert str(log) in str(caught.value)


def test_a_damaged_line_in_the_middle_is_an_error_that_names_it(tmp_path: Path) -> None:
    log = whole(tmp_path)
    lines = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(lines[0] + b"{broken\n" + lines[2])
    with pytest.raises(SessionError, match="line 2"):
        read_session(tmp_path)


def test_a_second_session_never_goes_into_the_same_folder(tmp_path: Path) -> None:
    SessionWriter(tmp_path).close()
    with pytest.raises(SessionError, match="another output folder"):
        SessionWriter(tmp_path)


def test_another_schema_version_is_refused(tmp_path: Path) -> None:
    (tmp_path / LOG_NAME).write_text(json.dumps({"v": 2, "seq": 0, "type": "message"}) + "\n")
    with pytest.raises(SessionError, match="schema version 2"):
        read_session(tmp_path)


def test_values_that_json_cannot_hold_are_refused_at_once(tmp_path: Path) -> None:
    with SessionWriter(tmp_path) as writer, pytest.raises(ValueError, match="JSON"):
        writer.append("reward", value=float("nan"))


def test_a_folder_without_a_session_is_named_in_the_error(tmp_path: Path) -> None:
    with pytest.raises(SessionError, match="no session in"):
        read_session(tmp_path)
