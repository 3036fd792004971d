"""TRL's GRPOTrainer, fed with episodes that were acted out.

TRL computes advantages, probabilities, clipping, KL divergence and the loss. What is put in its way is one private
method, ``_generate``: it returns the rollouts of a batch, with images that came up on the way, and what they earned.
The seam holds for trl 1.16 and is pinned; ``tests/test_grpo_seam.py`` is its contract.
"""

from __future__ import annotations

import io
import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from typing import Any

import torch
from trl import GRPOTrainer
from trl.models import unwrap_model_for_generation

from training.encoding import Encoder
from training.generation import Sampling
from training.grpo.batches import Batch, BatchPlan
from training.grpo.config import GrpoConfig, VllmSection
from training.grpo.figures import rollouts_of, step_figures
from training.grpo.guard import GradientGuard
from training.grpo.rollouts import Rollouts, Timing
from training.grpo.task_order import TaskOrder
from training.grpo.trajectory import REWARD_NAMES, Group
from training.grpo.vllm import VllmColocated, sync
from training.grpo.vllm_server import connect
from training.local_policy import Batcher, TurnSource
from training.resuming import Resumes


class EpisodeGRPOTrainer(Resumes, GRPOTrainer):
    """GRPO over recorded episodes.

    ``train_dataset`` has the columns ``prompt`` (what TRL logs) and ``task`` (the task's number). A process gets whole
    groups: its batch is a multiple of the group's size.
    """

    def __init__(self, config: GrpoConfig, rollouts: Rollouts, encoder: Encoder, **named: Any) -> None:
        weights = [*config.rewards.weights, 1.0]
        named["args"].reward_weights = weights
        super().__init__(reward_funcs=[_reader(name) for name in REWARD_NAMES], **named)
        self.tools = [_observe]  # tells TRL that observations may hold images; it never calls it
        self.config, self.rollouts, self.encoder = config, rollouts, encoder
        rank = self.accelerator.process_index
        self.plan = BatchPlan(config.grpo, config.replay, len(rollouts.tasks), f"{config.train.seed} {rank}")
        self.guard = GradientGuard(config.train.bad_updates)
        self.add_callback(self.guard)
        self.batch = Batch([])
        self._kept: tuple[int, list[Group]] = (-1, [])
        self._numbers: list[int] = []
        self._server: TurnSource | None = None

    def _get_train_sampler(self, dataset: Any = None) -> TaskOrder:
        """TRL's order of tasks, which a resumed training keeps."""
        return TaskOrder(super()._get_train_sampler(dataset), lambda: int(self.state.epoch or 0))

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        """Rollouts, rewards, advantages; replayed groups keep the probabilities that they were sampled with."""
        self._numbers = _group_numbers([int(row["task"]) for row in inputs], self.num_generations)
        started = time.perf_counter()
        output: dict[str, Any] = super()._generate_and_score_completions(inputs)
        self._metrics["train"]["time/score"].append(
            time.perf_counter() - started - self._metrics["train"]["time/rollout"][-1]
        )
        replayed = [group.replayed for group in self.batch.groups for _ in group.rollouts]
        # The KL estimate of tokens that an older policy sampled needs the ratio: without it, a token that the present
        # one would hardly write, and the reference would, counts a thousandfold.
        self.args.use_bias_correction_kl = any(replayed)
        return with_behaviour(output, torch.tensor(replayed, device=output["completion_ids"].device))

    def _generate(self, prompts: list[Any]) -> tuple[Any, ...]:
        """The batch's rollouts, in TRL's order of fields."""
        from PIL import Image

        started = time.perf_counter()
        self.rollouts.timing = Timing()
        self._kept = (self.state.global_step, list(self.plan.buffer.groups))
        with self.generating() as source:
            self.batch = self.plan.fill(self._numbers, self.state.global_step, self._maker(source))
        rollouts = rollouts_of(self.batch.groups)
        self._note(time.perf_counter() - started)
        images = [[Image.open(io.BytesIO(png)).convert("RGB") for png in r.pictures] for r in rollouts]
        earned = {f"earned_{name}": [rollout.rewards[name] for rollout in rollouts] for name in REWARD_NAMES}
        return (
            [list(rollout.prompt_ids) for rollout in rollouts],
            [list(rollout.completion_ids) for rollout in rollouts],
            [list(rollout.sampled) for rollout in rollouts],
            [[{"role": "assistant", "content": str(rollout.session)}] for rollout in rollouts],
            [list(rollout.logprobs) for rollout in rollouts],
            earned,
            images,
            images,
        )

    def forget_unfinished_step(self) -> None:
        """Put the replay buffer back as it was before a step that was broken off."""
        step, groups = self._kept
        if step == self.state.global_step:
            self.plan.buffer.groups = deque(groups)

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> torch.Tensor:
        """TRL's, with a loss that is a number. Raises NotFiniteError under DeepSpeed, which would use it at once."""
        loss: torch.Tensor = super().training_step(model, inputs, num_items_in_batch)
        if self.is_deepspeed_enabled:
            self.guard.check_loss(loss, self.state.global_step)
        return loss

    @contextmanager
    def generating(self) -> Iterator[TurnSource]:
        """What generates turns with the weights as they are now."""
        rollout = self.config.rollout
        sampling = Sampling(rollout.temperature, rollout.max_new_tokens, self.config.train.seed)
        if self.config.vllm:
            sync(self)
            yield self._vllm(self.config.vllm, sampling)
            return
        with (
            unwrap_model_for_generation(
                self.model_wrapped,
                self.accelerator,
                gather_deepspeed3_params=self.args.ds3_gather_for_generation,
                gradient_checkpointing_kwargs=self.args.gradient_checkpointing_kwargs,
            ) as model,
            torch.no_grad(),
        ):
            yield Batcher(model, self.encoder, sampling, rollout.batch)

    def _vllm(self, section: VllmSection, sampling: Sampling) -> TurnSource:
        """vLLM's turns: one connection to a server for the whole training, or the engine in this process."""
        if section.mode == "colocate":
            return VllmColocated(self.vllm_generation, self.encoder, sampling, self.config.rollout.at_once)
        self._server = self._server or connect(section.base_url, self.encoder, sampling)
        return self._server

    def _maker(self, source: TurnSource) -> Callable[[Sequence[int]], list[Group]]:
        """Rolls out tasks; later calls of a step, which replace groups, write into folders of their own."""
        waves = count(1)

        def make(numbers: Sequence[int]) -> list[Group]:
            wave = next(waves)
            return self.rollouts.groups(source, numbers, self.state.global_step, f"-{wave}" if wave > 1 else "")

        return make

    def log(self, logs: dict[str, Any], *positional: Any, **named: Any) -> None:
        """Log what is known: of a step that nothing can be learned from, TRL's own figures are no numbers."""
        for metrics in self._metrics.values():
            for name in [name for name, values in metrics.items() if all(map(math.isnan, values))]:
                del metrics[name]
        super().log(logs, *positional, **named)

    def _note(self, seconds: float) -> None:
        timing, metrics = self.rollouts.timing, self._metrics["train"]
        for name, value in step_figures(self.batch, self.plan.buffer, self.state.global_step).items():
            self._log_metric(name, value)
        metrics["time/rollout"].append(seconds)
        metrics["time/longest_episode"].append(timing.longest)
        metrics["rollouts/tokens_per_second"].append(timing.tokens / seconds)
        metrics["updates_left_out"].append(float(self.guard.skipped))


