"""CPU time, waiting for a core, and memory of this process and of those that it started, from Linux' ``/proc``."""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass, field
from pathlib import Path

TICK = os.sysconf("SC_CLK_TCK")


@dataclass(slots=True)
class Watch:
    """A thread that looks at all processes below this one every ``every`` seconds, between ``with`` and its end.

    ``cpu_seconds``: used by all of them together. ``starved_seconds``: how long their threads were ready to run and
    had no core, because of each other or of what else ran on the machine. ``peak_mb``: the most that all of them held
    in memory at one time (resident, shared pages counted in each).
    """

    every: float = 0.1
    cpu_seconds: float = 0.0
    starved_seconds: float = 0.0
    peak_mb: float = 0.0
    _cpu: dict[int, float] = field(default_factory=dict)
    _starved: dict[tuple[int, int], float] = field(default_factory=dict)
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def __enter__(self) -> Watch:
        self._look()
        before = sum(self._cpu.values()), sum(self._starved.values())
        self.cpu_seconds, self.starved_seconds = -before[0], -before[1]
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._look()
        self._stop.set()
        self.cpu_seconds += sum(self._cpu.values())
        self.starved_seconds += sum(self._starved.values())

    def _run(self) -> None:
        while not self._stop.wait(self.every):
            self._look()

    def _look(self) -> None:
        resident = 0
        for pid in family(os.getpid()):
            try:
                fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
                self._cpu[pid] = (int(fields[11]) + int(fields[12])) / TICK
                resident += int(fields[21]) * os.sysconf("SC_PAGE_SIZE")
                for task in Path(f"/proc/{pid}/task").iterdir():
                    self._starved[pid, int(task.name)] = int((task / "schedstat").read_text().split()[1]) / 1e9
            except (OSError, IndexError):
                continue  # it ended just now
        self.peak_mb = max(self.peak_mb, resident / 2**20)


def family(pid: int) -> list[int]:
    """Process ids of a process and of all below it."""
    try:
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
        children = [int(part) for task in tasks for part in (task / "children").read_text().split()]
    except OSError:
        return [pid]
    return [pid, *(below for child in children for below in family(child))]
