"""The replay buffer: whole groups of earlier steps, kept with the probabilities that they were sampled with."""

from __future__ import annotations

import pickle
from collections import deque
from collections.abc import Container, Iterable
from dataclasses import replace
from pathlib import Path
from random import Random

from training.grpo.trajectory import Group


class ReplayError(ValueError):
    """A file holds no replay buffer: it is damaged, or of another version."""


class ReplayBuffer:
    """Keeps the newest groups that teach something, up to ``size`` rollouts in all; 0 keeps none.

    A group is learned from until it is ``max_age`` steps old. Only whole groups are kept and given: advantages are
    relative to the group.
    """

    def __init__(self, size: int, max_age: int) -> None:
        self.size, self.max_age = size, max_age
        self.groups: deque[Group] = deque()

    def __len__(self) -> int:
        """Rollouts that it holds."""
        return sum(len(group.rollouts) for group in self.groups)

    def add(self, groups: Iterable[Group]) -> None:
        """Keep those that teach; the oldest make room."""
        for group in groups:
            if group.teaches and not group.replayed and len(group.rollouts) <= self.size:
                self.groups.append(group)
        self._make_room()

    def draw(self, count: int, step: int, random: Random, but: Container[tuple[int, int]] = frozenset()) -> list[Group]:
        """At most ``count`` different groups, at random, marked as replayed; groups that are too old are dropped.

        ``but``: task and step of groups that are not to be drawn.
        """
        while self.groups and step - self.groups[0].step > self.max_age:
            self.groups.popleft()
        free = [group for group in self.groups if (group.task, group.step) not in but]
        return [replace(group, replayed=True) for group in random.sample(free, min(count, len(free)))]

    def save(self, path: Path) -> None:
        """Write the groups to a file. Raises OSError."""
        import torch

        torch.save(list(self.groups), path)

    def load(self, path: Path) -> None:
        """Take the groups that ``save`` wrote, as many as there is room for: from a checkpoint of one's own, since
        reading it runs what it holds.

        Raises OSError, and ReplayError where the file is damaged; the buffer is then as it was.
        """
        import torch

        damages = (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, TypeError, LookupError, AttributeError)
        try:
            groups = torch.load(path, weights_only=False)
        except (*damages, ImportError) as error:
            raise ReplayError(f"{path} is damaged ({type(error).__name__})") from error
        if not (isinstance(groups, list) and all(isinstance(group, Group) for group in groups)):
            raise ReplayError(f"{path} holds no groups of rollouts")
        self.groups = deque(groups)
        self._make_room()

    def _make_room(self) -> None:
        while len(self) > self.size:
            self.groups.popleft()
