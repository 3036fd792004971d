"""Recorded sessions and a tiny model for training tests, made once."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import anyio
import cv2

from agent.loop import run_episode
from agent.policies.planner import Planner
from agent.session import SessionWriter
from agent.task import Task
from agent.toolbox import Toolbox, builtin_server
from tests.conftest import make_photo


@cache
def planner_sessions(count: int = 6) -> Path:
    """A folder of sessions that the planner recorded, each on a photo of its own."""
    folder = Path(mkdtemp(prefix="planner-sessions-"))
    tasks = []
    (folder / "photos").mkdir()
    for seed in range(count):
        photo = folder / "photos" / f"{seed}.png"
        cv2.imwrite(str(photo), make_photo(96, 96, seed))
        tasks.append(Task(str(photo), "plate", "scratch", seed=seed, max_images=1))

    async def record() -> None:
        async with Toolbox([builtin_server([folder / "photos"])]) as toolbox:
            for task in tasks:
                with SessionWriter(folder / "sessions" / str(task.seed)) as session:
                    await run_episode(task, Planner(task), toolbox, session)

    anyio.run(record)
    return folder / "sessions"


@cache
def fitted_model() -> Path:
    """A model with random weights whose tokenizer was trained on the sessions."""
    from training.tiny import TinySize, make_tiny, session_texts

    size = TinySize(hidden=64, layers=2, heads=2, feed_forward=128, vocabulary=1024, vision_hidden=32, phrases=0.5)
    return make_tiny(Path(mkdtemp(prefix="fitted-")), session_texts([planner_sessions()]), size)
