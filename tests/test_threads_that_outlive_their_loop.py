"""A computing thread ends although the event loop that waited for it has ended: else the process never would."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator

import anyio
import pytest

from mcp_servers.calls import REPORTER, Reporter, step
from mcp_servers.threads import compute


class Work:
    """A tool's computation that waits in its thread until the test lets it go on."""

    def __init__(self, then: Callable[[], None] = lambda: None) -> None:
        self.begun, self.go = threading.Event(), threading.Event()
        self.then, self.thread = then, threading.current_thread()

    def __call__(self) -> None:
        self.thread = threading.current_thread()
        self.begun.set()
        self.go.wait()
        self.then()


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    made = asyncio.new_event_loop()
    yield made
    made.close()


def test_a_given_up_call_that_ends_after_its_loop_stopped(loop: asyncio.AbstractEventLoop) -> None:
    work = Work()

    async def main() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(compute, work)
            await anyio.to_thread.run_sync(work.begun.wait)
            group.cancel_scope.cancel()

    loop.run_until_complete(main())
    work.go.set()
    work.thread.join(timeout=30)
    assert not work.thread.is_alive()


def test_a_call_that_reports_a_step_to_a_loop_that_stopped(loop: asyncio.AbstractEventLoop) -> None:
    reported: list[float] = []

    async def report(done: float, total: float | None, message: str | None) -> None:
        reported.append(done)

    work = Work(then=lambda: step(1, 2, "drawing"))

    async def main() -> None:
        REPORTER.set(Reporter(report, loop))
        waiting.append(asyncio.ensure_future(compute(work)))
        await anyio.to_thread.run_sync(work.begun.wait)

    waiting: list[asyncio.Future[None]] = []
    loop.run_until_complete(main())
    work.go.set()
    loop.close()
    work.thread.join(timeout=30)
    assert not work.thread.is_alive()
    assert reported == []
