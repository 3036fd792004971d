"""The tools that a training acts with: the same ones for rollouts and for measurements."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from agent.replay import Recording
from agent.task import Task
from agent.toolbox import Toolbox, builtin_server, server_of
from training.grpo.config import ToolsSection


def toolbox_of(section: ToolsSection, tasks: Sequence[Task], recording: Recording | None) -> Toolbox:
    """The configured tools, not started yet; the built-in server may read the folders of the tasks' photos."""
    photos = sorted({Path(task.image).parent for task in tasks})
    servers = [server_of(text) for text in section.servers] or [builtin_server(photos, section.arguments)]
    return Toolbox(servers, section.call_timeout, recording, section.processes)
