"""Keeps the image store within its size: the images that were used longest ago go first, those in use never.

A victim is renamed first and removed only if nobody has noted a use meanwhile; who uses an image notes it first and
looks for the file then. So either the user finds it gone at once, or the cleaner sees the note and puts it back.
"""

from __future__ import annotations

import logging
import os
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from mcp_servers.leases import in_use

GRACE = 3600.0
"""Seconds for which an image is kept after its last use, whoever used it: handles travel between programs."""
LOW_WATER = 0.9
"""Share of the limit down to which is cleaned, so that not every new image cleans again."""
BATCH = 64

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Cleaned:
    """What one cleaning did: images and bytes removed, bytes that are left."""

    images: int
    freed: int
    left: int


def clean(home: Path, limit: int, grace: float = GRACE) -> Cleaned | None:
    """Bring the store's images under ``limit`` bytes; None where another process is cleaning at this moment."""
    lock = FileLock(home / ".cleaning.lock", thread_local=False)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return None
    try:
        return _clean(home, limit, grace)
    finally:
        lock.release()


def _clean(home: Path, limit: int, grace: float) -> Cleaned:
    folder = home / "images"
    for left_over in folder.glob("*/.*.removed"):  # of a cleaner that was killed
        left_over.unlink(missing_ok=True)
    for unfinished in folder.glob("*/.*.tmp"):  # of a writer that was killed, unless one is at it now
        with suppress(FileNotFoundError):
            if unfinished.stat().st_mtime < time.time() - GRACE:
                unfinished.unlink()
    images: list[tuple[float, int, Path]] = []
    for path in folder.glob("*/*.png"):
        with suppress(FileNotFoundError):
            status = path.stat()
            images.append((status.st_mtime, status.st_size, path))
    total = before = sum(size for _, size, _ in images)
    removed = 0
    if total > limit:
        old = time.time() - grace
        held = in_use(home)
        victims = [image for image in sorted(images) if image[0] < old and image[2].stem not in held]
        while victims and total > LOW_WATER * limit:
            chosen: list[tuple[float, int, Path]] = []
            excess = total - LOW_WATER * limit
            while victims and excess > 0 and len(chosen) < BATCH:
                chosen.append(victims.pop(0))
                excess -= chosen[-1][1]
            gone = _remove([path for _, _, path in chosen], home)
            total -= sum(size for _, size, path in chosen if path in gone)
            removed += len(gone)
        if total > limit:
            logger.warning(
                "the image store has %d MB, %d more than its limit, all in use: raise --store-gb",
                total // 10**6,
                (total - limit) // 10**6,
            )
    return Cleaned(removed, before - total, total)


def _remove(paths: list[Path], home: Path) -> set[Path]:
    """Remove images that nobody has begun to use meanwhile; which ones went."""
    aside = {}
    for path in paths:
        hidden = path.with_name(f".{path.name}.removed")
        with suppress(FileNotFoundError):
            os.replace(path, hidden)
            aside[path] = hidden
    held = in_use(home)
    gone = set()
    for path, hidden in aside.items():
        if path.stem in held:
            os.replace(hidden, path)
        else:
            hidden.unlink(missing_ok=True)
            gone.add(path)
    return gone
