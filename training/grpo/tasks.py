"""The tasks that the policy trains and is measured on: from task lists or from recorded sessions.

They are read once and kept with the training, photos included (linked where the disk allows, else copied), so that a
training that is resumed goes on with the very same ones.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from random import Random
from typing import Any

from PIL import Image, UnidentifiedImageError

from agent.session import SessionError, read_session
from agent.task import Task
from training.config import ConfigError
from training.grpo.config import GrpoConfig, TasksSection, applied
from training.sessions import find_sessions

FILE_NAME = "tasks.json"
PHOTOS = "photos"
_FIELDS = {field.name: str(field.type) for field in fields(Task)}
_KINDS = {"str": (str, "text"), "int": (int, "a whole number"), "float": (int | float, "a number")}
_REQUIRED = ("image", "item_name", "anomaly_type")
_FILES = ("region", "example_image", "example_mask")


@dataclass(frozen=True, slots=True)
class TaskSets:
    """Tasks to train on, and tasks of other photos to measure on."""

    train: list[Task]
    held_out: list[Task]


def prepare(config: GrpoConfig, output: Path) -> TaskSets:
    """Read the tasks, keep their photos and write ``tasks.json`` into the output folder.

    Raises ConfigError where they cannot be used, and OSError.
    """
    photos = output / PHOTOS
    photos.mkdir(parents=True, exist_ok=True)
    tasks = [_kept(task, photos) for task in _read(config.tasks.files, config.tasks.sessions, config.tasks)]
    if config.held_out.files:
        train, held_out = tasks, [_kept(task, photos) for task in _read(config.held_out.files, [], config.tasks)]
        if shared := set(map(_photo, train)) & set(map(_photo, held_out)):
            raise ConfigError(f"{len(shared)} photos of held_out.files are among the tasks to train on: take others")
    else:
        train, held_out = _split(tasks, config.held_out.share, config.train.seed)
    needed = config.grpo.groups
    if len(train) < needed:
        raise ConfigError(f"{len(train)} tasks to train on are fewer than grpo.groups {needed}: name more, or lower it")
    if config.held_out.episodes and not held_out:
        raise ConfigError("no task is held out: raise held_out.share, name held_out.files, or set held_out.episodes=0")
    sets = TaskSets(train, held_out[: config.held_out.episodes] if config.held_out.episodes else [])
    text = json.dumps({"train": list(map(asdict, sets.train)), "held_out": list(map(asdict, sets.held_out))}, indent=1)
    (output / FILE_NAME).write_text(text, encoding="utf-8")
    return sets


def load(output: Path) -> TaskSets:
    """The tasks that ``prepare`` wrote. Raises ConfigError where they are missing or damaged."""
    try:
        record = json.loads((output / FILE_NAME).read_text(encoding="utf-8"))
        return TaskSets(*([Task(**fields) for fields in record[name]] for name in ("train", "held_out")))
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ConfigError(f"{output / FILE_NAME} is missing or damaged: start the training again elsewhere") from error


def _read(files: Sequence[Path], sessions: Sequence[Path], section: TasksSection) -> list[Task]:
    """Each different task once, in order, with the configuration's settings. Raises ConfigError."""
    try:
        read = [task for file in files for task in _of_file(file)] + list(_of_sessions(sessions))
    except SessionError as error:
        raise ConfigError(str(error)) from error
    different = dict.fromkeys(replace(task, **applied(task, section)) for task in read)
    if not different:
        raise ConfigError("there is no task: the files and sessions hold none")
    return list(different)


def _of_file(path: Path) -> Iterator[Task]:
    """The tasks of a JSON Lines file. Raises ConfigError that names the line."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
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
        yield _task(record, path.parent, where)


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
    named = {
        key: str(folder / record[key]) for key in ("image", *_FILES) if record.get(key) and not _is_box(record[key])
    }
    return Task(**{**record, **named})


def _is_box(value: str) -> bool:
    return value.replace(",", "").replace(" ", "").isdigit()


def _of_sessions(places: Sequence[Path]) -> Iterator[Task]:
    """The tasks of recorded sessions, on the photos as they were recorded; boxes and files of regions are left out."""
    if not places:
        return
    for folder in find_sessions(places):
        session = read_session(folder)
        recorded = {key: value for key, value in (session.start.get("task") or {}).items() if key in _FIELDS}
        shown = [image for event in session.of_type("message") for image in event.get("images") or []]
        if not shown or not all(recorded.get(key) for key in _REQUIRED):
            continue
        image = session.folder / "images" / f"{shown[0]['sha256']}.png"
        if not image.is_file():
            raise SessionError(f"{folder}: the original {image.name[:12]}… is missing: restore it, or leave it out")
        yield Task(**{**recorded, "image": str(image), **dict.fromkeys(_FILES, "")})


def _kept(task: Task, photos: Path) -> Task:
    """The task on a photo that is kept with the training. Raises ConfigError where there is no such photo."""
    source = Path(task.image)
    try:
        content = source.read_bytes()
        Image.open(io.BytesIO(content)).close()
    except UnidentifiedImageError as error:
        raise ConfigError(f"{source} is no picture: mend the task's image") from error
    except OSError as error:
        raise ConfigError(f"{source} cannot be read ({error.strerror}): mend the task's image") from error
    digest = hashlib.sha256(content).hexdigest()
    kept = photos / f"{digest[:24]}{source.suffix.lower()}"
    if not kept.exists():
        try:
            os.link(source, kept)
        except OSError:  # another disk, or no links
            shutil.copyfile(source, kept)
    return replace(task, image=str(kept.resolve()))


def _split(tasks: Sequence[Task], share: float, seed: int) -> tuple[list[Task], list[Task]]:
    """Tasks to train on and held-out ones, by photo; at least one photo is held out where the share is not 0."""
    photos = sorted(set(map(_photo, tasks)))
    Random(seed).shuffle(photos)
    count = min(max(1, round(share * len(photos))), len(photos) - 1) if share else 0
    held = set(photos[:count])
    return [task for task in tasks if _photo(task) not in held], [task for task in tasks if _photo(task) in held]


def _photo(task: Task) -> str:
    """What a kept photo shows, whatever its file was called."""
    return Path(task.image).stem
