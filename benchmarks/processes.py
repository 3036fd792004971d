"""CPU time and memory of this process and those that it started, beside the whole machine's (from Linux' ``/proc``)."""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass, field
from pathlib import Path

TICK = os.sysconf("SC_CLK_TCK")


@dataclass(slots=True)
class Watch:
    """A thread that looks at all processes below this one every ``every`` seconds, between ``with`` and its end.

    ``cpu_seconds``: used by all of them together, ``own_seconds``: by this one; ``taken_seconds``: by all other
    processes of the machine; ``idle_seconds``: by none. ``peak_mb``: the most that they held in memory at one time
    (resident, shared pages counted in each).
    """

    every: float = 0.1
    cpu_seconds: float = 0.0
    own_seconds: float = 0.0
    taken_seconds: float = 0.0
    idle_seconds: float = 0.0
    peak_mb: float = 0.0
    _cpu: dict[int, float] = field(default_factory=dict)
    _stop: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Watch:
        self._look()
        busy, idle = machine()
        self.cpu_seconds, self.taken_seconds, self.idle_seconds = -sum(self._cpu.values()), -busy, -idle
        self.own_seconds = -self._cpu[os.getpid()]
        threading.Thread(target=self._run, daemon=True).start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        self._look()
        busy, idle = machine()
        self.cpu_seconds += sum(self._cpu.values())
        self.own_seconds += self._cpu[os.getpid()]
        self.taken_seconds += busy - self.cpu_seconds
        self.idle_seconds += idle

    def _run(self) -> None:
        while not self._stop.wait(self.every):
            self._look()

    def _look(self) -> None:
        resident = 0
        for pid in family(os.getpid()):
            try:
                fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue  # it ended just now
            self._cpu[pid] = (int(fields[11]) + int(fields[12])) / TICK
            resident += int(fields[21]) * os.sysconf("SC_PAGE_SIZE")
        self.peak_mb = max(self.peak_mb, resident / 2**20)


def machine() -> tuple[float, float]:
    """CPU seconds that all cores together have worked and idled (waiting for disks included) since the start."""
    user, nice, system, idle, waiting, *others = Path("/proc/stat").read_text().splitlines()[0].split()[1:9]
    return sum(map(int, (user, nice, system, *others))) / TICK, (int(idle) + int(waiting)) / TICK


def family(pid: int) -> list[int]:
    """Process ids of a process and of all below it."""
    try:
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
        children = [int(part) for task in tasks for part in (task / "children").read_text().split()]
    except OSError:
        return [pid]
    return [pid, *(below for child in children for below in family(child))]
