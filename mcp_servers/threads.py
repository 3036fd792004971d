"""How many tool calls a server computes at once: as many as there are cores, or as ``ANOMALY_AGENT_THREADS`` says.

More would only fight for the cores, each with its pictures in memory. Calls that wait for a service are not counted.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

import anyio
from anyio.lowlevel import RunVar

from mcp_servers.errors import ToolInputError

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
    """The limiter that all computing tools of a server share."""
    try:
        return _ROOM.get()
    except LookupError:
        limiter = anyio.CapacityLimiter(thread_count())
        _ROOM.set(limiter)
        return limiter
