"""Folders that a command writes to: whether it can is known before anything is measured."""

from __future__ import annotations

import tempfile
from pathlib import Path

from evaluation.errors import EvaluationError


def prepare(option: str, folder: Path | None) -> None:
    """Make a folder, where one is named, and try it. Raises EvaluationError, which names the option, otherwise."""
    if folder is None:
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        reason = "is a file" if folder.is_file() else f"cannot be written to ({error.strerror})"
        raise EvaluationError(f"{option} {folder} {reason}: name another folder") from error
