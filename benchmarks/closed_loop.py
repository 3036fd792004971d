"""Does the loop close? Share of samples that pass after one image, and after refinement, on real photos.

    python -m benchmarks.closed_loop --data DIR [--photos 4] [--seeds 1] [--keep RUNS]

``--data`` is a folder in MVTec layout (CATEGORY/train/good/*.png). Every task runs twice: with refinement (up to
three images), and as a control with the first prompt unchanged and three seeds, of which the best counts; so
what refinement adds beyond drawing again can be read off. Prints JSON; ``--keep`` writes the runs' folders.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections import defaultdict
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import anyio

from agent.episode import Episode
from agent.loop import run_episode
from agent.output import result_of, write_run
from agent.policies.planner import Planner
from agent.session import SessionWriter
from agent.task import Task
from agent.toolbox import Toolbox, builtin_server

TYPES = {
    "ball_screw": ("pitting", "scratch", "rust"),
    "cookie": ("broken", "crack", "hole", "burnt spot"),
    "hazelnut_toy": ("colour", "crack", "hole", "cut"),
    "leather_patch": ("cut", "hole", "wrinkle", "scratch", "stain"),
    "magnetic_tile": ("blowhole", "crack", "break", "fray", "uneven"),
    "metal_plate": ("scratch", "rust", "dent", "broken edge"),
    "pcb_deeppcb": ("open", "short", "scratch", "contamination"),
}
ITEMS = {"leather_patch": "leather", "pcb_deeppcb": "pcb"}
DRAWS = 3


@dataclass(frozen=True)
class Outcome:
    """One task: the scores of its images in order, and the best of as many draws with the first prompt."""

    category: str
    anomaly_type: str
    scores: list[float]
    drawn: list[float]
    masked: bool
    seconds: float
    error: str | None


def main() -> int:
    """Run the tasks and print the shares."""
    parser = argparse.ArgumentParser(description="Share of samples that pass before and after refinement.")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--photos", type=int, default=4, help="photos per category and type")
    parser.add_argument("--skip", type=int, default=0, help="photos to leave out first (a held-out set)")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--threshold", type=float, default=7.0)
    parser.add_argument("--category", action="append", default=[])
    parser.add_argument("--no-control", action="store_true")
    parser.add_argument("--keep", type=Path)
    options = parser.parse_args()
    if not options.data.is_dir():
        parser.error(f"{options.data} is no folder: name one in MVTec layout")
    refused = refusal(options)
    if refused:
        parser.error(refused)
    outcomes = anyio.run(run_all, options)
    print(json.dumps(summary(outcomes, options), indent=2))
    return 0


def refusal(options: argparse.Namespace) -> str | None:
    """Why nothing can be run, or None: no category with photos, or one of which ``--skip`` leaves none."""
    found = {category: len(photos_of(options, category)) for category in chosen(options)}
    if not any(found.values()):
        return f"{options.data} holds no photo in CATEGORY/train/good: the categories are {', '.join(TYPES)}"
    least = min(count for count in found.values() if count)
    if not 0 <= options.skip < least:
        return f"--skip {options.skip} leaves no photo of a category: 0 to {least - 1}"
    return None


def chosen(options: argparse.Namespace) -> list[str]:
    """The categories to run."""
    return [category for category in TYPES if not options.category or category in options.category]


def photos_of(options: argparse.Namespace, category: str) -> list[Path]:
    """All normal photos of a category, by name."""
    return sorted((options.data / category / "train" / "good").glob("*.png"))


async def run_all(options: argparse.Namespace) -> list[Outcome]:
    """All tasks over one connection to the tools."""
    outcomes = []
    async with Toolbox([builtin_server([options.data])]) as toolbox:
        for category in chosen(options):
            photos = photos_of(options, category)[options.skip :]
            for number, kind in enumerate(TYPES[category] if photos else ()):
                for i in range(options.photos):
                    photo = photos[(7 * number + 3 * i) % len(photos)]
                    for seed in range(options.seeds):
                        task = Task(str(photo.resolve()), ITEMS.get(category, category), kind, 100 * i + seed)
                        task = replace(task, threshold=options.threshold)
                        outcomes.append(await one(task, category, toolbox, options))
                        print(category, kind, photo.stem, outcomes[-1].scores, file=sys.stderr)
    return outcomes


async def one(task: Task, category: str, toolbox: Toolbox, options: argparse.Namespace) -> Outcome:
    """A task with refinement, and its control."""
    started = time.perf_counter()
    keep = None
    if options.keep:
        name = f"{category}-{task.anomaly_type}-{Path(task.image).stem}-{task.seed}".replace(" ", "_")
        keep = options.keep / name
    episode = await run(task, toolbox, keep)
    seconds = time.perf_counter() - started
    scores = [float((made.evaluation or {}).get("score", 0.0)) for made in episode.made]
    drawn = scores[:1]
    if not options.no_control:
        for draw in range(1, DRAWS):
            again = await run(replace(task, seed=task.seed + 1000 * draw, max_images=1), toolbox, None)
            drawn += [float((made.evaluation or {}).get("score", 0.0)) for made in again.made]
    return Outcome(category, task.anomaly_type, scores, drawn, episode.mask is not None, seconds, episode.error)


async def run(task: Task, toolbox: Toolbox, keep: Path | None) -> Episode:
    """One recorded episode; its folder is kept only where asked."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = keep or Path(temporary)
        with SessionWriter(folder / "session") as session:
            episode = await run_episode(task, Planner(task), toolbox, session)
        if keep:
            write_run(folder, episode, result_of(episode, "planner", {}))
    return episode


def summary(outcomes: list[Outcome], options: argparse.Namespace) -> dict[str, Any]:
    """Shares overall, by category and by type."""
    groups: dict[str, list[Outcome]] = defaultdict(list)
    for outcome in outcomes:
        groups[outcome.category].append(outcome)
    by_type: dict[str, list[Outcome]] = defaultdict(list)
    for outcome in outcomes:
        by_type[f"{outcome.category}/{outcome.anomaly_type}"].append(outcome)
    return {
        "threshold": options.threshold,
        "overall": shares(outcomes, options.threshold),
        "by_category": {name: shares(group, options.threshold) for name, group in groups.items()},
        "by_type": {name: shares(group, options.threshold) for name, group in by_type.items()},
        "errors": [f"{o.category}/{o.anomaly_type}: {o.error}" for o in outcomes if o.error],
    }


def shares(outcomes: list[Outcome], threshold: float) -> dict[str, float]:
    """Pass shares of a group: the first image, the best after refinement, the best of as many plain draws."""
    count = len(outcomes)

    def share(passed: list[bool]) -> float:
        return round(sum(passed) / count, 3)

    return {
        "tasks": count,
        "passed_after_one_image": share([bool(o.scores) and o.scores[0] >= threshold for o in outcomes]),
        "passed_after_refinement": share([max(o.scores, default=0) >= threshold for o in outcomes]),
        "passed_by_drawing_again": share([max(o.drawn, default=0) >= threshold for o in outcomes]),
        "with_mask": share([o.masked for o in outcomes]),
        "mean_first_score": round(sum(o.scores[0] if o.scores else 0 for o in outcomes) / count, 2),
        "mean_best_score": round(sum(max(o.scores, default=0) for o in outcomes) / count, 2),
        "images_per_task": round(sum(len(o.scores) for o in outcomes) / count, 2),
        "seconds_per_task": round(sum(o.seconds for o in outcomes) / count, 2),
    }


if __name__ == "__main__":
    sys.exit(main())
