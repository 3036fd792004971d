"""Where tools compute: in worker threads, one a core, or as many as ``ANOMALY_AGENT_THREADS`` says.

More would only fight for the cores, each with its pictures in memory. Waiting for services needs no thread, and what
the server itself does in threads (it reads its input in one) is not counted.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
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


async def compute(function: Callable[..., R], *args: object) -> R:
    """Call a function in a worker thread, as soon as there is room for it, and give its result."""
    try:
        room = _ROOM.get()
    except LookupError:
        room = anyio.CapacityLimiter(thread_count())
        _ROOM.set(room)
    return await to_thread.run_sync(function, *args, limiter=room)
