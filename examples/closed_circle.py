"""The whole circle on a laptop: record, learn, serve, act.

    python examples/closed_circle.py [--quick] [--json] [--data DIR] [--seed N] [--out DIR]

The planner records sessions on rendered photos (with --data, trajectories are also built from real defects in MVTec
layout). A tiny Qwen3-VL is fine-tuned on them, served by an OpenAI-compatible server, and then drives ``agent.run`` on
photos it has never seen. What it writes is parsed and carried out as any model's would be. ``--quick`` takes some two
minutes, the whole example some ten on two cores. Needs: pip install 'anomaly-agent[train,serve-cpu]'
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import anyio
import cv2
import numpy as np

from agent.demo import render_demo_photo
from agent.loop import run_episode
from agent.policies import Policy
from agent.policies.planner import Planner
from agent.session import SessionWriter, read_session
from agent.task import Task
from agent.toolbox import Toolbox, builtin_server
from training.tiny import TinySize, make_tiny, session_texts

ROOT = Path(__file__).resolve().parent.parent
CONFIG = ROOT / "training" / "configs" / "tiny-cpu.toml"
ITEMS = (
    "flange", "washer", "bracket", "ring", "disc", "gear", "bearing", "cover", "plate", "nut", "hub", "pulley",
    "spacer", "bushing", "collar", "valve", "rotor", "cap", "wheel", "coupling",
)  # fmt: skip
ANOMALIES = ("scratch", "crack", "dent", "stain", "rust", "hole", "contamination", "burn", "cut")
SIZE = 192
"""Pixels of a photo's side; the model is shown half of it."""
PASSES = 6.0
"""Score from which an image passes: low, so that hardly an episode needs a second image. Rewriting a prompt by a
review is more than a model of two million weights learns in minutes."""
IMAGES = 2
"""Attempts an episode may make: one, and one more with a refined prompt."""
LONGEST, LONGEST_WITH_DATA = 900, 2000
"""Tokens of the longest session that is learned from; those with knowledge passages take a CPU too long."""
ENVIRONMENT = os.environ | {
    "OMP_NUM_THREADS": "1",
    "HF_HUB_OFFLINE": "1",
    "PYTHONPATH": os.pathsep.join(part for part in (str(ROOT), os.environ.get("PYTHONPATH", "")) if part),
}


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is done: sessions recorded, steps trained, episodes run, and how many items and anomalies occur.

    ``phrases``: the share of sessions in which a phrase recurs that is one token to the model. With few sessions the
    model learns their figures by heart instead of copying those it is shown, and fails on new photos, however low the
    loss is. ``held_out``: the share of photos on which the loss is measured instead.
    """

    sessions: int = 260
    steps: int = 240
    episodes: int = 20
    items: int = len(ITEMS)
    anomalies: int = len(ANOMALIES)
    batch: int = 8
    phrases: float = 0.3
    held_out: float = 0.05


QUICK = Plan(sessions=120, steps=160, episodes=3, items=1, anomalies=1, batch=4, held_out=0.0)


def render_photo(seed: int) -> np.ndarray[Any, Any]:
    """The demo's flange, turned, mirrored and lit otherwise: (SIZE, SIZE, 3) BGR uint8."""
    rng = np.random.default_rng(seed)
    photo = np.asarray(render_demo_photo(SIZE), np.float32)[:, :, ::-1] / 255
    photo = np.rot90(photo, int(rng.integers(4)))
    photo = photo[:, ::-1] if rng.random() < 0.5 else photo
    photo = photo ** rng.uniform(0.8, 1.25) * rng.uniform(0.8, 1.15) * rng.uniform(0.92, 1.08, 3)
    return np.rint(np.clip(photo, 0, 1) * 255).astype(np.uint8)


def make_tasks(plan: Plan, folder: Path, count: int, first: int) -> list[Task]:
    """Tasks on new photos, the seeds counted from ``first``."""
    folder.mkdir(parents=True, exist_ok=True)
    draw = random.Random(first)
    tasks = []
    for seed in range(first, first + count):
        photo = folder / f"{seed}.png"
        cv2.imwrite(str(photo), render_photo(seed))
        item, anomaly = draw.choice(ITEMS[: plan.items]), draw.choice(ANOMALIES[: plan.anomalies])
        tasks.append(Task(str(photo.resolve()), item, anomaly, seed=seed, threshold=PASSES, max_images=IMAGES))
    return tasks


async def record(tasks: Sequence[Task], folder: Path, make_policy: Callable[[Task], Policy] = Planner) -> None:
    """Let the planner, or another policy, carry out the tasks; one session each."""
    waiting = iter(tasks)

    async def work(toolbox: Toolbox) -> None:
        for task in waiting:
            with SessionWriter(folder / str(task.seed)) as session:
                await run_episode(task, make_policy(task), toolbox, session)

    async with Toolbox([builtin_server([Path(tasks[0].image).parent])]) as toolbox, anyio.create_task_group() as group:
        for _ in range(3):
            group.start_soon(work, toolbox)


def train(plan: Plan, sessions: Path, folder: Path, longest: int, seed: int) -> tuple[float, float]:
    """Make the tiny model, fine-tune it on sessions of at most ``longest`` tokens; the first and the last loss.

    ``seed``: of the random weights and of the order of the sessions.
    """
    size = TinySize(phrases=plan.phrases)
    make_tiny(folder / "tiny", session_texts([sessions]), size, seed)
    settings = {
        "output": json.dumps(str(folder / "sft")),
        "model.path": json.dumps(str(folder / "tiny")),
        "data.sessions": json.dumps([str(sessions)]),
        "data.max_tokens": longest,
        "train.max_steps": plan.steps,
        "train.batch_size": plan.batch,
        "train.seed": seed,
        "train.workers": 1,
        "train.save_every": plan.steps,
        "held_out.share": plan.held_out,
        "held_out.episodes": 0,
    }
    changes = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    command([sys.executable, "-m", "training.sft", str(CONFIG), *changes])
    history = json.loads((folder / "sft" / "history.json").read_text(encoding="utf-8"))
    losses = [entry["loss"] for entry in history if "loss" in entry]
    return losses[0], losses[-1]


