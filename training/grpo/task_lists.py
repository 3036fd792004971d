"""Tasks as users write them down: JSON Lines files, or recorded sessions whose tasks are taken again."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from agent.roi import read_roi
from agent.session import SessionError, read_session
from agent.task import LIMITS, Task
from training.config import ConfigError
from training.grpo.config import TasksSection, applied
from training.sessions import find_sessions

_FIELDS = {field.name: str(field.type) for field in fields(Task)}
_KINDS = {"str": (str, "text"), "int": (int, "a whole number"), "float": (int | float, "a number")}
_REQUIRED = ("image", "item_name", "anomaly_type")
_EXAMPLE = ("example_image", "example_mask")


def read_tasks(files: Sequence[Path], sessions: Sequence[Path], section: TasksSection) -> dict[Task, str]:
    """Each different task once, in order, with the configuration's settings, and where it is written: file and line,
    or session. Raises ConfigError.
    """
    different: dict[Task, str] = {}
    try:
        for task, where in (*(found for file in files for found in _of_file(file)), *_of_sessions(sessions)):
            different.setdefault(replace(task, **applied(task, section)), where)
    except SessionError as error:
        raise ConfigError(str(error)) from error
    if not different:
        raise ConfigError("there is no task: the files and sessions hold none")
    return different


def _of_file(path: Path) -> Iterator[tuple[Task, str]]:
    """The tasks of a JSON Lines file. Raises ConfigError that names the line."""
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")  # other separators may stand inside a JSON text
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read ({error}): name a JSON Lines file of tasks") from error
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            record = json.loads(line)
        except ValueError as error:
            raise ConfigError(f"{where} is no JSON ({error}): write one task a line") from error
        yield _task(record, path.parent, where), where


def _task(record: Any, folder: Path, where: str) -> Task:
    if not isinstance(record, dict):
        raise ConfigError(f"{where} is no object: write a task's fields, such as {', '.join(_REQUIRED)}")
    if unknown := [key for key in record if key not in _FIELDS]:
        raise ConfigError(f"{where}: a task has no {unknown[0]!r}; known are {', '.join(_FIELDS)}")
    if missing := [key for key in _REQUIRED if not str(record.get(key) or "").strip()]:
        raise ConfigError(f"{where}: {missing[0]} is missing")
    for key, value in record.items():
        kind, wanted = _KINDS[_FIELDS[key]]
        if not isinstance(value, kind) or isinstance(value, bool):
            raise ConfigError(f"{where}: {key} is {json.dumps(value)[:40]}: write {wanted}")
    for key, (low, high) in LIMITS.items():
        if key in record and not low <= record[key] <= high:
            raise ConfigError(f"{where}: {key} {json.dumps(record[key])[:40]} is out of range: choose {low} to {high}")
    if len([key for key in _EXAMPLE if record.get(key)]) == 1:
        raise ConfigError(f"{where}: {' and '.join(_EXAMPLE)} go together: name a defect's photo and its mask")
    named = {key: str(folder / record[key]) for key in ("image", *_EXAMPLE) if record.get(key)}
    return Task(**{**record, **named, "region": _region(record.get("region", ""), folder, Path(named["image"]), where)})


def _region(region: str, folder: Path, photo: Path, where: str) -> str:
    """A box inside the photo as it is, or the path of a mask. Raises ConfigError."""
    if region.strip() and (folder / region).is_file():
        return str((folder / region).resolve())
    try:
        return read_roi(region, photo, f"{where}: region")
    except ValueError as error:
        raise ConfigError(str(error)) from error


def _of_sessions(places: Sequence[Path]) -> Iterator[tuple[Task, str]]:
    """The tasks of recorded sessions, on the photos as they were recorded; boxes and files of regions are left out."""
    if not places:
        return
    for folder in find_sessions(places):
        try:
            session = read_session(folder)
        except SessionError as error:
            raise SessionError(f"{error}: mend or remove this session, or leave it out of tasks.sessions") from error
        recorded = {key: value for key, value in (session.start.get("task") or {}).items() if key in _FIELDS}
        shown = [image for event in session.of_type("message") for image in event.get("images") or []]
        if not shown or not all(recorded.get(key) for key in _REQUIRED):
            continue
        image = session.folder / "images" / f"{shown[0]['sha256']}.png"
        if not image.is_file():
            raise SessionError(f"{folder}: the original {image.name[:12]}… is missing: restore it, or leave it out")
        yield Task(**{**recorded, "image": str(image), **dict.fromkeys(("region", *_EXAMPLE), "")}), str(folder)
