"""Episodes acted out for training: the loop that ``agent.run`` uses, many at once, each a recorded session.

The tool servers stand for as long as the training does, on an event loop of their own; the trainer's thread asks for
groups and waits. What goes wrong in an episode ends that episode: the step goes on.
"""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Sequence
from concurrent.futures import wait
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType

from anyio import CancelScope, to_thread
from anyio.from_thread import start_blocking_portal

from agent.many import Finished, run_many
from agent.policies import Policy
from agent.session import SessionError, append_events, read_session
from agent.task import StopReason, Task
from agent.toolbox import ToolboxError
from training.encoding import EncodingError
from training.grpo.config import GrpoConfig
from training.grpo.errors import RolloutError
from training.grpo.figures import figures_of
from training.grpo.tools import toolbox_of
from training.grpo.trajectory import Group, Trajectory, blank, cut, rewarded
from training.local_policy import LocalPolicy, TurnSource
from training.rescore import RECORDED, Scored, reward_events, score
from training.rewards import COMPONENTS, reward
from training.trace import read_trace

logger = logging.getLogger("training")
PATIENCE = 3
"""Waves in a row that may be without one rollout that can be learned from; one more ends the training."""


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
    ``rank``: the process's, so that processes that draw the same task roll it out differently.
    """

    config: GrpoConfig
    tasks: Sequence[Task]
    folder: Path
    rank: int = 0
    timing: Timing = field(default_factory=Timing)
    _stack: ExitStack = field(default_factory=ExitStack)
    _tools: ExitStack = field(default_factory=ExitStack)
    _broken: bool = False
    _failed_waves: int = 0
    _used: bool = False
    _last_error: str = ""

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
        self._stack.__exit__(kind, error, trace)

    def _open(self) -> None:
        """Start or reach the tool servers, again where one of them died."""
        self._tools.close()
        toolbox = toolbox_of(self.config.tools, self.tasks, self._recording)
        self._toolbox = self._tools.enter_context(self._portal.wrap_async_context_manager(toolbox))
        self._broken = False

    def groups(self, source: TurnSource, numbers: Sequence[int], step: int, wave: str = "") -> list[Group]:
        """Roll out the tasks of these numbers, all episodes at once: one group each.

        The sessions lie in ``step-NNNNNN/TASK-ROLLOUT`` under the folder. Servers are started anew after one of them
        died. Raises what generation raises, such as running out of memory, ToolboxError where the tools cannot be
        started again or fail in every episode of wave after wave, and RolloutError where wave after wave is of no use
        for another reason. An interruption cancels the episodes, which record it, before it goes on.
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
        scope = self._portal.call(CancelScope)
        future = self._portal.start_task_soon(self._run, scope, source, tasks, names, folder, step)
        try:
            made = future.result()
        except BaseException:
            self._portal.call(scope.cancel)
            wait([future])
            raise
        self._look_for_failures(made, folder)
        return [
            Group(number, step, tuple(made[place * size : (place + 1) * size])) for place, number in enumerate(numbers)
        ]

    def check(self) -> None:
        """Raise ToolboxError or RolloutError where there were rollouts and none of them could be learned from."""
        if self._failed_waves and not self._used:
            raise self._failure(self._broken, self.folder)

    def _look_for_failures(self, made: Sequence[Trajectory], folder: Path) -> None:
        """Count waves that are of no use. Raises ToolboxError or RolloutError after too many."""
        used = any(rollout.rewards[COMPONENTS[0]] is not None for rollout in made)
        tools = not used and all(rollout.stop_reason == StopReason.TOOL_ERROR for rollout in made)
        self._used |= used
        self._failed_waves = 0 if used else self._failed_waves + 1
        self._broken |= tools
        if self._failed_waves > PATIENCE:
            raise self._failure(tools, folder)
        if not used:
            logger.warning("no rollout of this wave can be learned from: %s (sessions in %s)", self._last_error, folder)

    def _failure(self, tools: bool, folder: Path) -> ToolboxError | RolloutError:
        what = "tools failed in every episode of" if tools else "no rollout could be learned from in"
        kind = ToolboxError if tools else RolloutError
        cure = "go on with --resume" if tools else "go on with --resume, or start again where that changes [rollout]"
        return kind(
            f"{what} {self._failed_waves} waves in a row: {self._last_error} (sessions in {folder}); mend it and {cure}"
        )

    async def _run(
        self,
        scope: CancelScope,
        source: TurnSource,
        tasks: Sequence[Task],
        names: Sequence[str],
        folder: Path,
        step: int,
    ) -> list[Trajectory]:
        """The trajectories of the tasks, fewer where the scope was cancelled."""
        with scope:
            return await self._act(source, tasks, names, folder, step)
        return []

    async def _act(
        self, source: TurnSource, tasks: Sequence[Task], names: Sequence[str], folder: Path, step: int
    ) -> list[Trajectory]:
        rollout = self.config.rollout
        seed = f"{self.rank} {step}" if self.rank else f"{step}"  # an episode's random numbers, with its name
        policies = {
            id(task): LocalPolicy(source, self.config.output.name, f"{seed} {name}", rollout.max_tokens)
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
        self._last_error = one.error or problem or self._last_error
        if problem:
            ended = f" ({one.error})" if one.error else ""
            logger.error("rollout %s is left out of the loss: %s%s", one.folder, problem, ended)
            trajectory = replace(blank(source.encoder), problem=problem, figures=figures)
        trajectory = replace(trajectory, session=one.folder, stop_reason=one.episode.stop_reason.value, figures=figures)
        if problem:
            return trajectory
        grpo = self.config.grpo
        return rewarded(trajectory, rewards, grpo.failure_reward if grpo.tool_failure == "penalty" else None)
