"""Where tools compute: in worker threads, one a core, or as many as ``ANOMALY_AGENT_THREADS`` says.

More would only fight for the cores, each with its pictures in memory. Waiting for services needs no thread, and what
the server itself does in threads (it reads its input in one) is not counted.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TypeVar

import anyio
from anyio import to_thread
from anyio.lowlevel import RunVar

from mcp_servers.errors import ToolInputError

R = TypeVar("R")
_ROOM: RunVar[anyio.CapacityLimiter] = RunVar("room")


def thread_count(environ: Mapping[str, str] = os.environ) -> int:
    """The number of threads. Raises ToolInputError where the environment asks for what is no number from 1 on."""
    text = environ.get("ANOMALY_AGENT_THREADS", "").strip()
    if not text:
        return max(2, os.cpu_count() or 1)
    if not text.isdecimal() or not 1 <= int(text) <= 1024:
        raise ToolInputError(f"ANOMALY_AGENT_THREADS={text[:40]}: choose a number from 1 to 1024, or unset it")
    return int(text)


def room() -> anyio.CapacityLimiter:
    """The places of the computing threads of this event loop's server."""
    try:
        return _ROOM.get()
    except LookupError:
        limiter = anyio.CapacityLimiter(thread_count())
        _ROOM.set(limiter)
        return limiter


async def compute(function: Callable[..., R], *args: object) -> R:
    """Call a function in a worker thread, as soon as there is room for it, and give its result.

    A thread cannot be interrupted: when the caller is cancelled this returns at once, while the thread goes on to its
    next ``calls.step`` or its end, and keeps its place until then.
    """
    loop, limiter, place = asyncio.get_running_loop(), room(), object()
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
                loop.call_soon_threadsafe(limiter.release_on_behalf_of, place)  # not waited for: it may stop before it

    try:
        return await to_thread.run_sync(work, abandon_on_cancel=True, limiter=anyio.CapacityLimiter(1))
    finally:
        with lock:
            given_up = True
            if not begun:
                limiter.release_on_behalf_of(place)
