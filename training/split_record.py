"""What a training kept out and what it learned from, for whoever measures the trained model afterwards.

``split.json`` in a training's output folder: ``held_out``, the folders of the sessions that were kept out (none after
``training.grpo``, whose ``tasks.json`` holds the tasks themselves), and ``trained_on``, the fingerprints of the photos
that training sessions stem from.
"""

from __future__ import annotations

import json
from collections.abc import Sequence, Set
from dataclasses import dataclass
from pathlib import Path

from training.config import ConfigError
from training.examples import Example

SPLIT_NAME = "split.json"


@dataclass(frozen=True, slots=True)
class SplitRecord:
    """Folders of held-out sessions, and fingerprints (SHA-256) of the photos that were learned from."""

    held_out: tuple[Path, ...]
    trained_on: frozenset[str]


def write_split(output: Path, train: Sequence[Example], held_out: Sequence[Example]) -> None:
    """Write the record into a training's output folder. Raises OSError."""
    sessions = [Path(example.session).resolve() for example in held_out]
    write_record(output, sessions, {source for example in train for source in example.sources})


def write_record(output: Path, held_out: Sequence[Path], trained_on: Set[str]) -> None:
    """Write the record of held-out sessions and of fingerprints that were learned from. Raises OSError."""
    record = {"held_out": list(map(str, held_out)), "trained_on": sorted(trained_on)}
    (output / SPLIT_NAME).write_text(json.dumps(record, indent=1), encoding="utf-8")


def read_split(output: Path) -> SplitRecord:
    """The record of a training's output folder. Raises ConfigError where there is none or it was damaged."""
    path = output / SPLIT_NAME
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        return SplitRecord(tuple(map(Path, record["held_out"])), frozenset(map(str, record["trained_on"])))
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be read ({error.strerror}): name the output folder of a training.sft or a training.grpo"
        ) from error
    except (ValueError, TypeError, KeyError) as error:
        raise ConfigError(f"{path} was edited or damaged: name the sessions to measure on instead") from error


def record_of_model(model: str) -> SplitRecord | None:
    """The record of the training that left a model folder (``model/``, or a checkpoint), None where there is none.

    Raises ConfigError where it was damaged.
    """
    folder = Path(model).resolve()
    homes = [place for place in list(folder.parents)[:2] if (place / SPLIT_NAME).is_file()]
    return read_split(homes[0]) if homes else None
