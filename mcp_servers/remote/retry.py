"""Carrying a request through passing trouble: exponential backoff with jitter, on failures that may pass alone."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

import anyio

from mcp_servers.backends import BackendChoice
from mcp_servers.errors import BackendError, FailureKind
from mcp_servers.remote.errors import Fault, fault_of

T = TypeVar("T")

FIRST_WAIT, LONGEST_WAIT = 1.0, 60.0
"""Seconds before the second request, and the longest between two. The wait doubles each time, less up to a half."""
UNREADABLE_TWICE = 2
"""Requests after which an answer that cannot be read is given up: such an answer may have been billed."""


@dataclass(frozen=True, slots=True)
class Answered(Generic[T]):
    """An answer, and how many requests it took."""

    value: T
    attempts: int


async def ask(
    send: Callable[[], Awaitable[T]], service: str, choice: BackendChoice, secrets: Iterable[str] = ()
) -> Answered[T]:
    """Make a request, again where its failure may pass, ``choice.attempts`` times at most.

    ``send`` makes one request, with the SDK's own retries off; each is given ``choice.timeout`` seconds. A
    ``Retry-After`` is honoured; one of more than ``LONGEST_WAIT`` ends it. Raises BackendError, also one that ``send``
    raised itself, with the number of requests made; exceptions that no service explains are passed on.
    """
    hidden = tuple(secrets)
    for attempt in range(1, choice.attempts + 1):
        try:
            with anyio.fail_after(choice.timeout):
                return Answered(await send(), attempt)
        except BackendError as error:
            raise BackendError(str(error), error.kind, cost_usd=error.cost_usd, attempts=attempt) from error
        except Exception as error:  # every SDK has its own; what none explains is raised again
            fault = fault_of(error, service, hidden)
            if fault is None:
                raise
            if not _again(fault, attempt, choice.attempts):
                raise fault.error(attempts=attempt) from error
            wait = fault.wait
        longest = min(LONGEST_WAIT, FIRST_WAIT * 2 ** (attempt - 1))
        await anyio.sleep(wait if wait is not None else longest * random.uniform(0.5, 1))
    raise AssertionError("attempts is at least 1")


def _again(fault: Fault, attempt: int, attempts: int) -> bool:
    if fault.kind is FailureKind.MALFORMED:
        attempts = min(attempts, UNREADABLE_TWICE)
    return fault.retry and attempt < attempts and (fault.wait is None or fault.wait <= LONGEST_WAIT)
