"""The folder of recorded results: keys, whole files, no secrets."""

from __future__ import annotations

from pathlib import Path
from threading import Thread

import cv2
import pytest

from agent.recording_store import Entry, RecordingError, RecordingStore, key_of

from .conftest import make_photo


def test_keys_do_not_depend_on_order_or_on_how_a_number_is_written() -> None:
    one = {"tool": "x", "arguments": {"threshold": 7.0, "box": [1, 2.0], "note": "größe"}}
    same = {"arguments": {"note": "größe", "box": [1.0, 2], "threshold": 7}, "tool": "x"}
    assert key_of(one) == key_of(same)
    assert key_of(one) != key_of({**one, "tool": "y"})
    assert key_of({"a": 1}) != key_of({"a": "1"})
    with pytest.raises(ValueError, match="JSON"):
        key_of({"a": float("nan")})


def test_secrets_are_never_written(tmp_path: Path) -> None:
    store = RecordingStore(
        tmp_path, {"GEMINI_API_KEY": 'AIza"secret-value', "HF_TOKEN": "hf_abcdefgh", "HOME": "/root"}
    )
    entry = Entry({"tool": "x"}, {"error": 'denied for AIza"secret-value and hf_abcdefgh at /root'}, 1.0, 0.0)
    key = store.put(entry)
    store.put_servers(["s"], {"described": [{"name": "hf_abcdefgh"}], "tools": []})
    written = "".join(path.read_text() for path in tmp_path.rglob("*.json"))
    assert "secret-value" not in written
    assert "hf_abcdefgh" not in written
    kept = store.get(key)
    assert kept is not None
    assert kept.answer["error"] == "denied for [secret] and [secret] at /root"


def test_writers_of_one_folder_do_not_disturb_each_other(tmp_path: Path) -> None:
    png = cv2.imencode(".png", make_photo())[1].tobytes()

    def write(number: int) -> None:
        for step in range(20):
            RecordingStore(tmp_path).put(Entry({"step": step}, {"by": number}, 0.0, 0.0, {"image": png}))

    threads = [Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for step in range(20):
        entry = RecordingStore(tmp_path).get(key_of({"step": step}))
        assert entry is not None
        assert entry.images["image"] == png
    assert not list(tmp_path.rglob("*.tmp"))


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RecordingError, match=r"cannot be written .*: choose another folder"):
        RecordingStore(tmp_path / "file" / "below").put(Entry({}, {}, 0.0, 0.0))
