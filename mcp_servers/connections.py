"""HTTP connections hold no place for nothing: the head of a request comes in time, or they are closed.

Nor do they hold up the server's end: what is open then is cut off as if its client had gone, which every call ends at.
"""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.h11_impl import H11Protocol

HEAD_SECONDS = 10.0
"""Seconds from the opening of a connection, or from its last answer, in which the next request's head must be there."""
LAST_SECONDS = 1
"""Seconds in which answers that were begun go out once the server closes its connections."""


class PromptProtocol(H11Protocol):
    """uvicorn's HTTP/1.1, which alone would wait for the first request, or for the rest of a head, without end."""

    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for the first request."""
        super().connection_made(transport)
        self._wait_for_head()

    def on_response_complete(self) -> None:
        """Begin to wait for the next request."""
        super().on_response_complete()
        self._wait_for_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no more."""
        if self._timer is not None:
            self._timer.cancel()
        super().connection_lost(exc)

    def shutdown(self) -> None:
        """Close once the answer that was begun is out; what is not out soon (a client's open event stream) is cut."""
        super().shutdown()
        self.loop.call_later(LAST_SECONDS, self.transport.abort)

    def _wait_for_head(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self.loop.call_later(HEAD_SECONDS, self._close_without_head)

    def _close_without_head(self) -> None:
        if self.cycle is None or self.cycle.response_complete:
            self.transport.close()
