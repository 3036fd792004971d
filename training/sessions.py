"""Finding sessions on disk, and the rewards that were appended to them."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from agent.session import LOG_NAME, Session, SessionError
from training.rewards import SCORER, SCORER_VERSION


def find_sessions(places: Sequence[str | Path]) -> list[Path]:
    """Session folders under the given ones, each once, sorted.

    A place is a session's folder, a run's folder, a folder that holds any number of either at any depth, or a glob
    pattern of such. Raises SessionError for a place that holds no session.
    """
    found: dict[Path, Path] = {}
    for place in places:
        path = Path(place)
        roots = [path] if path.exists() else [Path(name) for name in sorted(glob.glob(str(place), recursive=True))]
        logs = [log for root in roots for log in ([root] if root.name == LOG_NAME else root.rglob(LOG_NAME))]
        if not logs:
            raise SessionError(f"no session in {place}: name folders that agent.run wrote, or that hold such folders")
        for log in logs:
            found.setdefault(log.parent.resolve(), log.parent)
    return sorted(found.values())


def logged_totals(session: Session, config_hash: str) -> list[dict[str, Any]]:
    """The "total" reward events that this scorer appended under one configuration, oldest first, whoever judged.

    The total is the last event of every scoring, so it vouches for those before it.
    """
    key = {"component": "total", "config_hash": config_hash, "scorer": SCORER, "scorer_version": SCORER_VERSION}
    found = [event for event in session.of_type("reward") if all(event.get(name) == key[name] for name in key)]
    return [event for event in found if event.get("value") is not None]
