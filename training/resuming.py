"""What transformers' Trainer leaves open where a training is gone on with: it always trains at least one more step."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import Trainer as _Trainer
else:
    _Trainer = object


class EndsInTime(_Trainer):
    """A mixin for trainers: one that is resumed at or past its last step loads the checkpoint and trains no further.

    The seam, ``_run_epoch``, holds for the pinned transformers.
    """

    def _run_epoch(self, **named: Any) -> None:
        if self.state.global_step >= self.state.max_steps:
            self.control.should_training_stop = True
            return
        super()._run_epoch(**named)
