"""How a model's turns are asked for: sampling and the patience with its server."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

MAX_TOKENS = 4096
"""Tokens that a turn may have by default, reasoning included."""
TIMEOUT, RETRIES = 600.0, 4
"""Seconds for one reply with all its repetitions, and how often a failed request is repeated."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How turns are sampled; None leaves a choice to the server, a ``seed`` of None to the task."""

    max_tokens: int = MAX_TOKENS
    temperature: float | None = None
    top_p: float | None = None
    seed: int | None = None

    def fields(self) -> dict[str, Any]:
        """The request's fields."""
        named = {"max_tokens": self.max_tokens, "temperature": self.temperature, "top_p": self.top_p, "seed": self.seed}
        return {name: value for name, value in named.items() if value is not None}

    def for_task(self, seed: int) -> Sampling:
        """The sampling of one task: with its seed, where none was chosen."""
        return self if self.seed is not None else replace(self, seed=seed)
