"""Many episodes at once over one toolbox: what folders of samples, benchmarks and training all use.

While one episode waits for an editor, others have their images judged and masked. Each is recorded in a folder of its
own; one that fails, hangs or crashes ends alone.
"""

from __future__ import annotations

import logging
import math
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import anyio
from anyio.abc import ObjectReceiveStream, ObjectSendStream

from agent.budget import Budget
from agent.episode import Episode
from agent.loop import run_episode
from agent.policies import Policy
from agent.session import SessionError, SessionWriter
from agent.task import Task
from agent.toolbox import Toolbox

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Finished:
    """One episode that ended, in whatever way. ``number`` counts the tasks from 0 in the order they were given.

    ``error``: what ended it, None where it ended with an answer.
    """

    number: int
    folder: Path
    episode: Episode
    error: str | None


@asynccontextmanager
async def run_many(
    tasks: Iterable[Task],
    make_policy: Callable[[Task], Policy],
    toolbox: Toolbox,
    folder_of: Callable[[int, Task], Path],
    *,
    limit: int = 8,
    budget: Budget | None = None,
    seconds: float = math.inf,
) -> AsyncIterator[ObjectReceiveStream[Finished]]:
    """Run every task, at most ``limit`` at a time, and give a stream of those that have finished, soonest first.

        async with run_many(tasks, Planner, toolbox, folder_of, limit=64) as finished:
            async for one in finished: ...

    ``folder_of`` names the session's folder. ``budget`` is shared. An episode that takes over ``seconds`` is cancelled,
    recorded as such, and given like the others. The stream waits for its reader, so that no more than ``limit``
    episodes with their images are in memory; leaving the context early cancels what still runs (recorded). Raises
    ValueError for a limit below 1.
    """
    if limit < 1:
        raise ValueError(f"a limit of {limit} runs nothing: give 1 or more")
    shared = budget or Budget()
    room = anyio.Semaphore(limit)
    send, receive = anyio.create_memory_object_stream[Finished](0)

    async def one(number: int, task: Task, results: ObjectSendStream[Finished]) -> None:
        try:
            async with results:
                folder, episode = folder_of(number, task), Episode(task)
                error = await _contained(task, make_policy, toolbox, folder, episode, shared, seconds)
                await results.send(Finished(number, folder, episode, error))
        finally:
            room.release()

    async def start_all() -> None:
        async with send:
            for number, task in enumerate(tasks):
                await room.acquire()
                group.start_soon(one, number, task, send.clone())

    async with anyio.create_task_group() as group, receive:
        group.start_soon(start_all)
        yield receive
        group.cancel_scope.cancel()


async def _contained(
    task: Task,
    make_policy: Callable[[Task], Policy],
    toolbox: Toolbox,
    folder: Path,
    episode: Episode,
    budget: Budget,
    seconds: float,
) -> str | None:
    """Run one episode; whatever goes wrong in it is told, None where it was answered. Raises cancellation alone."""
    try:
        with anyio.move_on_after(seconds) as time_limit, SessionWriter(folder) as session:
            await run_episode(task, make_policy(task), toolbox, session, episode=episode, budget=budget)
    except (SessionError, OSError) as error:
        episode.error = f"the session in {folder} cannot be written: {error}"
    except Exception as error:
        logger.exception("an episode crashed; its session is in %s", folder)
        episode.error = episode.error or f"{type(error).__name__}: this is a bug, the traceback says where"
    if time_limit.cancelled_caught:
        episode.error = f"cancelled after {seconds:g} s, the most that an episode may take"
    return episode.error
