"""What one step learns from: new groups, groups that replace those that teach nothing, and groups of earlier steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random

from training.grpo.config import GrpoSection, ReplaySection
from training.grpo.replay_buffer import ReplayBuffer
from training.grpo.trajectory import Group

MakeGroups = Callable[[Sequence[int]], list[Group]]
"""Rolls out tasks, given by their numbers: one group each."""


@dataclass(slots=True)
class Batch:
    """The groups that a step learns from, and all those that were rolled out for it.

    ``resampled``: tasks that were drawn in place of groups that taught nothing.
    """

    groups: list[Group]
    made: list[Group] = field(default_factory=list)
    resampled: int = 0


class BatchPlan:
    """Fills a step's batch from rollouts and from the replay buffer."""

    def __init__(self, grpo: GrpoSection, replay: ReplaySection, tasks: int, seed: int | str) -> None:
        self._grpo, self._share, self._tasks, self._seed = grpo, replay.share, tasks, seed
        self.buffer = ReplayBuffer(replay.size, replay.max_age)

    def fill(self, numbers: Sequence[int], step: int, make: MakeGroups) -> Batch:
        """A batch of as many groups as there are task numbers, of which the last make room for replayed ones."""
        draw = Random(f"{self._seed} {step}")
        wanted = len(numbers)
        replayed = self.buffer.draw(_whole(self._share * wanted, draw), step, draw) if self.buffer.size else []
        batch = Batch(make(numbers[: wanted - len(replayed)]))
        batch.made += batch.groups
        if self._grpo.filter_zero_advantage:
            self._refill(batch, step, make, draw, replayed)
        batch.groups += replayed
        self.buffer.add(batch.made)
        return batch

    def _refill(self, batch: Batch, step: int, make: MakeGroups, draw: Random, replayed: Sequence[Group]) -> None:
        """Replace the groups that teach nothing, first by other tasks, then from the buffer."""
        used = {group.task for group in replayed}
        for _ in range(self._grpo.resample):
            idle = [place for place, group in enumerate(batch.groups) if not group.teaches]
            used |= {group.task for group in batch.made}
            fresh = [number for number in range(self._tasks) if number not in used]
            drawn = draw.sample(fresh, min(len(idle), len(fresh)))
            if not drawn:
                break
            made = make(drawn)
            batch.made += made
            batch.resampled += len(made)
            for place, group in zip(idle, made, strict=False):
                batch.groups[place] = group
        idle = [place for place, group in enumerate(batch.groups) if not group.teaches]
        if idle and self.buffer.size:
            known = {(group.task, group.step) for group in (*batch.groups, *replayed)}
            for place, group in zip(idle, self.buffer.draw(len(idle), step, draw, known), strict=False):
                batch.groups[place] = group


def _whole(share: float, draw: Random) -> int:
    """A whole number whose mean over many steps is the share."""
    return int(share) + (draw.random() < share - int(share))
