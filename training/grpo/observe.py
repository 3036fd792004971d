"""What is to be seen of a training: held-out figures, curves, and reports of sample episodes at every checkpoint."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from agent.report.render import write_report
from agent.task import Task
from agent.toolbox import ToolboxError
from training.curves import Panel, plot
from training.encoding import Encoder
from training.generation import Sampling
from training.grpo.config import GrpoConfig
from training.grpo.figures import rollouts_of
from training.grpo.held_out import measure_held_out
from training.grpo.replay_buffer import ReplayError
from training.grpo.trajectory import Trajectory
from training.interrupt import Interrupt
from training.local_policy import Batcher

logger = logging.getLogger("training")
AT_ONCE = 8
DRAW_EVERY = 5
"""Steps between drawings of the curves; they are drawn after every measurement and at the end too."""

PANELS = (
    Panel(
        "reward",
        {
            "reward/total": "rollouts",
            "eval_reward": "held out, reporting judge",
            "eval_reward_by_own_judge": "held out, own judge",
        },
    ),
    Panel(
        "reward's parts",
        {"reward/task": "task", "reward/reflection": "reflection", "reward/behaviour": "behaviour"},
    ),
    Panel(
        "episodes",
        {"episode/good": "good", "episode/valid": "valid", "eval_valid_share": "valid, held out"},
        top=1.02,
    ),
    Panel(
        "score of the final image",
        {
            "episode/score": "rollouts",
            "eval_mean_score": "held out, own judge",
            "eval_score": "held out, reporting judge",
        },
        top=10.2,
    ),
    Panel("turns and images", {"episode/turns": "turns", "episode/images": "images"}),
    Panel(
        "calls an episode",
        {
            f"tools/{name}": name
            for name in ("prompt_gen", "image_gen", "quality_eval", "knowledge_retrieval", "mask_gen")
        },
    ),
    Panel("KL divergence", {"kl": "from the reference"}, percentile=98),
    Panel("entropy", {"entropy": "nats a token"}),
    Panel(
        "groups",
        {"groups/zero_advantage": "zero advantage", "groups/learned_from": "learned from"},
        top=1.02,
    ),
)


class Observer(TrainerCallback):
    """Measures before the first step, now and then, and at the end; draws; keeps reports of sample episodes."""

    def __init__(
        self, config: GrpoConfig, trainer: Any, encoder: Encoder, held_out: Sequence[Task], interrupt: Interrupt
    ) -> None:
        self.config, self.trainer, self.encoder, self.interrupt = config, trainer, encoder, interrupt
        self.held_out = held_out[: config.held_out.episodes]
        self._measured = -1
        if self.held_out and config.same_judge:
            logger.warning(
                "the judge that reports, %s, is the one that rewards: scores that only please it will not show; set "
                "held_out.judge to another",
                config.held_out.judge,
            )

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Measure what training begins with, or take up the replay buffer where it was left."""
        self._take_up(state)
        if state.global_step == 0 and self._measured < 0:
            self.measure(state.global_step)
        if state.global_step == 0:
            return
        kept = self._replay(args, state)
        try:
            self.trainer.plan.buffer.load(kept)
        except FileNotFoundError:
            logger.warning("%s is missing: the replay buffer begins empty", kept)
        except ReplayError as error:
            logger.warning("%s: the replay buffer begins empty", error)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Measure now and then."""
        if state.global_step % self.config.held_out.every == 0:
            own_figures_due = control.should_log
            with self.interrupt.allowed():
                self.measure(state.global_step)
            control.should_log = own_figures_due  # logging the measurement has cleared it

    def on_log(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Say how it goes, and draw the curves now and then."""
        if state.is_world_process_zero:
            if state.global_step % DRAW_EVERY == 0:
                draw(state.log_history, self.config.output)
            if line := progress(state.log_history[-1], state.max_steps):
                logger.info("%s", line)

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Keep the replay buffer with the checkpoint, and reports of the step's best, median and worst episode."""
        self.trainer.plan.buffer.save(self._replay(args, state))
        if state.is_world_process_zero:
            samples(
                rollouts_of(self.trainer.batch.made), self.config.output / "samples" / f"step-{state.global_step:06d}"
            )

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Measure what training ends with."""
        if self._measured < state.global_step:
            self.measure(state.global_step)
        if state.is_world_process_zero:
            draw(state.log_history, self.config.output)

    def _take_up(self, state: Any) -> None:
        """Know what was measured before, also after the checkpoint was saved, as the measurement at the end is."""
        with suppress(OSError, ValueError):
            kept = json.loads((self.config.output / "history.json").read_text(encoding="utf-8"))
            late = [entry for entry in kept if "eval_reward" in entry and entry["step"] == state.global_step]
            state.log_history += [entry for entry in late if entry not in state.log_history]
        known = [int(entry["step"]) for entry in state.log_history if "eval_reward" in entry]
        self._measured = max(known, default=-1)

    def _replay(self, args: Any, state: Any) -> Path:
        """The file of a checkpoint that holds this process's replay buffer."""
        checkpoint = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        return checkpoint / f"replay-{self.trainer.accelerator.process_index}.pt"

    def measure(self, step: int) -> None:
        """Held-out episodes with the weights as they are now."""
        if not self.held_out:
            return
        trainer = self.trainer
        folder = self.config.output / "held_out" / f"step-{step:06d}"
        sampling = Sampling(0.0, self.config.held_out.max_new_tokens)
        model = trainer.accelerator.unwrap_model(trainer.model)
        batcher = Batcher(model, self.encoder, sampling, AT_ONCE)
        try:
            figures = measure_held_out(self.config, batcher, self.held_out, folder)
        except ToolboxError as error:
            logger.error("step %d is not measured: %s", step, error)
            return
        self._measured = step
        training = trainer.model.training
        trainer.model.eval()  # else TRL would take the step's own figures for logged
        trainer.log(figures)
        trainer.model.train(training)
        draw(trainer.state.log_history, self.config.output)