def with_behaviour(output: dict[str, Any], replayed: torch.Tensor) -> dict[str, Any]:
    """TRL's batch, in which the replayed rows (a boolean for each) are weighed against the policy that sampled them.

    ``old_per_token_logps`` (rollouts, tokens) becomes the log-probabilities at sampling. Of new rollouts they are those
    of the present policy, computed by TRL where it does so, else as sampled. An importance-sampling ratio, which
    corrects between two programs of the same policy, is 1 for replayed rows: theirs holds that correction already.
    """
    if not bool(replayed.any()):
        return output
    sampled = output["sampling_per_token_logps"]
    old = output.get("old_per_token_logps")
    known = replayed.unsqueeze(1) & torch.isfinite(sampled)
    output["old_per_token_logps"] = sampled if old is None else torch.where(known, sampled, old)
    if (ratio := output.get("importance_sampling_ratio")) is not None:
        output["importance_sampling_ratio"] = torch.where(replayed.unsqueeze(1), torch.ones_like(ratio), ratio)
    return output


def _group_numbers(numbers: Sequence[int], size: int) -> list[int]:
    """The task of each group in a batch. Raises ValueError where groups are not whole."""
    groups = [numbers[place : place + size] for place in range(0, len(numbers), size)]
    if any(len(group) != size or len(set(group)) != 1 for group in groups):
        raise ValueError(f"a batch of {len(numbers)} rows does not hold whole groups of {size}")
    return [group[0] for group in groups]


def _reader(name: str) -> Callable[..., list[float | None]]:
    """TRL's reward function of one component: the episodes have earned it already."""

    def read(**columns: Any) -> list[float | None]:
        return list(columns[f"earned_{name}"])

    read.__name__ = name
    return read


def _observe() -> None:
    """Stands for the tools."""
