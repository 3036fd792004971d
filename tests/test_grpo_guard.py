"""Gradients that are no numbers never reach the weights."""

from __future__ import annotations

import pytest
import torch

from training.grpo.guard import GradientGuard, NotFiniteError


class Weights(torch.nn.Module):
    """One layer whose gradients a test sets."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(2, 1)

    def step(self, guard: GradientGuard, value: float, number: int = 0) -> torch.Tensor:
        """One update as the trainer makes it, with a gradient of this value; the weights after it."""

        class State:
            global_step = number

        optimizer = torch.optim.AdamW(self.parameters(), lr=0.1, weight_decay=0.1)
        for parameter in self.parameters():
            parameter.grad = torch.full_like(parameter, 1.0)
        self.layer.weight.grad = torch.full_like(self.layer.weight, value)
        guard.on_pre_optimizer_step(None, State(), None, model=self)
        optimizer.step()
        return self.layer.weight.detach().clone()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_gradients_that_are_no_numbers_leave_every_weight_as_it_was(
    value: float, caplog: pytest.LogCaptureFixture
) -> None:
    model, guard = Weights(), GradientGuard(patience=2)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    model.step(guard, value, number=6)
    assert all(torch.equal(old, new) for old, new in zip(before, model.parameters(), strict=True))
    assert (guard.skipped, guard.in_a_row) == (1, 1)
    assert "step 7: its gradients are no numbers, so this update is left out" in caplog.text
    assert not torch.equal(model.step(guard, 1.0), before[0])
    assert (guard.skipped, guard.in_a_row) == (1, 0)


def test_gradients_that_stay_no_numbers_end_the_training_with_what_helps() -> None:
    model, guard = Weights(), GradientGuard(patience=2)
    model.step(guard, float("nan"))
    model.step(guard, float("nan"))
    with pytest.raises(NotFiniteError, match=r"3 updates in a row, the last at step 2.*--resume.*learning_rate"):
        model.step(guard, float("nan"), number=2)


def test_a_loss_that_is_no_number_is_told_apart() -> None:
    GradientGuard.check_loss(torch.tensor(1.0), 3)
    with pytest.raises(NotFiniteError, match="loss of step 4 is no number"):
        GradientGuard.check_loss(torch.tensor(float("nan")), 3)
