"""How a server over HTTP stops: calls under way finish first, within limits."""

from __future__ import annotations

import logging
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import anyio
import uvicorn
from uvicorn.server import HANDLED_SIGNALS

from mcp_servers.limits import Traffic

logger = logging.getLogger("mcp_servers.http")


class GracefulServer(uvicorn.Server):
    """Lets the calls under way finish before it closes connections; calls that come meanwhile are told to wait."""

    def __init__(self, config: uvicorn.Config, traffic: Traffic, grace: float) -> None:
        super().__init__(config)
        self._traffic = traffic
        self._grace = grace

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Stop at the first signal; the next one ends the process at once.

        uvicorn's own handlers would not do: through them the library that writes event streams hears of the signal,
        and cuts off the calls of clients that get their answers as events.
        """
        came: list[int] = []

        def stop(number: int, frame: FrameType | None) -> None:
            came.append(number)
            self.should_exit = True
            for each in HANDLED_SIGNALS:
                signal.signal(each, signal.SIG_DFL)

        before = {each: signal.signal(each, stop) for each in HANDLED_SIGNALS}
        try:
            yield
        finally:
            for each, handler in before.items():
                signal.signal(each, handler)
        for number in came:
            signal.raise_signal(number)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Wait for calls under way, then end."""
        self._traffic.stopping = True
        if self._traffic.running:
            told = "stopping: calls under way (%d) have %g s to finish; another signal ends them at once"
            logger.warning(told, self._traffic.running, self._grace)
        with anyio.move_on_after(self._grace):
            while self._traffic.running:
                await anyio.sleep(0.05)
        if self._traffic.running:
            logger.warning("%d calls did not finish within %g s and were given up", self._traffic.running, self._grace)
        await super().shutdown(sockets)
