"""Which images open sessions use, so that no process removes what another still needs.

A process that uses the store notes every handle in a file of its own under ``leases/``, locked for as long as the
process lives. A file whose lock is free belongs to a process that ended, and counts no more.
"""

from __future__ import annotations

import math
import os
import secrets
import threading
import time
from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout

RENEWED = 60.0
"""Seconds after which a use is noted again."""
COMPACT = 4096
"""Lines from which a file with mostly old notes is written anew."""


class Lease:
    """The images that this process uses. ``keep``: seconds for which a use counts, infinite for one session."""

    def __init__(self, home: Path, keep: float = math.inf) -> None:
        self._folder = home / "leases"
        self._keep = keep
        self._uses: dict[str, float] = {}
        self._lines = 0
        self._file: Path | None = None
        self._held: FileLock | None = None
        self._guard = threading.Lock()

    def note(self, handle: str) -> bool:
        """Note a use; whether it was worth noting (the last note is older than ``RENEWED`` seconds).

        Raises OSError where the store cannot be written.
        """
        now = time.time()
        with self._guard:
            if now - self._uses.get(handle, -math.inf) < RENEWED:
                return False
            if self._file is None:
                self._file = self._open()
            self._uses[handle] = now
            with self._file.open("a") as stream:
                stream.write(f"{handle} {now:.3f} {self._keep:g}\n")
            self._lines += 1
            if self._lines > COMPACT:
                self._compact(self._file, now)
        return True

    def _open(self) -> Path:
        self._folder.mkdir(parents=True, exist_ok=True)
        file = self._folder / f"{os.getpid()}-{secrets.token_hex(4)}.txt"
        held = FileLock(f"{file}.lock", thread_local=False)
        held.acquire(timeout=0)
        self._held = held
        file.touch()
        return file

    def _compact(self, file: Path, now: float) -> None:
        self._uses = {handle: used for handle, used in self._uses.items() if now - used < max(self._keep, RENEWED)}
        fresh = file.with_suffix(".new")
        fresh.write_text("".join(f"{handle} {used:.3f} {self._keep:g}\n" for handle, used in self._uses.items()))
        os.replace(fresh, file)
        self._lines = len(self._uses) // 2  # so that many live notes are not written anew at every use


def in_use(home: Path) -> set[str]:
    """Handles that living processes have noted and that still count; files of processes that ended are removed."""
    now = time.time()
    found = set()
    for file in sorted((home / "leases").glob("*.txt")):
        if _ended(file):
            continue
        with suppress(OSError):
            for line in file.read_text().splitlines():
                handle, used, keep = (*line.split(), "", "")[:3]
                if keep and now - float(used) < float(keep):
                    found.add(handle)
    return found


def _ended(file: Path) -> bool:
    """Whether the process of a lease file is gone; if so, its file is removed."""
    lock = FileLock(f"{file}.lock", thread_local=False)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return False
    try:
        file.unlink(missing_ok=True)
    finally:
        lock.release()
        Path(f"{file}.lock").unlink(missing_ok=True)
    return True
