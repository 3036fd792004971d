"""A call's progress, told to its client step by step; at a step, a thread whose call was given up comes to its end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from concurrent.futures import wait
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from anyio import from_thread

LOOK_SECONDS = 0.5
"""How often a thread that waits for its event loop looks whether there still is one."""


@dataclass(frozen=True, slots=True)
class Reporter:
    """Sends a call's progress (steps done, steps in all, message) on the event loop that serves the call."""

    send: Callable[[float, float | None, str | None], Coroutine[Any, Any, None]]
    loop: asyncio.AbstractEventLoop


REPORTER: ContextVar[Reporter | None] = ContextVar("REPORTER", default=None)
"""Where the running call's progress goes; None outside of a call."""


def step(done: int, total: int, message: str) -> None:
    """From a computing thread: tell the client how far the call is, or end the thread where the call was given up.

    Raises RuntimeError where the server has ended, and the cancellation where the call was given up: an event loop that
    stops with work on its list never says so, and a thread that waited for it would keep the process from ending.
    """
    reporter = REPORTER.get()
    if reporter is None:
        return
    from_thread.check_cancelled()
    if reporter.loop.is_closed():
        raise RuntimeError("the server has ended")
    sent = asyncio.run_coroutine_threadsafe(reporter.send(float(done), float(total), message), reporter.loop)
    while not wait((sent,), timeout=LOOK_SECONDS).done:
        from_thread.check_cancelled()
        if reporter.loop.is_closed():
            raise RuntimeError("the server has ended")
    sent.result()


async def tell(done: int, total: int, message: str) -> None:
    """From a coroutine: tell the client how far the call is."""
    reporter = REPORTER.get()
    if reporter is not None:
        await reporter.send(float(done), float(total), message)
