"""One GRPO step's rollouts while the image editor is slow, beside TRL's own loop over environments.

    python -m benchmarks.rollouts --json [--groups 4] [--size 8] [--wait 2] [--instant] [--repeat 3] [--no-trl]

Rolls out groups x size episodes of five turns (prompt, edit, judge, mask, answer) over the real tool servers, as a
step of ``python -m training.grpo`` does, and the same number through TRL's ``environment_factory``. Two things are
simulated: image_gen waits ``--wait`` seconds without using the CPU, as a remote editor would, before it draws; and the
turns are given (``rollout_script.py``), so that both do the same work and no model is waited for. All else is as in
training: servers, the encoding of every prompt with its pictures, recorded sessions, rewards. ``ours_generating``: a
tiny Qwen3-VL with random weights works for every token of the turns, too. ``--instant``: all tools answer without
looking, so that the wait and the project's own work are what remains.

Prints JSON. ``ratio`` of ours: wall time over the longest rollout of the same step; of TRL: over the seconds that the
tools of its slowest episode took, which has to wait for all others'. ``wall_over_ideal``: over what this machine could
do at best, the larger of one wait and of all CPU seconds over the cores. Where the CPU is what bounds a step, all of
its episodes are slow together and ``ratio`` stays near 1: it tells waiting for one another, ``wall_over_ideal`` the
rest. ``trl_over_ours``: TRL's wall time over the median of ours. ``tool_s``: seconds of all calls together;
``batches``: how often turns were generated; ``taken_s_over_cores``: CPU time that other programs took meanwhile (0 on
an idle machine), ``idle_s_over_cores``: what nobody took. Of ours, the least and the median of each figure over
``--repeat`` steps; generating and TRL are measured once.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from agent.demo import render_demo_photo
from agent.session import read_session
from agent.task import StopReason, Task
from agent.toolbox import server_of
from benchmarks.processes import Watch
from benchmarks.rollout_script import ANOMALY, ITEM, ComputingBatcher, ScriptedBatcher
from training.config import ModelSection
from training.encoding import Encoder
from training.generation import Sampling
from training.grpo.config import GrpoConfig, GrpoSection, TasksSection, ToolsSection
from training.grpo.rollouts import Rollouts, Timing
from training.model import load_model, load_processor
from training.tiny import SIZES, make_tiny

SERVER = Path(__file__).resolve().parent.parent / "tests" / "servers" / "paid.py"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="One GRPO step's rollouts while the image editor is slow.")
    parser.add_argument("--json", action="store_true", help="print JSON (the only form there is)")
    parser.add_argument("--groups", type=int, default=4, help="tasks of the step")
    parser.add_argument("--size", type=int, default=8, help="rollouts of a task")
    parser.add_argument("--wait", type=float, default=2.0, help="seconds for which image_gen waits")
    parser.add_argument("--side", type=int, default=384, help="photo's width and height in pixels")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1, help="processes of the tool server")
    parser.add_argument("--repeat", type=int, default=3, help="steps to measure of ours")
    parser.add_argument("--instant", action="store_true", help="tools that answer without looking")
    parser.add_argument("--no-trl", action="store_true", help="leave TRL's loop out")
    options = parser.parse_args()
    if min(options.groups, options.processes, options.repeat) < 1 or options.size < 2:
        parser.error("--groups, --processes and --repeat are at least 1, --size at least 2")
    if options.side < 128 or options.wait < 0:
        parser.error("--side is at least 128, --wait at least 0")
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(measure(options, Path(folder)), indent=2))


def measure(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Roll out in every way and sum up."""
    tasks, command = make_tasks(options, folder), tool_command(options, folder)
    config = GrpoConfig(
        output=folder / "out",
        model=ModelSection(path=str(make_tiny(folder / "model", size=SIZES["smallest"])), dtype="float32"),
        tasks=TasksSection(files=[folder]),
        tools=ToolsSection(servers=[shlex.join(command)], processes=options.processes),
        grpo=GrpoSection(group_size=options.size, groups=options.groups),
    )
    model, processor = load_model(config.model), load_processor(config.model)
    encoder = Encoder(processor, config.model.image_side)
    sampling = Sampling(config.rollout.temperature, config.rollout.max_new_tokens)
    report: dict[str, Any] = {
        "episodes": options.groups * options.size,
        "image_gen_wait_s": options.wait,
        "tools": "instant" if options.instant else "real",
        "server_processes": options.processes,
        "cores": os.cpu_count(),
        "load_at_start": round(os.getloadavg()[0], 2),
    }
    with Rollouts(config, tasks, folder / "rollouts") as rollouts:
        for name, kind, repeat in (("ours", ScriptedBatcher, options.repeat), ("ours_generating", ComputingBatcher, 1)):
            batcher = kind(model, encoder, sampling, config.rollout.batch)
            steps = [one_step(rollouts, batcher, options, f"-{name}-{step}") for step in range(repeat)]
            report[name] = in_short(steps)
    if not options.no_trl:
        report["trl"] = through_trl(tasks, command, options, model, processor, folder)
        report["trl_over_ours"] = round(report["trl"]["wall_s"] / report["ours"]["wall_s"]["median"], 2)
    return report


