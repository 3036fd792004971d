"""What each part of the reward changes: task alone, with reflection, with behaviour too (the paper's Table 5).

    python -m benchmarks.reward_ablation --out DIR [--steps 30] [--seed 0]

A tiny Qwen3-VL imitates teachers that try a second time, well or badly (``second_goes.py``), with the sizes of
``examples/learn_by_acting.py``, but with most turns one token: whole turns are what is chosen among. From it start
trainings that differ in the reward alone. Prints JSON: greedy held-out episodes before and after (score by the
reporting judge and by the rewarding one, turns, images, share of valid and of passed episodes, and the reward with
all its parts, whatever was trained on), and the means of the rollouts over the last tenth of the steps. Each training
takes some ten minutes of one core; what DIR holds of an earlier run is kept.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

import anyio

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "examples"))
import closed_circle as circle  # noqa: E402 - an example is no package
import learn_by_acting  # noqa: E402

from benchmarks.second_goes import SecondGoes  # noqa: E402

LONGEST = 1400
"""Tokens of the longest session that is imitated: a second go takes some 400."""

VARIANTS: dict[str, dict[str, object]] = {
    "task": {"beta": 0.0, "gamma": 0.0},
    "task + reflection": {"gamma": 0.0},
    "task + reflection + behaviour": {},
    "the same, first image not counted": {"reflection": "paper", "count_first_image": "false"},
}
HELD_OUT = ("score", "mean_score", "mean_turns", "mean_images", "valid_share", "passed_share", "full_reward")
ROLLOUTS = ("episode/score", "episode/turns", "episode/images", "episode/valid", "reward/reflection.running_max")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="What each part of the reward changes.")
    parser.add_argument("--out", type=Path, metavar="DIR", required=True, help="the trainings stay there")
    parser.add_argument("--steps", type=int, default=30, help="steps of each training (default 30)")
    parser.add_argument("--seed", type=int, default=0, help="of all trainings (default 0)")
    options = parser.parse_args()
    os.environ.update(OMP_NUM_THREADS="1")
    folder = options.out.resolve()
    circle.PASSES = learn_by_acting.PASSES
    start = imitated(folder / "start")
    figures = {name: variant(name, start, folder / f"seed-{options.seed}", options) for name in VARIANTS}
    print(json.dumps(figures, indent=2))


def imitated(folder: Path) -> Path:
    """The folder of the model that has learned from the teachers by heart; made where it is missing."""
    if not (folder / "sft" / "model").is_dir():
        plan = replace(learn_by_acting.FULL.imitate, steps=180, phrases=0.06)
        tasks = circle.make_tasks(plan, folder / "photos", plan.sessions, 0)
        anyio.run(circle.record, tasks, folder / "sessions", SecondGoes)
        circle.train(plan, folder / "sessions", folder, LONGEST, 0)
    return folder / "sft" / "model"


def variant(name: str, start: Path, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """One training, where it is missing; its figures."""
    place = folder / "-".join(re.findall(r"\w+", name))
    history = place / "grpo" / "history.json"
    if not history.exists():
        (place / "sft").mkdir(parents=True)
        (place / "sft" / "model").symlink_to(start)
        weights = [part for key, value in VARIANTS[name].items() for part in ("--set", f"reward.{key}={value}")]
        plan = replace(learn_by_acting.FULL, steps=options.steps)
        learn_by_acting.act(plan, place, options.seed, lambda text: print(name, text, file=sys.stderr), weights)
    return summary(json.loads(history.read_text(encoding="utf-8")))


def summary(history: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Held-out figures before and after, and the rollouts' means at the end."""
    measured = [entry for entry in history if "eval_reward" in entry]
    acted = [entry for entry in history if "reward/total" in entry]
    last = acted[-max(1, len(acted) // 10) :]
    held_out = {
        when: {name: round(entry[f"eval_{name}"], 3) for name in HELD_OUT if f"eval_{name}" in entry}
        for when, entry in (("before", measured[0]), ("after", measured[-1]))
    }
    rollouts = {name: round(fmean(entry[name] for entry in last), 3) for name in ROLLOUTS if name in last[0]}
    return held_out | {"rollouts": rollouts, "steps": len(acted)}


if __name__ == "__main__":
    main()
