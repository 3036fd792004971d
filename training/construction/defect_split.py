"""Which photos of real defects training may use; everything else is test and is never touched.

The paper takes the first third of the anomalous images of each type. Here too, but by source photograph: all windows
of one photograph, of whatever kind, lie on one side, else a test image would have been seen in training.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from agent.session import write_atomic
from training.construction.defects import Defect
from training.errors import TrainingError

FORMAT = "anomaly-agent split 1"


def make_split(defects: Sequence[Defect], fraction: float) -> dict[str, Any]:
    """The first ``fraction`` (0-1, rounded up) of each kind's photos, and all others from the same photographs.

    Raises TrainingError for a fraction out of range.
    """
    if not 0 < fraction <= 1:
        raise TrainingError(f"--make-split {fraction:g} is out of range: choose a share above 0 and up to 1")
    kinds: dict[tuple[str, str], list[Defect]] = {}
    for defect in defects:
        kinds.setdefault((defect.category, defect.kind), []).append(defect)
    chosen: set[str] = set()
    for group in kinds.values():
        wanted = math.ceil(fraction * len(group) - 1e-9)
        for defect in group:
            taken = sum(other.source in chosen for other in group)
            if taken >= wanted:
                break
            chosen.add(defect.source)
    train = [defect.name for defect in defects if defect.source in chosen]
    return {
        "format": FORMAT,
        "fraction": fraction,
        "rule": "the first images of each type, whole source photographs at a time",
        "train": train,
        "held_out": [defect.name for defect in defects if defect.source not in chosen],
    }


def check_free(path: Path, split: dict[str, Any]) -> None:
    """Raise TrainingError where a file holds anything but this split: what it holds out may be somebody's test."""
    if not path.exists():
        return
    try:
        held = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        held = None
    if held != split:
        raise TrainingError(
            f"{path} is there already and says something else, and a split is never written over: "
            f"use it with --split {path}, or name another file or folder"
        )


def write_split(path: Path, split: dict[str, Any]) -> None:
    """Write a split as JSON where there is none yet.

    Raises TrainingError where the file holds another one (``check_free``) or cannot be written.
    """
    check_free(path, split)
    if path.exists():
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, (json.dumps(split, indent=1, ensure_ascii=False) + "\n").encode())
    except OSError as error:
        raise TrainingError(f"{path} cannot be written ({error.strerror}): name another file") from error


def read_split(path: Path) -> dict[str, Any]:
    """A split file. Raises TrainingError where it is none, or names a photo both for training and as held out."""
    try:
        split = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise TrainingError(f"{path} cannot be read ({error.strerror}): make one with --make-split") from error
    except ValueError as error:
        raise TrainingError(f"{path} is no JSON: make one with --make-split") from error
    lists = [split.get(name) for name in ("train", "held_out")] if isinstance(split, dict) else [None]
    if not all(isinstance(names, list) and all(isinstance(name, str) for name in names) for names in lists):
        raise TrainingError(f'{path} is no split: it needs lists "train" and "held_out": make one with --make-split')
    if split.get("format") != FORMAT:
        raise TrainingError(f'{path} is no split of this release: its "format" is not "{FORMAT}": make one anew')
    if both := sorted({*split["train"]} & {*split["held_out"]}):
        raise TrainingError(f"{path} names {both[0]} in train and in held_out: strike it from one of them")
    return dict(split)


def allowed(defects: Sequence[Defect], split: dict[str, Any], path: Path) -> list[Defect]:
    """The defects that the split lets training use.

    Raises TrainingError where it names photos that are not there, or where one photograph is on both sides.
    """
    names = {defect.name for defect in defects}
    train = set(split["train"])
    categories = {defect.category for defect in defects}
    if lost := sorted(name for name in train - names if name.split("/")[0] in categories):
        raise TrainingError(f"{path} names {lost[0]}, which is not there: make the split anew for this data")
    held_out = {defect.source for defect in defects if defect.name not in train}
    chosen = [defect for defect in defects if defect.name in train]
    if torn := next((defect for defect in chosen if defect.source in held_out), None):
        raise TrainingError(
            f"{path} takes {torn.name}, but other images of its photograph are held out: make the split anew"
        )
    if not chosen:
        raise TrainingError(f"{path} lets none of these photos be used: name other categories, or make a larger split")
    return chosen


def fingerprint(defects: Sequence[Defect]) -> str:
    """Twelve hexadecimal digits over the names of the defects, in any order."""
    return hashlib.sha256("\n".join(sorted(defect.name for defect in defects)).encode()).hexdigest()[:12]
