"""Keeps gradients that are no numbers out of the weights."""

from __future__ import annotations

import logging
from typing import Any

import torch
from transformers import TrainerCallback

logger = logging.getLogger("training")
CURE = (
    "go on from the last checkpoint (--resume) with a lower train.max_grad_norm, or start again with a lower "
    "train.learning_rate"
)


class NotFiniteError(ArithmeticError):
    """Training cannot go on: updates are no numbers again and again; the message says what to do."""


class GradientGuard(TrainerCallback):
    """Leaves an update out whose gradients hold a NaN or an infinity; ends training after ``patience`` in a row.

    ``skipped`` counts those left out. Gradients are the same on every process when it looks, so all decide alike.
    DeepSpeed keeps gradients to itself: there ``check_loss`` is what guards.
    """

    def __init__(self, patience: int) -> None:
        self.patience = patience
        self.skipped = self.in_a_row = 0

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **named: Any) -> None:
        """Look at the gradients before they are used. Raises NotFiniteError."""
        grads = [parameter.grad for parameter in named["model"].parameters() if parameter.grad is not None]
        if all(bool(torch.isfinite(grad).all()) for grad in grads):
            self.in_a_row = 0
            return
        self.skipped += 1
        self.in_a_row += 1
        if self.in_a_row > self.patience:
            raise NotFiniteError(
                f"gradients were no numbers in {self.in_a_row} updates in a row, the last at step {state.global_step}: "
                f"{CURE}"
            )
        logger.warning("step %d: its gradients are no numbers, so this update is left out", state.global_step + 1)
        for parameter in named["model"].parameters():
            parameter.grad = None

    @staticmethod
    def check_loss(loss: torch.Tensor, step: int) -> None:
        """Raise NotFiniteError for a loss that is no number."""
        if not bool(torch.isfinite(loss).all()):
            raise NotFiniteError(f"the loss of step {step + 1} is no number: {CURE}")
