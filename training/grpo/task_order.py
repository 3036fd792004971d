"""The order in which tasks come, the same whether a training runs through or is gone on with."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch.utils.data import Sampler
from trl.trainer.utils import RepeatSampler


class TaskOrder(Sampler[int]):
    """TRL's sampler, whose every pass is the permutation of its epoch.

    TRL draws one permutation after another from a generator of its own, which no checkpoint keeps: resumed in a later
    epoch, it would begin with the first again. ``epoch_of`` tells the epoch (from 0) that a pass is for.
    """

    def __init__(self, drawn: RepeatSampler, epoch_of: Callable[[], int]) -> None:
        self._drawn, self._epoch_of = drawn, epoch_of

    def __len__(self) -> int:
        return len(self._drawn)

    def __iter__(self) -> Iterator[int]:
        generator = self._drawn.generator.manual_seed(self._drawn.seed or 0)
        for _ in range(self._epoch_of()):
            torch.randperm(self._drawn.num_samples, generator=generator)
        yield from self._drawn
