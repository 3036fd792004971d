"""The tasks that the policy trains and is measured on, split by photo.

They are read once and kept with the training, pictures included, so that a training that is resumed goes on with the
very same ones, and its model can be measured afterwards on those that were held out.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from typing import Any

from agent.task import Task
from training.config import ConfigError
from training.grpo.config import GrpoConfig
from training.grpo.photos import Photos
from training.grpo.task_lists import read_tasks
from training.split_record import record_of_model, write_record

FILE_NAME = "tasks.json"
PHOTOS = "photos"
PICTURES = ("image", "region", "example_image", "example_mask")
"""Fields of a task that name files; a region may also be a box."""


@dataclass(frozen=True, slots=True)
class TaskSets:
    """Tasks to train on, and tasks of other photos to measure on."""

    train: list[Task]
    held_out: list[Task]


def prepare(config: GrpoConfig, output: Path, processes: int = 1) -> TaskSets:
    """Read the tasks, keep their pictures and write ``tasks.json`` and ``split.json`` into the output folder.

    ``processes`` train together. All tasks that are held out are kept, however many are measured while it trains.
    Raises ConfigError where the tasks cannot be used, and OSError.
    """
    photos = Photos(output / PHOTOS)
    photos.folder.mkdir(parents=True, exist_ok=True)
    listed = read_tasks(config.tasks.files, config.tasks.sessions, config.tasks)
    tasks = [photos.keep(task, where) for task, where in listed.items()]
    if config.held_out.files:
        listed = read_tasks(config.held_out.files, [], config.tasks)
        sets = TaskSets(tasks, [photos.keep(task, where) for task, where in listed.items()])
        if shared := set(map(_photo, sets.train)) & set(map(_photo, sets.held_out)):
            raise ConfigError(f"{len(shared)} photos of held_out.files are among the tasks to train on: take others")
    else:
        sets = _split(tasks, config.held_out.share, config.train.seed)
    _check_number(len(sets.train), config.grpo.groups, processes)
    if config.held_out.episodes and not sets.held_out:
        raise ConfigError("no task is held out: raise held_out.share, name held_out.files, or set held_out.episodes=0")
    before = record_of_model(config.model.path)
    known = before.trained_on if before else frozenset()
    write_record(output, [], {*known, *map(photos.fingerprint, sets.train)})
    record = {name: [_kept(task, output) for task in getattr(sets, name)] for name in ("train", "held_out")}
    (output / FILE_NAME).write_text(json.dumps(record, indent=1), encoding="utf-8")
    return sets


def load(output: Path) -> TaskSets:
    """The tasks that ``prepare`` wrote, also in a folder that was moved since.

    Raises ConfigError where they are missing or damaged.
    """
    try:
        record = json.loads((output / FILE_NAME).read_text(encoding="utf-8"))
        return TaskSets(
            *([Task(**_found(fields, output)) for fields in record[name]] for name in ("train", "held_out"))
        )
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ConfigError(f"{output / FILE_NAME} is missing or damaged: start the training again elsewhere") from error


def _kept(task: Task, output: Path) -> dict[str, Any]:
    """The fields of a task, with the pictures that were kept named relative to the output folder."""
    folder = output.resolve()
    pictures = {name: Path(value) for name in PICTURES if (value := getattr(task, name))}
    inside = {name: path for name, path in pictures.items() if path.is_relative_to(folder)}
    return asdict(task) | {name: path.relative_to(folder).as_posix() for name, path in inside.items()}


def _found(fields: dict[str, Any], output: Path) -> dict[str, Any]:
    """The fields of a kept task, with the whole paths of its pictures."""
    folder = output.resolve()
    named = {name: folder / fields[name] for name in PICTURES if fields.get(name)}
    return fields | {name: str(path) for name, path in named.items() if path.is_file()}


def _check_number(tasks: int, groups: int, processes: int) -> None:
    """Raise ConfigError where there are fewer tasks than a step takes: it would train on none of them."""
    if tasks >= groups * processes:
        return
    if processes == 1:
        raise ConfigError(f"{tasks} tasks to train on are fewer than grpo.groups {groups}: name more, or lower it")
    raise ConfigError(
        f"{tasks} tasks to train on are fewer than the {groups * processes} of a step (grpo.groups {groups} on "
        f"{processes} processes): name more, lower grpo.groups, or start fewer processes"
    )


def _split(tasks: Sequence[Task], share: float, seed: int) -> TaskSets:
    """Tasks to train on and held-out ones, by photo; at least one photo is held out where the share is not 0."""
    photos = sorted(set(map(_photo, tasks)))
    Random(seed).shuffle(photos)
    count = min(max(1, round(share * len(photos))), len(photos) - 1) if share else 0
    held = set(photos[:count])
    return TaskSets(
        [task for task in tasks if _photo(task) not in held], [task for task in tasks if _photo(task) in held]
    )


def _photo(task: Task) -> str:
    """What a kept photo shows, whatever its file was called."""
    return Path(task.image).stem
