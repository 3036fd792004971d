"""A policy that betters itself by acting: imitation first, then reinforcement learning with the real tools.

    python examples/learn_by_acting.py [--quick] [--json] [--seed N] [--out DIR]

Sessions come from teachers of mixed care: often they do not have an image judged, ask for a defect too faint and are
content with it, or answer without a mask. A tiny Qwen3-VL is fine-tuned on them and imitates good and bad habits alike.
Then it acts: groups of episodes of the same task, through the agent's own loop and tools, rewarded for the final image,
for improvement and for how the tools were used (GRPO). Nobody tells it which habits pay. Before and after, the agent
runs greedily on photos that it never trained on, and a judge that took no part in training scores what came of it. The
whole takes some fourteen minutes on two cores, ``--quick`` some two minutes. Phrases that recur in three of ten
sessions are one token to the model; with ``--quick`` in one of ten, so that most turns are one: it shows the machinery,
not learning. Needs: pip install 'anomaly-agent[train]'
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import anyio
import closed_circle as circle

from agent.policies import Policy, Reply
from agent.policies.planner import Planner
from agent.policies.refine import step
from agent.protocol import Answer, Message, ToolCall, Turn, parse_turn, render_turn
from agent.task import Task
from training.curves import points

CONFIG = circle.ROOT / "training" / "configs" / "grpo-tiny.toml"
PASSES = 7.0
"""Score from which an image passes."""
LONGEST_TURN = 120
"""Tokens of a turn at most: the teachers need 105."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is done: what is imitated, then how many tasks and steps it acts, and on how many it is measured."""

    imitate: circle.Plan
    tasks: int = 64
    held_out: int = 16
    steps: int = 30
    groups: int = 4
    group_size: int = 8
    learning_rate: float = 5e-4
    temperature: float = 0.7
    """A model this small slips too often at 1.0, the paper's."""
    beta: float = 0.01


FULL = Plan(circle.Plan(sessions=200, steps=420, items=2, anomalies=2))
QUICK = Plan(
    circle.Plan(sessions=60, steps=60, items=1, anomalies=1, batch=4, phrases=0.1, held_out=0.0),
    tasks=8,
    held_out=3,
    steps=4,
    groups=2,
    group_size=4,
)


class MixedTeacher(Policy):
    """The planner with careless habits, drawn anew for each task: it skips the judge, asks for too little and is
    content with what comes, skips the mask. It says little, since copying figures is what a tiny model is worst at.
    """

    name = "mixed-teacher"
    SKIPS_JUDGE, ASKS_TOO_LITTLE, SKIPS_MASK = 0.55, 0.6, 0.3

    def __init__(self, task: Task) -> None:
        self._planner, self._task = Planner(task), task
        draw = random.Random(f"habits {task.seed}")
        self._skips_judge = draw.random() < self.SKIPS_JUDGE
        self._asks_too_little = draw.random() < self.ASKS_TOO_LITTLE
        self._skips_mask = draw.random() < self.SKIPS_MASK

    async def next_turn(self, messages: Sequence[Message], signatures: Sequence[dict[str, Any]] = ()) -> Reply:
        """The planner's turn, or what a careless teacher does instead."""
        tools = [message.name for message in messages if message.role == "tool"]
        image = 1 + tools.count("image_gen")
        if self._skips_judge and tools and tools[-1] in ("image_gen", "mask_gen"):
            if tools[-1] == "image_gen":
                return _turn("The image looks fine. I find its mask.", ToolCall("mask_gen", {"anomaly_image": image}))
            return _turn("The mask is there. That is it.", Answer("success", image, True, "made in one go"))
        if tools and tools[-1] == "quality_eval" and self._asks_too_little:
            return _turn("I am content with it. I find its mask.", ToolCall("mask_gen", {"anomaly_image": image}))
        reply = await self._planner.next_turn(messages, signatures)
        action = parse_turn(reply.text).action
        if isinstance(action, ToolCall) and action.name == "mask_gen":
            if self._skips_mask:
                return _turn("No mask is needed.", Answer("success", image, False, "made and judged"))
            return _turn("It is judged. I find its mask.", action)
        if isinstance(action, Answer):
            return _turn("All is there.", replace(action, synthesis_logic="made, judged and masked"))
        if isinstance(action, ToolCall) and action.name == "image_gen" and self._asks_too_little:
            faint = step(str(action.arguments["prompt"]), size=-2, severity=-2).prompt
            return _turn("I ask for a slight one.", ToolCall("image_gen", {"prompt": faint, "target_image": 1}))
        return reply


def _turn(thought: str, action: ToolCall | Answer) -> Reply:
    return Reply(render_turn(Turn(thought, action)))


