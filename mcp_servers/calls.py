"""How a tool call runs: its computing in a worker thread, its progress to the client, and its end when it is given up.

A thread cannot be interrupted, so a call that is cancelled or runs out of time is answered at once while its thread
goes on to its next ``step``, which ends it. Until then it keeps its place among the computing threads (threads.py).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from contextvars import ContextVar
from typing import Any, TypeAlias, TypeVar

import anyio
from anyio import from_thread, to_thread

from mcp_servers.threads import room

R = TypeVar("R")

Reporter: TypeAlias = Callable[[float, float | None, str | None], Coroutine[Any, Any, None]]
REPORTER: ContextVar[Reporter | None] = ContextVar("REPORTER", default=None)
"""Where the running call's progress goes; None outside of a call."""


async def compute(function: Callable[..., R], *args: object) -> R:
    """``function(*args)`` in one of the server's computing threads; raises what it raises.

    When the caller is cancelled it returns at once; the thread's place is free again when the thread has ended.
    """
    limiter, place = room(), object()
    await limiter.acquire_on_behalf_of(place)
    lock = threading.Lock()
    begun = given_up = False

    def work() -> R:
        nonlocal begun
        with lock:
            if given_up:
                raise RuntimeError("the call was given up before it began")
            begun = True
        try:
            return function(*args)
        except SystemExit as error:  # would end the worker thread and leave the call without an answer
            raise RuntimeError("a tool tried to end the server") from error
        finally:
            with suppress(RuntimeError):  # the event loop is gone: so is the limiter
                from_thread.run_sync(limiter.release_on_behalf_of, place)

    try:
        return await to_thread.run_sync(work, abandon_on_cancel=True, limiter=anyio.CapacityLimiter(1))
    finally:
        with lock:
            given_up = True
            if not begun:
                limiter.release_on_behalf_of(place)


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
