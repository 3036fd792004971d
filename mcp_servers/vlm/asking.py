"""A question to a model, asked until its answer can be used or the tries are used up."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from mcp_servers.errors import BackendError, FailureKind
from mcp_servers.vlm.reading import ReplyError

T = TypeVar("T")

ASKS = 3
"""Times that a question is asked at most: once, and twice more with what was wrong with the reply."""
SHOWN = 4000
"""Characters of an unusable reply that the model is shown again."""


@dataclass(frozen=True, slots=True)
class Question:
    """What a model is asked: rules, text, pictures (what each shows, PNG), and the JSON schema of the reply.

    ``name`` names the schema, in letters and underscores.
    """

    name: str
    rules: str
    text: str
    pictures: Sequence[tuple[str, bytes]]
    schema: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back: the text ("" where there was none), why the model stopped, US dollars, requests made."""

    text: str
    stopped: str
    cost_usd: float
    attempts: int


@dataclass(frozen=True, slots=True)
class Answer(Generic[T]):
    """A usable answer, and what all replies together cost (US dollars, requests)."""

    value: T
    cost_usd: float
    attempts: int


class Service(Protocol):
    """One model behind an API."""

    title: str
    """How messages name it."""

    async def complete(self, question: Question, exchange: Sequence[tuple[str, str]]) -> Reply:
        """One reply. ``exchange``: earlier unusable replies, each with the problem. Raises BackendError."""
        ...


async def ask_for(service: Service, question: Question, read: Callable[[str], T]) -> Answer[T]:
    """Ask, and ask again with the problem named while ``read`` raises ReplyError.

    Raises BackendError: MALFORMED after ``ASKS`` replies that cannot be read, EMPTY where the last one held nothing,
    else as the service does; its cost and attempts count all requests.
    """
    cost, attempts, problem, last = 0.0, 0, "", ""
    exchange: list[tuple[str, str]] = []
    for _ in range(ASKS):
        try:
            reply = await service.complete(question, exchange)
        except BackendError as error:
            raise BackendError(
                str(error), error.kind, cost_usd=cost + error.cost_usd, attempts=attempts + error.attempts
            ) from error
        cost, attempts, last = cost + reply.cost_usd, attempts + reply.attempts, reply.text.strip()
        try:
            if not last:
                raise ReplyError(f"it was empty (the model stopped with {reply.stopped!r})")
            return Answer(read(last), cost, attempts)
        except ReplyError as error:
            problem = str(error)
            exchange.append((last[:SHOWN], problem))
    kind = FailureKind.MALFORMED if last else FailureKind.EMPTY
    text = f"{service.title} gave no usable reply in {ASKS} tries ({problem}): try again, or choose another model"
    raise BackendError(text, kind, cost_usd=cost, attempts=attempts)


def complaint(problem: str) -> str:
    """What a model is told of a reply that cannot be used."""
    return f"Your reply could not be used: {problem}. Reply again with one JSON object of the required form only."
