"""The session log: one append-only ``session.jsonl`` and the images it names, written so that a crash loses nothing.

An image is written first (temporary file, fsync, rename), then the line that names it; every line is flushed
to disk before the episode goes on to its next call. A reader ignores a torn last line, and a session without
``session_end`` is incomplete. Rewards are appended after the end by rescoring (``append_events``), never written over.

Line types: ``session_start``, ``message``, ``model_call``, ``tool_call``, ``tool_result``, ``reward``,
``session_end``. Every line carries ``v`` (schema version), ``seq``, ``time`` (UTC) and ``type``.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from agent.session_check import AFTER_THE_END, fault

SCHEMA_VERSION = 1
LOG_NAME = "session.jsonl"
EVENT_TYPES = frozenset({"session_start", "message", "model_call", "tool_call", "tool_result", "reward", "session_end"})


class SessionError(ValueError):
    """A session that cannot be read or written; the message names the file and the cure."""


def write_atomic(path: Path, data: bytes) -> None:
    """Write a file so that it is either absent or whole: temporary file, fsync, rename."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}.tmp")
    with open(temporary, "wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(temporary, path)


class SessionWriter:
    """Appends events to ``folder/session.jsonl`` and images to ``folder/images``.

    Raises SessionError where the folder already holds a session, OSError where it cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "images").mkdir(parents=True, exist_ok=True)
        try:
            self._stream = open(folder / LOG_NAME, "xb")  # noqa: SIM115 - open for the whole episode
        except FileExistsError:
            raise SessionError(f"{folder} already holds a session: choose another output folder") from None
        self._seq = 0
        self._lines: list[bytes] = []
        self._images: dict[str, bytes] = {}
        self._writing = threading.Lock()
        self._failure: OSError | None = None

    def append(self, event_type: str, **fields: Any) -> None:
        """Append one event; it is on disk when this returns."""
        self.add(event_type, **fields)
        self.sync()

    def add(self, event_type: str, **fields: Any) -> None:
        """Queue one event; it is on disk after the next ``sync``."""
        if event_type not in EVENT_TYPES:
            raise ValueError(f"unknown event type {event_type!r}")
        self._lines.append(_line(self._seq, event_type, fields))
        self._seq += 1

    def queue_image(self, digest: str, png: bytes) -> None:
        """Queue an image whose SHA-256 is known; it is on disk after the next ``sync``, before what names it."""
        self._images[digest] = png

    def sync(self) -> None:
        """Put all that was queued on disk. Blocks for as long as the disk takes: call it in a worker thread.

        Raises OSError, and again whenever it is called after that: a log with a gap would pass for a whole one.
        """
        with self._writing:
            if self._failure:
                raise self._failure
            try:
                self._flush()
            except OSError as error:
                self._failure = error
                raise

    def _flush(self) -> None:
        images, lines = self._images, self._lines
        self._images, self._lines = {}, []
        for digest, png in images.items():
            self._keep(digest, png)
        if lines:
            self._stream.write(b"".join(lines))
            self._stream.flush()
            os.fsync(self._stream.fileno())

    def add_image(self, png: bytes) -> str:
        """Store an image once under its SHA-256 and return the digest."""
        digest = hashlib.sha256(png).hexdigest()
        self._keep(digest, png)
        return digest

    def _keep(self, digest: str, png: bytes) -> None:
        path = self.folder / "images" / f"{digest}.png"
        if not path.exists():
            write_atomic(path, png)

    def close(self) -> None:
        self._stream.close()

    def __enter__(self) -> SessionWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def append_events(folder: Path, event_type: str, events: Sequence[Mapping[str, Any]]) -> None:
    """Add events to a session that has ended; all of them are on disk when this returns.

    Numbers go on where the log stopped. Whole lines are never touched. A half-written last line can only be the
    rest of an earlier append that was interrupted: it is cut off, no reader has ever counted it. Appending locks the
    log (not on Windows), so that two commands at once do not give a number twice.

    Raises SessionError where the session has no ``session_end`` (it was cut short or is still being recorded) or is
    damaged, ValueError for an event type that may not follow the end, OSError where the log cannot be written.
    """
    if event_type not in AFTER_THE_END:
        raise ValueError(f"{event_type!r} may not follow the end of a session")
    folder = _log_folder(folder)
    try:
        stream = open(folder / LOG_NAME, "r+b")  # noqa: SIM115 - the with below closes it
    except FileNotFoundError:
        raise SessionError(f"no session in {folder}: {LOG_NAME} is missing") from None
    with stream:
        _lock(stream.fileno())
        session = read_session(folder)
        if not session.complete:
            raise SessionError(f"{folder} has no session_end: an episode that did not end takes no {event_type}")
        first = int(session.events[-1]["seq"]) + 1
        data = b"".join(_line(first + number, event_type, fields) for number, fields in enumerate(events))
        if session.torn:
            whole = stream.read().rfind(b"\n") + 1
            stream.truncate(whole)
        stream.seek(0, os.SEEK_END)
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())


def _line(seq: int, event_type: str, fields: Mapping[str, Any]) -> bytes:
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    event = {"v": SCHEMA_VERSION, "seq": seq, "time": now, "type": event_type, **fields}
    return json.dumps(event, ensure_ascii=False, allow_nan=False).encode() + b"\n"


def _lock(descriptor: int) -> None:
    """Hold a file alone until it is closed."""
    if sys.platform != "win32":
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX)


@dataclass(frozen=True, slots=True)
class Session:
    """A session read back.

    ``complete`` says whether the episode reached its end; ``torn`` whether a half-written last line was left
    out. ``events`` are the whole lines in order.
    """

    folder: Path
    events: Sequence[dict[str, Any]]
    torn: bool = False
    start: dict[str, Any] = field(default_factory=dict)
    end: dict[str, Any] | None = None

    @property
    def complete(self) -> bool:
        return self.end is not None

    def of_type(self, event_type: str) -> list[dict[str, Any]]:
        """All events of one type, in order."""
        return [event for event in self.events if event["type"] == event_type]

    def image(self, digest: str) -> bytes:
        """PNG bytes of an image that the log names. Raises SessionError where it is missing."""
        try:
            return (self.folder / "images" / f"{digest}.png").read_bytes()
        except OSError as error:
            cure = "restore it from a copy, or leave this session out"
            raise SessionError(
                f"{self.folder}: image {digest[:12]}… cannot be read ({error.strerror}): {cure}"
            ) from error


def read_session(folder: Path) -> Session:
    """Read a session folder (or a run folder that holds one).

    Raises SessionError where there is none, where a line other than the last is damaged, missing or out of place
    (``session_check.py``), or where the schema is newer than this reader.
    """
    folder = _log_folder(folder)
    path = folder / LOG_NAME
    try:
        data = path.read_bytes()
    except OSError as error:
        raise SessionError(f"no session in {folder}: {LOG_NAME} cannot be read ({error.strerror})") from error
    lines = data.split(b"\n")
    tail = lines.pop()  # empty when the last line is whole
    events = []
    for number, line in enumerate(lines, 1):
        try:
            event = json.loads(line, parse_constant=_no_number)
        except (ValueError, RecursionError) as error:
            raise SessionError(f"{path}, line {number}: not valid JSON, the log was edited or damaged") from error
        if not isinstance(event, dict) or not isinstance(event.get("type"), str):
            raise SessionError(f"{path}, line {number}: not an event of a session log")
        if event.get("v") != SCHEMA_VERSION:
            raise SessionError(
                f"{path}, line {number}: schema version {event.get('v')}, expected {SCHEMA_VERSION}: "
                "read it with the release that recorded it"
            )
        events.append(event)
    if found := fault(events):
        raise SessionError(
            f"{path}, line {found[0]}: {found[1]}; the log was edited or damaged: restore it from a copy"
        )
    start: dict[str, Any] = events[0] if events else {}
    end = next((e for e in events if e["type"] == "session_end"), None)
    return Session(folder=folder, events=events, torn=bool(tail), start=start, end=end)


def _no_number(constant: str) -> None:
    """NaN and Infinity, which are not JSON and which no log holds."""
    raise ValueError(f"{constant} is no JSON")


def _log_folder(folder: Path) -> Path:
    """The session's own folder, also where a run's folder that holds it was named."""
    return folder / "session" if (folder / "session" / LOG_NAME).exists() else folder