@contextmanager
def served(model: Path, log: Path) -> Iterator[str]:
    """The URL of a server of the model, up for as long as the context lasts."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = [sys.executable, "-m", "training.serve", str(model), "--port", str(port), "--device", "cpu"]
    with open(log, "wb") as stream:
        process = subprocess.Popen(server, cwd=ROOT, env=ENVIRONMENT, stdout=stream, stderr=stream)
    try:
        url = f"http://127.0.0.1:{port}"
        wait_for(f"{url}/health", process, log)
        yield f"{url}/v1"
    finally:
        process.terminate()
        process.wait()


def wait_for(url: str, process: subprocess.Popen[bytes], log: Path, seconds: float = 180.0) -> None:
    """Wait until a server answers. Raises SystemExit with its log's end where it does not."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError:
            time.sleep(0.3)
    raise SystemExit("the server did not start:\n" + log.read_text(encoding="utf-8", errors="replace")[-2000:])


def act(task: Task, url: str, model: Path, folder: Path) -> dict[str, Any]:
    """One episode through the command, as a user would start it, told the whole task; what came of it."""
    out = folder / str(task.seed)
    options = ["--item", task.item_name, "--anomaly", task.anomaly_type, "--seed", str(task.seed), "--out", str(out)]
    policy = ["--policy", "openai", "--base-url", url, "--model", str(model), "--temperature", "0"]
    policy += ["--max-tokens", "400", "--image-side", str(SIZE // 2)]
    limits = ["--threshold", f"{task.threshold:g}", "--max-images", str(task.max_images)]
    limits += ["--max-turns", str(task.max_turns)]
    command([sys.executable, "-m", "agent.run", task.image, *options, *policy, *limits, "--json"], may_fail=True)
    end = read_session(out).end or {}
    result = json.loads((out / "result.json").read_text(encoding="utf-8"))
    answered = end.get("stop_reason") == "answered"
    return {"answered": answered, "valid": answered and end.get("repairs") == 0, "score": result["score"]}


def command(arguments: Sequence[str], may_fail: bool = False, log: Path | None = None) -> None:
    """Run a command to its end. Raises SystemExit with its last words where it fails.

    ``log``: the file that what it says goes to, as it says it.
    """
    with open(log, "w+", encoding="utf-8") if log else tempfile.TemporaryFile("w+", encoding="utf-8") as said:
        done = subprocess.run(arguments, cwd=ROOT, env=ENVIRONMENT, stdout=said, stderr=said, check=False)
        said.seek(0)
        if done.returncode and not may_fail:
            raise SystemExit(f"{' '.join(arguments[1:4])} failed:\n{said.read()[-2000:]}")


def circle(plan: Plan, data: Path | None, folder: Path, seed: int, say: Any) -> dict[str, Any]:
    """All four stages; their figures."""
    started = time.monotonic()
    sessions = folder / "sessions"
    say(f"recording {plan.sessions} sessions")
    anyio.run(record, make_tasks(plan, folder / "photos", plan.sessions, 0), sessions / "planner")
    if data:
        say(f"building trajectories from {data}")
        built = str(sessions / "constructed")
        amount = ["--make-split", "0.333", "--count", str(plan.sessions // 4), "--weights", "1,1,0"]
        command([sys.executable, "-m", "training.trajectories", str(data), "--out", built, *amount])
    say(f"training for {plan.steps} steps")
    first, last = train(plan, sessions, folder, LONGEST_WITH_DATA if data else LONGEST, seed)
    shutil.copy(folder / "sft" / "curves.png", folder / "curves.png")
    model = folder / "sft" / "model"
    unseen = make_tasks(plan, folder / "unseen", plan.episodes, 100_000)
    say(f"loss {first:.2f} -> {last:.2f}; running {plan.episodes} episodes")
    with served(model, folder / "server.log") as url, ThreadPoolExecutor(2) as pool:
        ran = list(pool.map(lambda task: act(task, url, model, folder / "runs"), unseen))
    scores = [episode["score"] for episode in ran if episode["score"] is not None]
    return {
        "loss_first": round(first, 4),
        "loss_last": round(last, 4),
        "episodes": len(ran),
        "valid_share": fmean(episode["valid"] for episode in ran),
        "answered_share": fmean(episode["answered"] for episode in ran),
        "mean_score": round(fmean(scores), 2) if scores else None,
        "seconds": round(time.monotonic() - started, 1),
    }


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(description="Record, learn, serve, act: the whole circle with a tiny Qwen3-VL.")
    parser.add_argument("--quick", action="store_true", help="one kind of task, in some two minutes")
    parser.add_argument("--data", type=Path, metavar="DIR", help="also learn from real defects in MVTec layout")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the weights and the training (default 0)")
    parser.add_argument("--out", type=Path, metavar="DIR", help="keep everything there (default: a temporary folder)")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    options = parser.parse_args(argv)
    if options.out and options.out.exists() and any(options.out.iterdir()):
        parser.error(f"{options.out} is not empty: choose another folder")
    with tempfile.TemporaryDirectory(prefix="closed-circle-") as scratch:
        folder = (options.out or Path(scratch)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        figures = circle(QUICK if options.quick else Plan(), options.data, folder, options.seed, _say)
    print(json.dumps(figures, indent=2) if options.json else "\n".join(f"{k}: {v}" for k, v in figures.items()))
    return 0


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
