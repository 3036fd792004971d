"""The closed loop as users run it, for ``speed.py``: the planner over MCP, the tools in a process of their own."""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import anyio
import cv2

from agent.loop import run_episode
from agent.policies.planner import Planner
from agent.session import SessionWriter
from agent.task import Task
from agent.toolbox import Toolbox, builtin_server
from benchmarks.speed_generators import Job


def time_loop(work: Sequence[Job]) -> dict[str, Any]:
    """CPU time of both processes and wall time of a recorded episode, and how many ended with a mask and passed.

    The CPU time of starting and stopping the server, measured on its own, is taken off.
    """
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        idle, _, _ = anyio.run(_episodes, [], folder)
        busy, walls, passed = anyio.run(_episodes, work, folder)
    cpu = max(1e-6, busy - idle)
    return {
        "samples_per_cpu_second": round(passed / cpu, 2),
        "passed": f"{passed} of {len(work)}",
        "cpu_ms_per_sample": round(1000 * cpu / len(work), 1),
        "wall_ms_median": round(1000 * statistics.median(walls), 1),
        "server_start_cpu_ms": round(1000 * idle, 1),
    }


async def _episodes(work: Sequence[Job], folder: Path) -> tuple[float, list[float], int]:
    """CPU seconds of this process and the server it starts, wall seconds of each episode, and how many passed."""
    walls, passed = [], 0
    photos = []
    for job in work:
        photos.append(folder / f"{job.item}-{job.kind}-{job.seed}.png".replace(" ", "_"))
        cv2.imwrite(str(photos[-1]), job.photo[:, :, ::-1])
    os.environ["ANOMALY_AGENT_HOME"] = str(folder / "home")
    before = _cpu()
    async with Toolbox([builtin_server([folder])]) as toolbox:
        for number, (job, photo) in enumerate(zip(work, photos, strict=True)):
            started = time.perf_counter()
            task = Task(str(photo), job.item, job.kind, job.seed)
            with SessionWriter(folder / f"session-{number}") as session:
                episode = await run_episode(task, Planner(task), toolbox, session)
            walls.append(time.perf_counter() - started)
            scores = [float((made.evaluation or {}).get("score", 0.0)) for made in episode.made]
            passed += episode.mask is not None and max(scores, default=0.0) >= task.threshold
    return _cpu() - before, walls, passed


def _cpu() -> float:
    """CPU seconds of this process and of its children that have ended."""
    used = os.times()
    return used.user + used.system + used.children_user + used.children_system
