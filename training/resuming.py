"""What transformers' Trainer leaves open where a training is gone on with, and what it cannot take any more."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import Trainer as _Trainer
else:
    _Trainer = object


KEPT = ("train.learning_rate", "train.schedule", "train.warmup", "train.weight_decay", "train.seed")
"""Keys that a training has to keep: its checkpoints' optimizer and schedule hold the rates, whatever is asked for."""


class Resumes(_Trainer):
    """A mixin for trainers that are gone on with: at or past the last step they load the checkpoint and train no
    further, and when they log, measure and save is as they are told now, not as the checkpoint has it.

    The seams, ``_run_epoch``, ``_init_training_state`` and ``_issue_warnings_after_load``, hold for the pinned
    transformers.
    """

    def _init_training_state(self, max_steps: int, *positional: Any, **named: Any) -> Any:
        trained = super()._init_training_state(max_steps, *positional, **named)
        self.state.compute_steps(self.args, max_steps)
        return trained

    def _issue_warnings_after_load(self, load_result: Any) -> None:
        """The Trainer's, but for weights that are tied to others that were loaded: a checkpoint holds those once."""
        weights = dict(self.model.named_parameters(remove_duplicate=False))
        missing = set(load_result.missing_keys)
        loaded = {id(weight) for name, weight in weights.items() if name not in missing}
        real = [name for name in load_result.missing_keys if id(weights.get(name)) not in loaded]
        super()._issue_warnings_after_load(load_result._replace(missing_keys=real))

    def _run_epoch(self, **named: Any) -> None:
        if self.state.global_step >= self.state.max_steps:
            self.control.should_training_stop = True
            return
        super()._run_epoch(**named)
