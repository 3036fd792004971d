"""How much of the machine many episodes at once make use of, while their image editor is slow.

    python -m benchmarks.concurrency [--episodes 64] [--wait 2] [--side 384] [--processes 2] [--instant]

Runs so many episodes of the built-in planner at once, on photos of side x side pixels, over the real tools in processes
of their own; image_gen waits ``--wait`` seconds for each image without using the CPU, as a remote editor would, and
then draws it. ``--instant``: all tools answer without looking, which leaves the loop's own overhead. Prints JSON:
``wall_s``; ``ideal_s``, the larger of the longest chain of waiting (wait x images of the longest episode) and of all
CPU seconds over the cores; their ratio; ``taken_s``, the CPU time that all other processes of the machine took
meanwhile, over the cores (0 on an idle machine), and ``idle_s``, what nobody took; and the peak memory of all processes
together. Starting the servers is not measured; sessions are written as always.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import anyio

from agent.demo import render_demo_photo
from agent.many import Finished, run_many
from agent.policies.planner import Planner
from agent.task import StopReason, Task
from agent.toolbox import Server, Toolbox
from benchmarks.processes import Watch

SERVER = Path(__file__).resolve().parent.parent / "tests" / "servers" / "paid.py"
TYPES = ("scratch", "dent", "rust", "stain", "crack", "hole", "broken edge", "contamination")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Many episodes at once while the editor is slow.")
    parser.add_argument("--episodes", type=int, default=64)
    parser.add_argument("--wait", type=float, default=2.0, help="seconds for which image_gen waits")
    parser.add_argument("--side", type=int, default=384, help="photo's width and height in pixels")
    parser.add_argument("--photos", type=int, default=8, help="different photos")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1, help="processes of the tool server")
    parser.add_argument("--instant", action="store_true", help="tools that answer without looking")
    options = parser.parse_args()
    if min(options.episodes, options.photos, options.processes) < 1 or options.side < 128 or options.wait < 0:
        parser.error("--episodes, --photos and --processes are at least 1, --side at least 128, --wait at least 0")
    with tempfile.TemporaryDirectory() as folder:
        report = anyio.run(measure, options, Path(folder))
    print(json.dumps(report, indent=2))


async def measure(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Run the episodes and sum up."""
    jobs = make_tasks(options, folder)
    manner = ",instant" if options.instant else ""
    tools = [f"image_gen=wait:{options.wait}{manner}"]
    tools += [f"{name}=instant" for name in ("prompt_gen", "quality_eval", "mask_gen") if options.instant]
    command = [sys.executable, str(SERVER), "--allow", str(folder), "--calls", str(folder / "calls.txt"), *tools]
    env = {"PYTHONPATH": str(SERVER.parent.parent.parent), "ANOMALY_AGENT_HOME": str(folder / "home")}
    env |= {"OMP_NUM_THREADS": "1"}
    done: list[Finished] = []
    async with Toolbox([Server(command=command, env=env)], processes=options.processes) as toolbox:
        await toolbox.open_photo(jobs[0].image)
        named = lambda number, task: folder / "sessions" / str(number)  # noqa: E731
        with Watch() as watch:
            started = time.perf_counter()
            async with run_many(jobs, Planner, toolbox, named, limit=options.episodes) as finished:
                async for one in finished:
                    done.append(one)
            wall = time.perf_counter() - started
    return summary(options, done, wall, watch)


def make_tasks(options: argparse.Namespace, folder: Path) -> list[Task]:
    """Tasks over photos of the demo's flange, each photo cut a little differently."""
    photos = []
    whole = render_demo_photo(max(128, options.side + 2 * options.photos))
    for number in range(options.photos):
        photos.append(folder / f"photo-{number}.png")
        whole.crop((number, number, number + options.side, number + options.side)).save(photos[-1])
    return [
        Task(str(photos[number % options.photos]), "flange", TYPES[number % len(TYPES)], seed=number)
        for number in range(options.episodes)
    ]


def summary(options: argparse.Namespace, done: list[Finished], wall: float, watch: Watch) -> dict[str, Any]:
    """The figures as they are printed."""
    cores = os.cpu_count() or 1
    chain = options.wait * max(len(one.episode.made) for one in done)
    cpu = watch.cpu_seconds / cores
    ideal = max(chain, cpu)
    return {
        "episodes": len(done),
        "answered": sum(one.episode.stop_reason is StopReason.ANSWERED for one in done),
        "images": sum(len(one.episode.made) for one in done),
        "server_processes": options.processes,
        "cores": cores,
        "wall_s": round(wall, 2),
        "ideal_s": round(ideal, 2),
        "wall_over_ideal": round(wall / ideal, 3),
        "waiting_chain_s": round(chain, 2),
        "cpu_s": round(watch.cpu_seconds, 2),
        "cpu_s_of_the_agent": round(watch.own_seconds, 2),
        "cpu_s_over_cores": round(cpu, 2),
        "taken_s_over_cores": round(watch.taken_seconds / cores, 2),
        "idle_s_over_cores": round(watch.idle_seconds / cores, 2),
        "peak_memory_mb": round(watch.peak_mb),
        "one_after_another_s": round(sum(one.episode.seconds for one in done), 1),
    }


if __name__ == "__main__":
    main()
