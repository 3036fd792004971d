"""The session log: nothing is lost, nothing is written over, a crash shows."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from agent.session import LOG_NAME, SessionError, SessionWriter, read_session

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


def test_a_damaged_line_in_the_middle_is_an_error_that_names_it(tmp_path: Path) -> None:
    with SessionWriter(tmp_path) as writer:
        for _ in range(3):
            writer.append("message", role="user", content="x")
    log = tmp_path / LOG_NAME
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
