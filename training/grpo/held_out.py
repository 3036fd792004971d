"""How good the policy is on held-out tasks: greedy episodes, scored by the judge that reports."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

import anyio

from agent.session import append_events, read_session
from agent.task import Task
from agent.toolbox import Toolbox, ToolboxError, builtin_server
from training.grpo.config import GrpoConfig
from training.grpo.tools import toolbox_of
from training.held_out import measure
from training.local_policy import Batcher
from training.rejudge import judge_name, rejudge
from training.rescore import Scored, reward_events, score
from training.reward_config import RewardConfig
from training.rewards import reward
from training.sessions import find_sessions
from training.trace import read_trace

logger = logging.getLogger("training")


def measure_held_out(config: GrpoConfig, batcher: Batcher, tasks: Sequence[Task], folder: Path) -> dict[str, float]:
    """Run the tasks and have them judged; the figures, named as the trainer logs them.

    ``eval_reward`` and ``eval_score`` (0-10) go by the reporting judge, ``eval_reward_by_own_judge`` and
    ``eval_mean_score`` by the one that the policy sees. ``eval_full_reward`` is by the reporting judge with the default
    weights, so that trainings on other rewards can be compared. Raises ToolboxError, SessionError or OSError.
    """
    if folder.exists():  # measured before, and resumed from an earlier checkpoint
        shutil.rmtree(folder)
    tools = toolbox_of(config.tools, tasks, config.tools.make_recording(measuring=True))
    result = measure(batcher, tasks, folder, config.output.name, tools)
    reported = anyio.run(_report, config, folder)
    return {f"eval_{name}": value for name, value in {**result.figures(), **reported}.items()}


async def _report(config: GrpoConfig, folder: Path) -> dict[str, float]:
    """The reporting judge's figures of the episodes in a folder, appended to their sessions."""
    rewards, own, full, scores = [], [], [], []
    servers, tools = [builtin_server([], config.held_out.arguments)], config.tools
    recording = tools.make_recording(measuring=True)
    async with Toolbox(servers, tools.call_timeout, recording, tools.processes) as toolbox:
        judge = judge_name(toolbox)
        for place in find_sessions([folder]):
            session = read_session(place)
            verdicts = await rejudge(session, toolbox) if session.end else None
            if verdicts is None or verdicts.refused:
                logger.warning("held-out episode %s could not be judged: %s", place, verdicts and verdicts.refused)
                continue
            trace = read_trace(session)
            earned = reward(trace, config.rewards, verdicts.scores)
            if earned.excluded:
                continue
            scored = Scored(str(place), "appended", judge=judge)
            score(session, config.rewards, scored, verdicts)
            append_events(place, "reward", reward_events(scored, config.rewards))
            rewards.append(earned.total)
            own.append(reward(trace, config.rewards).total)
            full.append(reward(trace, RewardConfig(), verdicts.scores).total)
            final = trace.answer.final_image_index if trace.answer else None
            if final in verdicts.scores:
                scores.append(verdicts.scores[final])
    if not rewards:
        raise ToolboxError(f"none of the held-out episodes in {folder} could be judged by {judge}")
    figures = {"reward": fmean(rewards), "reward_by_own_judge": fmean(own), "full_reward": fmean(full)}
    return figures | ({"score": fmean(scores)} if scores else {})
