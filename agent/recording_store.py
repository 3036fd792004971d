"""A folder of recorded results: what was asked, what came back and what it cost, by the SHA-256 of what was asked.

    DIR/calls/ab/KEY.json     one result each: the question, the answer, seconds, US dollars, digests of its images
    DIR/images/SHA256.png     images by content
    DIR/servers/ID.json       how the tool servers of a recording described their tools

Every file is written whole or not at all (temporary file, fsync, rename; images before what names them), so a crash
leaves nothing half-made and several processes may share a folder. Values of secret environment variables (``..._KEY``,
``..._TOKEN``, ``..._SECRET``, ``..._PASSWORD``) are blotted out of everything that is written.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from agent.session import write_atomic

VERSION = 1
SECRET = re.compile(r"(KEY|TOKEN|SECRET|PASSWORD)\Z")
SHORTEST_SECRET = 8


class RecordingError(ValueError):
    """A recording that cannot be read or written; the message names the file and the cure."""


def canonical(value: Any) -> Any:
    """The value as keys are made of it: numbers that are equal look equal (7.0 is 7), whatever the order of fields."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, Mapping):
        return {str(name): canonical(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [canonical(item) for item in value]
    return value


def key_of(question: Mapping[str, Any]) -> str:
    """SHA-256 (hexadecimal) of a question's canonical JSON. Raises ValueError for what JSON cannot hold."""
    text = json.dumps(canonical(question), sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


@dataclass(frozen=True, slots=True)
class Entry:
    """One recorded answer. ``images``: PNG bytes by the name under which the answer speaks of them."""

    question: dict[str, Any]
    answer: dict[str, Any]
    seconds: float
    cost_usd: float
    images: dict[str, bytes] = field(default_factory=dict, repr=False)


class RecordingStore:
    """Reads and writes one folder. Raises RecordingError for damaged files and where the folder cannot be used."""

    def __init__(self, folder: Path, environ: Mapping[str, str] = os.environ) -> None:
        self.folder = folder
        secrets = {text for name, text in environ.items() if SECRET.search(name) and len(text) >= SHORTEST_SECRET}
        self._secrets = sorted(secrets, key=len, reverse=True)

    def path(self, key: str) -> Path:
        """Where the answer under a key is kept."""
        return self.folder / "calls" / key[:2] / f"{key}.json"

    def has(self, key: str) -> bool:
        return self.path(key).exists()

    def put(self, entry: Entry) -> str:
        """Keep an answer, in place of an earlier one under its key, and return the key."""
        key = key_of(entry.question)
        digests = {name: hashlib.sha256(png).hexdigest() for name, png in entry.images.items()}
        for name, png in entry.images.items():
            path = self._image(digests[name])
            if not path.exists():
                self._write(path, png)
        fields = {
            "v": VERSION,
            "key": key,
            "question": entry.question,
            "answer": entry.answer,
            "images": digests,
            "seconds": round(entry.seconds, 4),
            "cost_usd": entry.cost_usd,
        }
        self._write_json(self.path(key), fields)
        return key

    def get(self, key: str) -> Entry | None:
        """The answer under a key, None where there is none."""
        path = self.path(key)
        fields = self._read_json(path)
        if fields is None:
            return None
        try:
            if fields["key"] != key:
                raise ValueError("it lies under another key")
            return Entry(
                question=dict(fields["question"]),
                answer=dict(fields["answer"]),
                seconds=float(fields["seconds"]),
                cost_usd=float(fields["cost_usd"]),
                images={str(name): self._png(str(digest)) for name, digest in dict(fields["images"]).items()},
            )
        except (KeyError, TypeError, ValueError) as error:
            if isinstance(error, RecordingError):
                raise
            raise self.damaged(path, str(error)) from error

    def put_servers(self, asked: list[str], described: dict[str, Any]) -> None:
        """Keep how the servers that were asked for describe their tools; the latest description counts."""
        self._write_json(self._servers(asked), {"v": VERSION, **described})

    def get_servers(self, asked: list[str]) -> dict[str, Any] | None:
        """The description that ``put_servers`` kept, None where there is none."""
        return self._read_json(self._servers(asked))

    def _servers(self, asked: list[str]) -> Path:
        return self.folder / "servers" / f"{key_of({'asked': asked})[:32]}.json"

    def _image(self, digest: str) -> Path:
        return self.folder / "images" / f"{digest}.png"

    def _png(self, digest: str) -> bytes:
        path = self._image(digest)
        try:
            png = path.read_bytes()
        except OSError as error:
            raise self.damaged(path, error.strerror or "it cannot be read") from error
        if hashlib.sha256(png).hexdigest() != digest:
            raise self.damaged(path, "its content is not what its name says")
        return png

    def _read_json(self, path: Path) -> dict[str, Any] | None:
        try:
            fields = json.loads(path.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise self.damaged(path, "it is no JSON" if isinstance(error, ValueError) else str(error)) from error
        if not isinstance(fields, dict):
            raise self.damaged(path, "it is no JSON object")
        if fields.get("v") != VERSION:
            raise self.damaged(path, f"its version is {fields.get('v')}, not {VERSION}")
        return fields

    def _write_json(self, path: Path, fields: dict[str, Any]) -> None:
        text = json.dumps(fields | {"time": datetime.now(UTC).isoformat(timespec="seconds")}, ensure_ascii=False)
        for secret in self._secrets:
            text = text.replace(json.dumps(secret, ensure_ascii=False)[1:-1], "[secret]")
        self._write(path, text.encode("utf-8", "surrogatepass"))

    def _write(self, path: Path, data: bytes) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(path, data)
        except OSError as error:
            raise RecordingError(f"{path} cannot be written ({error.strerror}): choose another folder") from error

    def damaged(self, path: Path, why: str) -> RecordingError:
        """What to raise for a file that does not hold what it should."""
        return RecordingError(
            f"{path} is damaged ({why}): delete it, and have that call made again with --replay-else-live "
            "(a training: tools.mode)"
        )
