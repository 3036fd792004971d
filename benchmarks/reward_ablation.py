"""What each part of the reward changes: task alone, with reflection, with behaviour too (the paper's Table 5).

    python -m benchmarks.reward_ablation START [--steps 30] [--seed 0] [--out DIR]

START is a folder that ``examples/learn_by_acting.py --out`` left: its imitated model is the start of three trainings
that differ in the weights of the reward alone. Prints JSON: greedy held-out episodes before and after (score by both
judges, turns, images, share of valid and of good episodes, and the reward with all its parts, whatever was trained on),
and the calls of each tool over the last tenth of the steps.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "examples"))
import learn_by_acting  # noqa: E402 - an example is no package

VARIANTS = {
    "task": {"beta": 0.0, "gamma": 0.0},
    "task + reflection": {"gamma": 0.0},
    "task + reflection + behaviour": {},
}
SHOWN = (
    "eval_score",
    "eval_mean_score",
    "eval_mean_turns",
    "eval_mean_images",
    "eval_valid_share",
    "eval_passed_share",
    "eval_full_reward",
)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="What each part of the reward changes.")
    parser.add_argument("start", type=Path, metavar="START", help="folder that learn_by_acting.py --out left")
    parser.add_argument("--steps", type=int, default=30, help="steps of each training (default 30)")
    parser.add_argument("--seed", type=int, default=0, help="of all three trainings (default 0)")
    parser.add_argument("--out", type=Path, metavar="DIR", help="keep the trainings there")
    options = parser.parse_args()
    model = (options.start / "sft" / "model").resolve()
    if not model.is_dir():
        parser.error(f"{model} does not exist: name a folder that examples/learn_by_acting.py --out left")
    os.environ.update(OMP_NUM_THREADS="1")
    with tempfile.TemporaryDirectory() as scratch:
        folder = (options.out or Path(scratch)).resolve()
        print(json.dumps({name: variant(name, model, folder, options) for name in VARIANTS}, indent=2))


def variant(name: str, model: Path, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """One training; its figures."""
    place = folder / name.replace(" + ", "-")
    (place / "sft").mkdir(parents=True)
    (place / "sft" / "model").symlink_to(model)
    weights = [part for key, value in VARIANTS[name].items() for part in ("--set", f"reward.{key}={value}")]
    plan = replace(learn_by_acting.FULL, steps=options.steps)
    learn_by_acting.act(plan, place, options.seed, lambda text: print(name, text, file=sys.stderr), weights)
    return summary(json.loads((place / "grpo" / "history.json").read_text(encoding="utf-8")))


def summary(history: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Held-out figures before and after, and the tools' calls an episode at the end."""
    measured = [entry for entry in history if "eval_reward" in entry]
    acted = [entry for entry in history if "reward/total" in entry]
    last = acted[-max(1, len(acted) // 10) :]
    held_out = {
        when: {key.removeprefix("eval_"): round(entry[key], 3) for key in SHOWN if key in entry}
        for when, entry in (("before", measured[0]), ("after", measured[-1]))
    }
    calls = {key.removeprefix("tools/"): fmean(entry[key] for entry in last) for key in last[0] if key[:6] == "tools/"}
    return held_out | {"calls": {name: round(value, 2) for name, value in calls.items()}, "steps": len(acted)}


if __name__ == "__main__":
    main()