def one_step(rollouts: Rollouts, batcher: ScriptedBatcher, options: argparse.Namespace, wave: str) -> dict[str, float]:
    """One step's rollouts, as the trainer asks for them."""
    rollouts.timing = Timing()
    batches = len(batcher.batches)
    with Watch() as watch:
        started = time.perf_counter()
        groups = rollouts.groups(batcher, range(options.groups), 0, wave)
        wall = time.perf_counter() - started
    made = [rollout for group in groups for rollout in group.rollouts]
    results = [event for rollout in made for event in read_session(rollout.session).of_type("tool_result")]
    cpu = watch.cpu_seconds / (os.cpu_count() or 1)
    return {
        "answered": sum(rollout.stop_reason == StopReason.ANSWERED.value for rollout in made),
        "tool_calls": sum(bool(event["ok"]) for event in results),
        "batches": len(batcher.batches) - batches,
        "wall_s": wall,
        "longest_rollout_s": rollouts.timing.longest,
        "ratio": wall / rollouts.timing.longest,
        "tool_s": sum(float(event["seconds"]) for event in results),
        "cpu_s_over_cores": cpu,
        "cpu_s_of_the_trainer": watch.own_seconds,
        "taken_s_over_cores": watch.taken_seconds / (os.cpu_count() or 1),
        "idle_s_over_cores": watch.idle_seconds / (os.cpu_count() or 1),
        "wall_over_ideal": wall / max(options.wait, cpu),
    }


def in_short(steps: Sequence[dict[str, float]]) -> dict[str, Any]:
    """Every figure's least and median over the steps."""
    return {
        name: {
            "min": round(min(step[name] for step in steps), 3),
            "median": round(statistics.median(step[name] for step in steps), 3),
        }
        for name in steps[0]
    }


def through_trl(
    tasks: Sequence[Task],
    command: Sequence[str],
    options: argparse.Namespace,
    model: Any,
    processor: Any,
    folder: Path,
) -> dict[str, Any]:
    """The same episodes through TRL's loop, once."""
    from benchmarks import rollouts_trl

    server, cores = server_of(shlex.join(command)), os.cpu_count() or 1
    done = rollouts_trl.measure(tasks, options.size, server, options.processes, model, processor, folder / "trl")
    cpu = done.watch.cpu_seconds / cores
    return {
        "episodes": len(done.tool_s),
        "tool_calls": done.answered,
        "wall_s": round(done.wall_s, 3),
        "longest_rollout_s": round(max(done.tool_s), 3),
        "ratio": round(done.wall_s / max(done.tool_s), 3),
        "tool_s": round(sum(done.tool_s), 3),
        "cpu_s_over_cores": round(cpu, 3),
        "cpu_s_of_the_trainer": round(done.watch.own_seconds, 3),
        "taken_s_over_cores": round(done.watch.taken_seconds / cores, 3),
        "idle_s_over_cores": round(done.watch.idle_seconds / cores, 3),
        "wall_over_ideal": round(done.wall_s / max(options.wait, cpu), 3),
    }


def make_tasks(options: argparse.Namespace, folder: Path) -> list[Task]:
    """One task a group, each on a photo of the demo's flange that is cut a little differently."""
    whole = render_demo_photo(options.side + 2 * options.groups)
    tasks = []
    for number in range(options.groups):
        path = folder / f"photo-{number}.png"
        whole.crop((number, number, number + options.side, number + options.side)).save(path)
        tasks.append(Task(str(path), ITEM, ANOMALY, seed=number))
    return tasks


def tool_command(options: argparse.Namespace, folder: Path) -> list[str]:
    """The command of the real tool suite with a slow image_gen."""
    manner = ",instant" if options.instant else ""
    tools = [f"image_gen=wait:{options.wait}{manner}"]
    tools += [f"{name}=instant" for name in ("prompt_gen", "quality_eval", "mask_gen") if options.instant]
    settings = {"PYTHONPATH": SERVER.parent.parent.parent, "ANOMALY_AGENT_HOME": folder / "home", "OMP_NUM_THREADS": 1}
    env = ["env", *(f"{name}={value}" for name, value in settings.items())]
    return [*env, sys.executable, str(SERVER), "--allow", str(folder), "--calls", str(folder / "calls.txt"), *tools]


if __name__ == "__main__":
    main()
