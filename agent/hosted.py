"""An async context manager that any task may ask for: entered on first use and left in one task of its own.

Contexts that hold task groups (an MCP client does) must be left by the task that entered them; here that task is one
that waits in the owner's task group.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, suppress
from typing import Generic, TypeVar

import anyio

T = TypeVar("T")
GONE = (OSError, anyio.BrokenResourceError, anyio.ClosedResourceError)
"""What leaving a connection raises whose other end has died."""


class Hosted(Generic[T]):
    """``start_soon(hosted.run)`` in a task group, ``await hosted.get()`` anywhere, ``hosted.stop()`` to leave it.

    ``failures``: exceptions of entering that ``get`` raises; all others end the task group.
    """

    def __init__(
        self, make: Callable[[], AbstractAsyncContextManager[T]], failures: tuple[type[Exception], ...]
    ) -> None:
        self._make, self._failures = make, failures
        self._wanted, self._settled, self._stop = anyio.Event(), anyio.Event(), anyio.Event()
        self.error: Exception | None = None
        """Why it could not be entered."""
        self.value: T | None = None
        """What the context gave; None while it is not entered."""

    async def run(self) -> None:
        """Wait until the context is wanted, enter it, and leave it when told to."""
        await self._wanted.wait()
        if self._stop.is_set():
            return
        with suppress(*GONE):
            try:
                async with self._make() as value:
                    self.value = value
                    self._settled.set()
                    await self._stop.wait()
            except self._failures as error:
                if self._settled.is_set():
                    raise
                self.error = error
            finally:
                self._settled.set()

    def want(self) -> None:
        """Have the context entered, without waiting for it."""
        self._wanted.set()

    async def get(self) -> T:
        """The context's value, entered now where it was not yet."""
        self.want()
        await self._settled.wait()
        if self.error is not None:
            raise self.error
        if self.value is None:
            raise RuntimeError("the context was left before it was entered")
        return self.value

    def stop(self) -> None:
        """Have the context left; ``run`` returns when it is."""
        self._stop.set()
        self._wanted.set()
