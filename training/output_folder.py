"""The output folder of a training: begun only where nothing of the user's can be lost, gone on with only as it began.

A start that fails before its first checkpoint leaves data behind, which the next start replaces. It may: the folder
carries a file that says so (``Kind.started``), and what is removed are files that this command writes, by their names.
A folder that holds anything else is refused and left as it is.
"""

from __future__ import annotations

import glob
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from training.config import ConfigError, Section

OTHER_FOLDER = "name another folder with --set output=DIR"


@dataclass(frozen=True, slots=True)
class Kind:
    """A command that trains: its module, and the files that it writes before its first checkpoint and that a new start
    may replace, as a pattern of paths relative to the output folder.
    """

    module: str
    replaceable: str

    @property
    def started(self) -> str:
        """Name of the file that says that a training of this kind began in a folder."""
        return f"started-by-{self.module.replace('.', '-')}.txt"

    @property
    def note(self) -> str:
        """What that file says."""
        return (
            f"python -m {self.module} began a training here. Until there is a checkpoint, starting it again replaces\n"
            "the files that it wrote (data, figures, configuration) and nothing else.\n"
        )

    def begin(self, output: Path) -> None:
        """Make the folder ready for a new training: remove what a start that failed has left. Raises ConfigError where
        it holds anything else, which stays untouched, or cannot be written.
        """
        remains = _remains(output, self)
        try:
            for path in sorted(remains, reverse=True):  # files before the folders that hold them
                path.rmdir() if path.is_dir() else path.unlink()
            output.mkdir(parents=True, exist_ok=True)
            (output / self.started).write_text(self.note, encoding="utf-8")
        except OSError as error:
            raise ConfigError(f"{output} cannot be written ({error.strerror}): {OTHER_FOLDER}") from error


_TENSORBOARD = r"|tensorboard/(.+/)?events\.out\.tfevents\.[^/]+"
SFT = Kind(
    "training.sft",
    r"(config|data|held_out|split|tokens)\.json|data/README\.md|data/dataset_dict\.json"
    r"|data/\w+/((dataset_info|state)\.json|data-\d+-of-\d+\.arrow)" + _TENSORBOARD,
)
GRPO = Kind("training.grpo", r"(config|tasks|split)\.json|photos/[^/]+" + _TENSORBOARD)
"""Rollouts are no such files: what they cost is not thrown away."""


def checkpoint_of(output: Path, resume: bool, kind: Kind) -> Path | None:
    """The checkpoint to go on from, None for a new training. Raises ConfigError where the folder does not suit."""
    from transformers.trainer_utils import get_last_checkpoint

    checkpoints = output / "checkpoints"
    last = get_last_checkpoint(str(checkpoints)) if checkpoints.is_dir() else None
    if resume:
        if last is None:
            raise ConfigError(f"{checkpoints} holds no checkpoint to go on from: start without --resume")
        return Path(last)
    if last:
        raise ConfigError(
            f"{output} holds a training: add --resume to go on, or name another folder with --set output=DIR"
        )
    _remains(output, kind)
    return None


def check_apart(output: Path, sessions: Sequence[Path]) -> None:
    """Refuse an output folder that holds sessions to learn from, or lies among them. Raises ConfigError."""
    ours = output.resolve()
    for place in sessions:
        for name in [place] if place.exists() else glob.glob(str(place), recursive=True):
            root = Path(name).resolve()
            if ours == root or ours in root.parents or root in ours.parents:
                raise ConfigError(
                    f"the output folder {output} and the sessions in {name} lie one inside the other: name a folder "
                    "apart from them with --set output=DIR"
                )


def same_training(config: Section, output: Path, parts: Sequence[str]) -> None:
    """Refuse to go on with other parts, such as the section "model" or the key "train.seed", than a training began
    with. Relative and absolute paths of the same files are the same.

    Raises ConfigError, also where the folder's ``config.json`` is missing or damaged, or OSError.
    """
    path = output / "config.json"
    cure = "put it back as it was, or start again in another folder with --set output=DIR"
    try:
        began = json.loads(path.read_text(encoding="utf-8"))
        for part in parts:
            section, then, now = type(config), began, config
            for key in part.split("."):
                kind = section.model_fields[key].rebuild_annotation()
                section, then, now = kind, then.get(key), getattr(now, key)
            then = TypeAdapter(kind).validate_json(json.dumps(then))
            if _plain(then) != _plain(now):
                name = f"{part} ({json.dumps(_plain(then), default=str)})" if "." in part else f"[{part}]"
                raise ConfigError(f"the training in {output} began with another {name}: use the same, or start again")
    except FileNotFoundError:
        raise ConfigError(f"{path}, which says how the training began, is missing: {cure}") from None
    except (json.JSONDecodeError, ValidationError, UnicodeDecodeError, AttributeError) as error:
        raise ConfigError(f"{path} is damaged ({str(error).splitlines()[0]}): {cure}") from error


def _plain(value: Any) -> Any:
    """A part of a configuration for comparing, with absolute paths."""
    if isinstance(value, Section):
        return {name: _plain(getattr(value, name)) for name in type(value).model_fields}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value.resolve() if isinstance(value, Path) else value


def how_to_go_on(output: Path, kind: Kind) -> str:
    """What a user can do after a training was broken off."""
    try:
        checkpoint_of(output, True, kind)
    except ConfigError:
        try:
            _remains(output, kind)
        except ConfigError:
            return "there is no checkpoint yet, so start again in another folder with --set output=DIR"
        return "there is no checkpoint yet, so start again"
    return "go on with --resume"


def _remains(output: Path, kind: Kind) -> list[Path]:
    """Files and folders that a failed start has left. Raises ConfigError where there is anything else."""
    if output.is_symlink() or output.exists():
        cure = OTHER_FOLDER
        if not output.is_dir():
            raise ConfigError(f"{output} is not a folder: {cure}")
        paths = list(output.rglob("*"))
        if paths and not _is_note(output, kind):
            raise ConfigError(f"{output} is not empty, and no training of this command began there: {cure}")
        for path in paths:
            name = path.relative_to(output).as_posix()
            if path.is_symlink() or not (path.is_dir() or name == kind.started or re.fullmatch(kind.replaceable, name)):
                raise ConfigError(
                    f"a training runs in {output}, or ran there without a checkpoint; the folder also holds {name}, "
                    f"which a new start would not replace: {cure}"
                )
        return paths
    return []


def _is_note(output: Path, kind: Kind) -> bool:
    try:
        return (output / kind.started).read_text(encoding="utf-8") == kind.note
    except (OSError, UnicodeDecodeError):
        return False
