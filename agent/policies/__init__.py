"""What writes the next assistant turn. ``planner`` needs no model; others speak to one.

A policy is anything with a ``name`` and ``async next_turn(messages) -> str`` that returns the text of one turn.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from agent.protocol import Message
from agent.task import StopReason


class PolicyError(RuntimeError):
    """The policy cannot go on; ``stop`` says how the episode is to be recorded."""

    def __init__(self, message: str, stop: StopReason = StopReason.POLICY_ERROR) -> None:
        super().__init__(message)
        self.stop = stop


class Policy(Protocol):
    """Writes the assistant's turns of one episode."""

    name: str

    async def next_turn(self, messages: Sequence[Message]) -> str:
        """The text of the next turn, given the whole conversation. Raises PolicyError where it cannot go on."""
        ...
