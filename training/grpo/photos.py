"""The pictures of tasks, kept with the training: photos, examples of defects and masks of regions."""

from __future__ import annotations

import hashlib
import os
import shutil
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from agent.task import Task
from mcp_servers.images import ImageError, decode
from training.config import ConfigError

KINDS = ("image", "example_image", "example_mask", "region")
"""Fields of a task that name a picture; a region may be a box instead."""


@dataclass(slots=True)
class Photos:
    """The folder that pictures are kept in: linked where the disk allows, else copied; each file is read once."""

    folder: Path
    _kept: dict[str, str] = field(default_factory=dict)
    _fingerprints: dict[str, str] = field(default_factory=dict)

    def keep(self, task: Task, where: str) -> Task:
        """The task on pictures that are kept here. ``where``: what names the task in messages.

        Raises ConfigError for a picture that the tools could not read, and OSError.
        """
        named = {kind: Path(value) for kind in KINDS if (value := getattr(task, kind)) and not is_box(value)}
        kept: dict[str, Any] = {kind: self._keep(source, f"{where}: {kind}") for kind, source in named.items()}
        return replace(task, **kept)

    def fingerprint(self, task: Task) -> str:
        """``fingerprint`` of a kept task's photo."""
        return self._fingerprints[task.image]

    def _keep(self, source: Path, where: str) -> str:
        if str(source) in self._kept:
            return self._kept[str(source)]
        content, shown = _read(source, where)
        target = self.folder / f"{hashlib.sha256(content).hexdigest()[:24]}{source.suffix.lower()}"
        if not target.exists():
            try:
                os.link(source, target)
            except OSError:  # another disk, or no links
                shutil.copyfile(source, target)
        kept = self._kept[str(source)] = str(target.resolve())
        self._fingerprints[kept] = shown
        return kept


def fingerprint(photo: Path) -> str:
    """SHA-256 of a photo as sessions record it: upright, without metadata, as PNG. Raises ConfigError."""
    return _read(photo, "a task's photo")[1]


def is_box(region: str) -> bool:
    """Whether a region that has been checked is a box "x,y,width,height" and not a file."""
    return region.strip(" []()").replace(",", "").replace(" ", "").isdigit()


def _read(source: Path, where: str) -> tuple[bytes, str]:
    """A picture's bytes, and the fingerprint of what tools make of them. Raises ConfigError."""
    try:
        content = source.read_bytes()
        return content, hashlib.sha256(decode(content, str(source)).to_png()).hexdigest()
    except ImageError as error:
        raise ConfigError(f"{where}: {error}") from error
    except (OSError, ValueError) as error:
        told = getattr(error, "strerror", None) or error
        raise ConfigError(f"{where}: {source} cannot be read ({told}): name a picture") from error