def write_tasks(tasks: Sequence[Task], path: Path) -> Path:
    """A task list as ``training.grpo`` reads it."""
    path.write_text("".join(json.dumps(asdict(task)) + "\n" for task in tasks), encoding="utf-8")
    return path


def act(plan: Plan, folder: Path, seed: int, say: Any, extra: Sequence[str] = ()) -> dict[str, Any]:
    """Reinforcement learning from the model in ``folder``; the figures. ``extra``: further keys to set."""
    train = circle.make_tasks(plan.imitate, folder / "acting", plan.tasks, 200_000 + 1000 * seed)
    held_out = circle.make_tasks(plan.imitate, folder / "unseen", plan.held_out, 900_000)
    settings = {
        "output": folder / "grpo",
        "model.path": folder / "sft" / "model",
        "tasks.sessions": "[]",
        "tasks.files": json.dumps([str(write_tasks(train, folder / "acting.jsonl"))]),
        "held_out.files": json.dumps([str(write_tasks(held_out, folder / "unseen.jsonl"))]),
        "held_out.episodes": plan.held_out,
        "held_out.every": max(plan.steps // 2, QUICK.steps),
        "held_out.max_new_tokens": LONGEST_TURN,
        "rollout.max_new_tokens": LONGEST_TURN,
        "held_out.judge": "statistics",  # the built-in judge "local" rewards
        "tools.recording": folder / "tool-results",
        "rollout.temperature": plan.temperature,
        "grpo.beta": plan.beta,
        "grpo.groups": plan.groups,
        "grpo.group_size": plan.group_size,
        "train.max_steps": plan.steps,
        "train.epochs": 1000,
        "train.learning_rate": plan.learning_rate,
        "train.save_every": plan.steps,
        "train.seed": seed,
    }
    changes = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    say(f"acting for {plan.steps} steps of {plan.groups} x {plan.group_size} episodes")
    circle.command([sys.executable, "-m", "training.grpo", str(CONFIG), *changes, *extra], log=folder / "grpo.log")
    return figures(json.loads((folder / "grpo" / "history.json").read_text(encoding="utf-8")))


def figures(history: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What a training's history says: means of the first and of the last tenth of the steps, held out before and after.

    ``heldout_…`` is the reward of greedy episodes by the reporting judge, ``valid_…`` their share without a slip.
    """
    _, rewards = points(history, "reward/total")
    _, held_out = points(history, "eval_reward")
    _, valid = points(history, "eval_valid_share")
    tenth = max(1, len(rewards) // 10)
    return {
        "reward_first": round(fmean(rewards[:tenth]), 4),
        "reward_last": round(fmean(rewards[-tenth:]), 4),
        "heldout_before": round(held_out[0], 4),
        "heldout_after": round(held_out[-1], 4),
        "valid_before": valid[0],
        "valid_after": valid[-1],
        "steps": len(rewards),
    }


def learn(plan: Plan, folder: Path, seed: int, say: Any) -> dict[str, Any]:
    """Imitate, then act; the figures of both."""
    started = time.monotonic()
    circle.PASSES = PASSES
    say(f"recording {plan.imitate.sessions} sessions")
    sessions = folder / "sessions"
    tasks = circle.make_tasks(plan.imitate, folder / "photos", plan.imitate.sessions, 0)
    anyio.run(circle.record, tasks, sessions, MixedTeacher)
    say(f"imitating them for {plan.imitate.steps} steps")
    circle.train(plan.imitate, sessions, folder, circle.LONGEST, 0)
    result = act(plan, folder, seed, say)
    return result | {"seconds": round(time.monotonic() - started, 1)}


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(description="A tiny Qwen3-VL betters itself by acting with the real tools.")
    parser.add_argument("--quick", action="store_true", help="a few steps on one kind of task, in some two minutes")
    parser.add_argument("--seed", type=int, default=0, help="of the acting: its tasks, its sampling (default 0)")
    parser.add_argument("--out", type=Path, metavar="DIR", help="keep everything there (default: a temporary folder)")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    options = parser.parse_args(argv)
    if options.out and options.out.exists() and any(options.out.iterdir()):
        parser.error(f"{options.out} is not empty: choose another folder")
    os.environ.update(OMP_NUM_THREADS="1")
    with tempfile.TemporaryDirectory(prefix="learn-by-acting-") as scratch:
        folder = (options.out or Path(scratch)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        result = learn(QUICK if options.quick else FULL, folder, options.seed, circle._say)
    print(json.dumps(result, indent=2) if options.json else "\n".join(f"{k}: {v}" for k, v in result.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
