"""Episodes acted out for training: the loop that ``agent.run`` uses, many at once, each a recorded session.

The tool servers stand for as long as the training does, on an event loop of their own; the trainer's thread asks for
groups and waits. What goes wrong in an episode ends that episode: the step goes on.
"""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType

from anyio import to_thread
from anyio.from_thread import start_blocking_portal

from agent.many import Finished, run_many
from agent.policies import Policy
from agent.session import SessionError, append_events, read_session
from agent.task import StopReason, Task
from agent.toolbox import ToolboxError
from training.encoding import EncodingError
from training.grpo.config import GrpoConfig
from training.grpo.figures import figures_of
from training.grpo.tools import toolbox_of
from training.grpo.trajectory import Group, Trajectory, blank, cut, rewarded
from training.local_policy import LocalPolicy, TurnSource
from training.rescore import RECORDED, Scored, reward_events, score
from training.rewards import reward
from training.trace import read_trace

logger = logging.getLogger("training")
PATIENCE = 3
"""Waves in a row that may consist of nothing but episodes that a tool's failure ended; one more ends the training."""


@dataclass(slots=True)
class Timing:
    """Seconds that a step's rollouts took, and the longest of them."""

    seconds: float = 0.0
    longest: float = 0.0
    tokens: int = 0


@dataclass
class Rollouts:
    """Rolls out groups of tasks; a context manager around the tool servers.

    Entering raises ToolboxError where the tools cannot be started or reached. ``timing`` adds up until it is taken.
    """

    config: GrpoConfig
    tasks: Sequence[Task]
    folder: Path
    timing: Timing = field(default_factory=Timing)
    _stack: ExitStack = field(default_factory=ExitStack)
    _tools: ExitStack = field(default_factory=ExitStack)
    _broken: bool = False
    _failed_waves: int = 0

    def __enter__(self) -> Rollouts:
        tools = self.config.tools
        self._recording = tools.make_recording()
        try:
            self._portal = self._stack.enter_context(start_blocking_portal())
            self._stack.callback(self._tools.close)
            self._open()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def _open(self) -> None:
        """Start or reach the tool servers, again where one of them died."""
        self._tools.close()
        toolbox = toolbox_of(self.config.tools, self.tasks, self._recording)
        self._toolbox = self._tools.enter_context(self._portal.wrap_async_context_manager(toolbox))
        self._broken = False

    def groups(self, source: TurnSource, numbers: Sequence[int], step: int, wave: str = "") -> list[Group]:
        """Roll out the tasks of these numbers, all episodes at once: one group each.

        The sessions lie in ``step-NNNNNN/TASK-ROLLOUT`` under the folder. Servers are started anew after one of them
        died. Raises what generation raises, such as running out of memory, and ToolboxError where the tools cannot be
        started again or fail in every episode of wave after wave.
        """
        size = self.config.grpo.group_size
        folder = self.folder / f"step-{step:06d}{wave}"
        if folder.exists():  # of a training that was resumed from an earlier checkpoint
            shutil.rmtree(folder)
        # a copy of the task for each episode: episodes are told apart by identity
        tasks = [replace(self.tasks[number]) for number in numbers for _ in range(size)]
        names = [f"{number:05d}-{copy}" for number in numbers for copy in range(size)]
        if self._broken:
            logger.warning("step %d: the tool servers are started anew", step + 1)
            self._open()
        made = self._portal.call(self._run, source, tasks, names, folder, step)
        self._look_for_failures(made, folder)
        return [
            Group(number, step, tuple(made[place * size : (place + 1) * size])) for place, number in enumerate(numbers)
        ]

    def _look_for_failures(self, made: Sequence[Trajectory], folder: Path) -> None:
        """Count waves of which nothing was left. Raises ToolboxError after too many."""
        failed = bool(made) and all(rollout.stop_reason == StopReason.TOOL_ERROR for rollout in made)
        self._failed_waves = self._failed_waves + 1 if failed else 0
        self._broken |= failed
        if self._failed_waves > PATIENCE:
            end = read_session(made[-1].session).end or {}
            raise ToolboxError(
                f"tools failed in every episode of {self._failed_waves} waves in a row: {end.get('error')} (sessions "
                f"in {folder}); mend them and go on from the last checkpoint with --resume"
            )

    async def _run(
        self, source: TurnSource, tasks: Sequence[Task], names: Sequence[str], folder: Path, step: int
    ) -> list[Trajectory]:
        rollout = self.config.rollout
        policies = {
            id(task): LocalPolicy(source, self.config.output.name, f"{step} {name}", rollout.max_tokens)
            for task, name in zip(tasks, names, strict=True)
        }
        made: list[Trajectory | None] = [None] * len(tasks)

        def policy_of(task: Task) -> Policy:
            return policies[id(task)]

        def folder_of(number: int, task: Task) -> Path:
            return folder / names[number]

        started = time.perf_counter()
        async with run_many(
            tasks, policy_of, self._toolbox, folder_of, limit=rollout.at_once, seconds=rollout.seconds
        ) as finished:
            async for one in finished:
                if source.failure:
                    break
                policy = policies.pop(id(tasks[one.number]))
                made[one.number] = await to_thread.run_sync(self._trajectory, source, policy, one)
                self.timing.longest = max(self.timing.longest, one.episode.seconds)
        if source.failure:  # the model could not generate: no fault of the episodes
            raise source.failure
        self.timing.seconds += time.perf_counter() - started
        whole = [trajectory for trajectory in made if trajectory is not None]
        self.timing.tokens += sum(sum(trajectory.sampled) for trajectory in whole)
        return whole

    def _trajectory(self, source: TurnSource, policy: LocalPolicy, one: Finished) -> Trajectory:
        """What an episode leaves to learn from, its rewards appended to its session."""
        problem = ""
        try:
            trajectory = cut(policy.encoded, policy.sampled, policy.logprobs, source.encoder.processor)
        except EncodingError as error:
            problem = str(error)
        try:
            session = read_session(one.folder)
            self._broken |= any(event.get("error_class") == "died" for event in session.of_type("tool_result"))
            trace = read_trace(session)
            rewards = reward(trace, self.config.rewards)
            figures = figures_of(trace, one.episode, rewards)
            result = Scored(str(one.folder), "appended", judge=RECORDED)
            score(session, self.config.rewards, result)
            append_events(one.folder, "reward", reward_events(result, self.config.rewards))
        except (SessionError, OSError) as error:
            problem, figures = f"its session cannot be used: {error}", {}
        if problem:
            logger.error("rollout %s is left out of the loss: %s", one.folder, problem)
            trajectory = replace(blank(source.encoder), problem=problem, figures=figures)
        trajectory = replace(trajectory, session=one.folder, stop_reason=one.episode.stop_reason.value, figures=figures)
        if problem:
            return trajectory
        grpo = self.config.grpo
        return rewarded(trajectory, rewards, grpo.failure_reward if grpo.tool_failure == "penalty" else None)
