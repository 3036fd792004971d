"""What writes the next assistant turn. ``planner`` needs no model; others speak to one.

A policy has a ``name``, writes one turn at a time from the whole conversation, and can say beforehand what its next
turn may cost at most.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Protocol

from agent.protocol import Message
from agent.task import StopReason


class PolicyError(RuntimeError):
    """The policy cannot go on; ``stop`` says how the episode is to be recorded, ``call`` what was paid all the same."""

    def __init__(self, message: str, stop: StopReason = StopReason.POLICY_ERROR, call: ModelCall | None = None) -> None:
        super().__init__(message)
        self.stop = stop
        self.call = call


@dataclass(frozen=True, slots=True)
class ModelCall:
    """One call of a language model, as the session's ``model_call`` event records it.

    ``sampling``: what was asked of the sampler (temperature, max_tokens, seed). ``reasoning`` is what a reasoning
    model thought before its turn; it is kept here and not in the conversation. ``dropped_images``: numbers of the
    images that were left out to fit the context. Token ids and log-probabilities (natural logarithm, one a completion
    token) are None where the server does not tell them.
    """

    model: str
    seconds: float
    finish_reason: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cost_usd: float = 0.0
    attempts: int = 1
    sampling: dict[str, Any] = field(default_factory=dict)
    reasoning: str = ""
    dropped_images: tuple[int, ...] = ()
    prompt_token_ids: tuple[int, ...] | None = None
    completion_token_ids: tuple[int, ...] | None = None
    logprobs: tuple[float, ...] | None = None

    def to_json(self) -> dict[str, Any]:
        """The fields by name; ids are not copied one by one, as ``asdict`` would."""
        return {each.name: getattr(self, each.name) for each in fields(self)}


@dataclass(frozen=True, slots=True)
class Reply:
    """One turn as text, and the model's call that wrote it (None for a policy without a model).

    ``problem``: why the turn cannot be used, where the policy knows better than the text shows (cut off by a length
    limit, refused, several calls at once); "" else. ``key`` names it in a recording; ``replayed``: it comes from there,
    and what ``call`` says it cost was paid then.
    """

    text: str
    call: ModelCall | None = None
    problem: str = ""
    key: str = ""
    replayed: bool = False


class Policy(Protocol):
    """Writes the assistant's turns of one episode."""

    name: str

    def describe(self) -> dict[str, Any]:
        """What the session's first line says of the policy: its name, and model and dialect where it has them."""
        return {"name": self.name}

    def max_cost_usd(self, messages: Sequence[Message]) -> float:
        """The most that the next turn may cost; infinite where the price is not known."""
        return 0.0

    async def next_turn(self, messages: Sequence[Message], signatures: Sequence[dict[str, Any]]) -> Reply:
        """The next turn, given the whole conversation and the tools' function signatures.

        Raises PolicyError where it cannot go on.
        """
        ...
