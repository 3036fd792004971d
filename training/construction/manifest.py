"""``manifest.json`` beside the sessions: what was made, of what, with which options and code, and what was left out."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from agent.session import write_atomic
from training.errors import TrainingError

FORMAT = "anomaly-agent trajectories 1"
NAME = "manifest.json"
SAID = {
    "data": "data from another folder",
    "split": "a split file of another name",
    "photos": "other photos",
    "categories": "other categories",
    "count": "another --count",
    "weights": "other weights",
    "seed": "another seed",
    "backends": "other backends",
    "code": "another release's code",
}
"""How a run differs from an earlier one, by the option."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the manifest: a session, or what became of it instead (``skipped``: the reason, "" for a session).

    ``session``: its folder's name, "" where the photo itself was left out. ``source``: the real photo below the data
    folder. ``type`` and ``wanted``: "single", "dual" or "triple" as made and as drawn. ``knowledge``: asks for
    knowledge. ``scores``: of its images in order.
    """

    session: str
    source: str
    category: str
    kind: str
    type: str = ""
    wanted: str = ""
    knowledge: bool = False
    threshold: float = 0.0
    scores: tuple[float, ...] = ()
    simulated: tuple[str, ...] = ()
    skipped: str = ""


@cache
def code_version() -> str:
    """The package's version and twelve hexadecimal digits over this folder's code."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return f"{version('anomaly-agent')}+{digest.hexdigest()[:12]}"


def summary(
    options: Mapping[str, Any],
    entries: Sequence[Entry],
    servers: Sequence[Mapping[str, Any]],
    donors: Mapping[str, Sequence[str]],
) -> dict[str, Any]:
    """The manifest's content. ``donors``: good photos that reverse synthesis could draw on, by category."""
    made = [entry for entry in entries if not entry.skipped]
    several = [entry for entry in made if entry.type != "single"]
    simulated = Counter(text.split(":")[0] for entry in made for text in entry.simulated)
    return {
        "format": FORMAT,
        "code": code_version(),
        "servers": list(servers),
        "options": dict(options),
        "donors": {category: list(photos) for category, photos in donors.items()},
        "sessions": len(made),
        "sources": len({entry.source for entry in made}),
        "by_type": dict(sorted(Counter(entry.type for entry in made).items())),
        "with_knowledge": sum(entry.knowledge for entry in made),
        "several_without_knowledge": sum(not entry.knowledge for entry in several),
        "fewer_attempts_than_drawn": sum(entry.type != entry.wanted for entry in made),
        "by_category": dict(sorted(Counter(entry.category for entry in made).items())),
        "by_kind": dict(sorted(Counter(f"{entry.category}/{entry.kind}" for entry in made).items())),
        "by_threshold": {f"{value:g}": n for value, n in sorted(Counter(entry.threshold for entry in made).items())},
        "simulated": dict(sorted(simulated.items())),
        "skipped": dict(Counter(entry.skipped.split(": ")[0] for entry in entries if entry.skipped).most_common()),
        "entries": [asdict(entry) for entry in entries],
    }


def write_manifest(folder: Path, content: Mapping[str, Any]) -> None:
    """Write it. Raises OSError."""
    write_atomic(folder / NAME, (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode())


def earlier(folder: Path, options: Mapping[str, Any]) -> dict[str, Entry]:
    """Sessions and left-out photos of an earlier run into the folder, by session or source; {} where there was none.

    Raises TrainingError where it was made with other options or code, or cannot be read.
    """
    path = folder / NAME
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        entries = [Entry(**{**entry, "scores": tuple(entry["scores"]), "simulated": tuple(entry["simulated"])})
                   for entry in content["entries"]]  # fmt: skip
        before = dict(content["options"], code=content["code"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TrainingError(f"{path} cannot be read: choose another --out") from error
    now = dict(options, code=code_version())
    for name in now:
        if before.get(name) != now[name]:
            how = SAID.get(name, f"another {name}")
            raise TrainingError(f"{folder} was made with {how}: choose another --out, or remove it")
    return {entry.session or entry.source: entry for entry in entries}
