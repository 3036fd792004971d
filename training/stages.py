"""How a training went: the configuration that it began with, and those that it was gone on with, from which step on."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from training.config import ConfigError, Section

BEGAN, RESUMED = "config.json", "resumed.json"


@dataclass(frozen=True, slots=True)
class Stage:
    """A part of a training: the step after which it began, and its configuration as JSON has it."""

    step: int
    config: dict[str, Any]


def begin(output: Path, config: Section) -> None:
    """Note the configuration that a training begins with. Raises OSError."""
    (output / BEGAN).write_text(config.model_dump_json(indent=2), encoding="utf-8")


def go_on(output: Path, step: int, config: Section) -> None:
    """Note that the training goes on after a step. What was noted of this step and of later ones led to no checkpoint.

    Raises ConfigError where the folder's note is damaged, and OSError.
    """
    kept = [stage for stage in _resumed(output) if stage.step < step]
    stages = [asdict(stage) for stage in (*kept, Stage(step, config.model_dump(mode="json")))]
    (output / RESUMED).write_text(json.dumps(stages, indent=1), encoding="utf-8")


def stages(output: Path, steps: int) -> list[Stage]:
    """The parts of a training of so many steps in which something was trained. Raises ConfigError or OSError."""
    noted = [Stage(0, json.loads((output / BEGAN).read_text(encoding="utf-8"))), *_resumed(output)]
    ends = [*(stage.step for stage in noted[1:]), steps]
    return [stage for stage, end in zip(noted, ends, strict=True) if stage.step < end] or noted[:1]


def changes(went: Sequence[Stage], apart: Sequence[str]) -> dict[int, str]:
    """What was changed on the way, by the first step that it holds for; keys of the sections ``apart`` are left out."""
    told = {}
    for before, after in pairwise(went):
        then, now = _flat(before.config), _flat(after.config)
        keys = [key for key in now if key.split(".")[0] not in apart and then.get(key) != now[key]]
        if keys:
            each = (f"{key} = {json.dumps(now[key])} (before: {json.dumps(then.get(key))})" for key in keys)
            told[after.step + 1] = ", ".join(each)
    return told


def _resumed(output: Path) -> list[Stage]:
    path = output / RESUMED
    try:
        return [Stage(int(each["step"]), dict(each["config"])) for each in json.loads(path.read_text(encoding="utf-8"))]
    except FileNotFoundError:
        return []
    except (ValueError, TypeError, KeyError) as error:
        raise ConfigError(
            f"{path}, which says what was changed on the way, is damaged: put it back as it was, or remove it"
        ) from error


def without_none(config: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration without the keys that are not set."""
    return {
        name: without_none(value) if isinstance(value, dict) else value
        for name, value in config.items()
        if value is not None
    }


def _flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A configuration's values by their dotted keys."""
    flat: dict[str, Any] = {}
    for name, value in config.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return flat
