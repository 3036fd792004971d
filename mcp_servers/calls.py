"""A call's progress, told to its client step by step; at a step, a thread whose call was given up comes to its end."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from contextvars import ContextVar
from typing import Any, TypeAlias

from anyio import from_thread

Reporter: TypeAlias = Callable[[float, float | None, str | None], Coroutine[Any, Any, None]]
REPORTER: ContextVar[Reporter | None] = ContextVar("REPORTER", default=None)
"""Where the running call's progress goes; None outside of a call."""


def step(done: int, total: int, message: str) -> None:
    """From a computing thread: tell the client how far the call is, or end the thread where the call was given up."""
    reporter = REPORTER.get()
    if reporter is not None:
        from_thread.check_cancelled()
        from_thread.run(reporter, float(done), float(total), message)


async def tell(done: int, total: int, message: str) -> None:
    """From a coroutine: tell the client how far the call is."""
    reporter = REPORTER.get()
    if reporter is not None:
        await reporter(float(done), float(total), message)
