"""An episode whose turns and results are known beforehand, run through the agent's own loop.

The loop that runs, records and trains writes constructed sessions too, so they cannot differ from recorded ones in
form: ``Script`` is the policy, ``PreparedToolbox`` gives the results, ``ConstructedWriter`` marks the session.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.policies import Policy, PolicyError, Reply
from agent.protocol import ImageRef, Message, ToolCall, Turn, render_turn
from agent.session import SessionWriter
from agent.task import Task
from agent.toolbox import Observation, Toolbox, ToolboxError

POLICY_NAME = "constructed"


@dataclass(frozen=True, slots=True)
class Step:
    """One turn and what its call brings back (None for the answer)."""

    turn: Turn
    seen: Observation | None = None


class Script(Policy):
    """Says the turns of a script, one after the other."""

    name = POLICY_NAME

    def __init__(self, steps: Sequence[Step]) -> None:
        self._steps = steps

    async def next_turn(self, messages: Sequence[Message], signatures: Sequence[dict[str, Any]] = ()) -> Reply:
        """The next turn. Raises PolicyError where the loop asks for more than the script holds."""
        said = sum(message.role == "assistant" for message in messages)
        if said >= len(self._steps):
            raise PolicyError("the script has no further turn: one of its turns was not accepted")
        return Reply(render_turn(self._steps[said].turn))


class PreparedToolbox(Toolbox):
    """A toolbox that hands out prepared results in order; signatures, servers and handles are those of ``behind``."""

    def __init__(self, behind: Toolbox, original: ImageRef, steps: Sequence[Step]) -> None:
        super().__init__([])
        self._behind, self._original = behind, original
        self._left = [(step.turn.action, step.seen) for step in steps if step.seen is not None]

    @property
    def described(self) -> list[dict[str, Any]]:
        return self._behind.described

    def signatures(self) -> list[dict[str, Any]]:
        return self._behind.signatures()

    async def open_photo(self, path: str) -> ImageRef:
        """The prepared original, whatever the path."""
        return self._original

    async def max_cost_usd(self, call: ToolCall, task: Task, images: Sequence[ImageRef]) -> float:
        """Nothing: the results are there."""
        return 0.0

    async def call(self, call: ToolCall, task: Task, images: Sequence[ImageRef]) -> Observation:
        """The next prepared result. Raises ToolboxError where another call was prepared."""
        expected, seen = self._left.pop(0) if self._left else (None, None)
        if call != expected or seen is None:
            raise ToolboxError(f"{call.name} was called where {expected} was prepared")
        return seen

    def handle_of(self, image: ImageRef) -> str:
        return self._behind.handle_of(image)


class ConstructedWriter(SessionWriter):
    """A session whose first line says that it was constructed, from what, and which results are simulated."""

    def __init__(self, folder: Path, constructed: dict[str, Any]) -> None:
        super().__init__(folder)
        self._constructed = constructed

    def add(self, event_type: str, **fields: Any) -> None:
        marked = {"constructed": self._constructed} if event_type == "session_start" else {}
        super().add(event_type, **fields, **marked)