def samples(rollouts: Sequence[Trajectory], folder: Path) -> None:
    """Reports of the best, the median and the worst rollout, as HTML. Raises OSError."""
    ranked = sorted((r for r in rollouts if r.total is not None), key=lambda r: r.total or 0.0)
    if not ranked:
        return
    folder.mkdir(parents=True, exist_ok=True)
    for name, rollout in (("worst", ranked[0]), ("median", ranked[len(ranked) // 2]), ("best", ranked[-1])):
        write_report(rollout.session, folder / f"{name}.html")


def draw(history: Sequence[dict[str, Any]], output: Path) -> None:
    """Write the history of figures and its curves. Raises OSError."""
    known = [{name: _finite(value) for name, value in entry.items()} for entry in history]
    (output / "history.json").write_text(json.dumps(known, indent=1, allow_nan=False), encoding="utf-8")
    plot(history, output / "curves.png", PANELS)


def _finite(value: Any) -> Any:
    """JSON has no number for what is none."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def progress(entry: dict[str, Any], steps: int) -> str:
    """One line of a step's or a measurement's figures; "" for other entries."""
    if "reward/total" in entry:
        shown: tuple[str, ...] = (
            "reward/total",
            "episode/good",
            "episode/valid",
            "episode/turns",
            "kl",
            "groups/zero_advantage",
        )
        times = f"rollout {entry['time/rollout']:.1f} s, step {entry.get('step_time') or 0:.1f} s"
    elif "eval_reward" in entry:
        shown = ("eval_reward", "eval_reward_by_own_judge", "eval_score", "eval_valid_share", "eval_mean_turns")
        times = "held out"
    else:
        return ""
    told = "  ".join(f"{name.rpartition('/')[2]} {entry[name]:.3g}" for name in shown if entry.get(name) is not None)
    return f"step {entry['step']}/{steps}  {told}  ({times})"


def last_figures(history: Sequence[dict[str, Any]]) -> dict[str, float]:
    """The last value of every figure that says what the policy can do; what is measured, at the last step alone."""
    names = ("reward/total", "reward/task", "reward/reflection", "reward/behaviour", "episode/good", "episode/valid",
             "episode/turns", "kl", "entropy", "eval_reward", "eval_reward_by_own_judge", "eval_score",
             "eval_mean_score", "eval_valid_share", "eval_answered_share", "eval_passed_share")  # fmt: skip
    steps = max((entry["step"] for entry in history), default=0)
    figures = {
        name: entry[name]
        for entry in history
        for name in names
        if entry.get(name) is not None and (entry["step"] == steps or not name.startswith("eval_"))
    }
    return {"steps": float(steps)} | figures
