"""One episode: policy turn -> tool call -> observation, until the answer. THE loop: running, recording and
training all use this one.

The log is written in worker threads, and is on disk before the next call of the policy or of a tool is made.

Errors are settled here: a tool's refusal is an observation the policy may act on, a turn that cannot be read
gets one message that says what is wrong, and whatever else goes wrong ends the episode with a StopReason. An
episode always returns; what was made before it ended is kept.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import anyio
from anyio import to_thread

from agent.budget import Budget, BudgetError
from agent.episode import Episode, Made, check_answer, notes_of
from agent.ledger import POLICY
from agent.policies import Policy, PolicyError, Reply
from agent.protocol import (
    Answer,
    ImageRef,
    Message,
    ProtocolError,
    ToolCall,
    observation,
    parse_turn,
    protocol_hash,
    system_prompt,
    user_prompt,
)
from agent.session import SessionWriter
from agent.task import StopReason, Task
from agent.toolbox import Observation, Toolbox, ToolboxError

MAX_REPAIRS = 2
"""How many turns of one episode may be unreadable before it ends in a policy_error."""


async def run_episode(
    task: Task,
    policy: Policy,
    toolbox: Toolbox,
    session: SessionWriter,
    progress: Callable[[str], None] = lambda _: None,
    episode: Episode | None = None,
    budget: Budget | None = None,
) -> Episode:
    """Run one task to its end and record it. Raises cancellation, OSError of the log and bugs, recorded first.

    ``episode``: filled as the episode goes, for a caller who wants what was made before a cancellation. ``budget``:
    shared by all episodes of a job; an episode ends before the call that might pass it.
    """
    runner = _Runner(task, policy, toolbox, session, progress, episode or Episode(task), budget or Budget())
    try:
        await runner.run()
    except anyio.get_cancelled_exc_class():
        runner.end(StopReason.CANCELLED, "cancelled")
        session.sync()  # here and now: a cancelled task cannot wait for a thread
        raise
    except OSError:  # the log cannot be written: nothing more is said in it
        raise
    except Exception as error:
        runner.end(StopReason.POLICY_ERROR, f"{type(error).__name__}: this is a bug, the traceback says where")
        with suppress(OSError):
            session.sync()
        raise
    return runner.episode


class _Runner:
    def __init__(
        self,
        task: Task,
        policy: Policy,
        toolbox: Toolbox,
        session: SessionWriter,
        progress: Callable[[str], None],
        episode: Episode,
        budget: Budget,
    ) -> None:
        self.task, self.policy, self.toolbox, self.session, self.progress = task, policy, toolbox, session, progress
        self.episode, self.budget = episode, budget
        self.messages: list[Message] = []
        self.started = time.perf_counter()
        self.ended = False

    async def run(self) -> None:
        signatures = self.toolbox.signatures()
        self.session.add(
            "session_start",
            session_id=uuid.uuid4().hex,
            task=self.task.to_json(),
            policy=self.policy.describe(),
            servers=self.toolbox.described,
            tools=signatures,
            protocol_hash=protocol_hash(signatures),
        )
        try:
            await self.sync()
            self.episode.original = await self.toolbox.open_photo(self.task.image)
            self.say(Message("system", system_prompt(signatures)))
            self.say(Message("user", user_prompt(self.task), (self.episode.original,)))
            try:
                await self.turns(signatures)
            except BudgetError as error:
                await self.finish()
                self.end(StopReason.BUDGET, str(error))
        except PolicyError as error:
            self.end(error.stop, str(error))
        except ToolboxError as error:
            self.end(StopReason.TOOL_ERROR, str(error))
        await self.sync()

    async def turns(self, signatures: Sequence[dict[str, Any]]) -> None:
        while self.episode.turns < self.task.max_turns:
            reply = await self.ask(signatures)
            self.say(Message("assistant", reply.text))
            try:
                if reply.problem:
                    raise ProtocolError(reply.problem)
                turn = parse_turn(reply.text)
                if isinstance(turn.action, Answer):
                    check_answer(turn.action, self.episode)
                    self.episode.answer = turn.action
                    return self.end(StopReason.ANSWERED, None)
            except ProtocolError as error:
                self.repair(str(error))
                continue
            await self.act(turn.thinking, turn.action)
        return self.end(StopReason.MAX_TURNS, f"no answer within {self.task.max_turns} turns: raise --max-turns")

    async def ask(self, signatures: Sequence[dict[str, Any]]) -> Reply:
        """Have the policy write its next turn. Raises PolicyError, and BudgetError where it might cost too much."""
        model = str(self.policy.describe().get("model") or self.policy.name)
        with self.budget.reserve(self.policy.max_cost_usd(self.messages), model) as reserved:
            await self.sync()
            started = time.perf_counter()
            try:
                reply = await self.policy.next_turn(self.messages, signatures)
            except PolicyError as error:
                failed = Reply("", error.call)
                reserved.settle(self.paid(failed, time.perf_counter() - started, failed=True) if error.call else None)
                raise
            self.episode.turns += 1
            reserved.settle(self.paid(reply, time.perf_counter() - started))
        return reply

    def paid(self, reply: Reply, seconds: float, *, failed: bool = False) -> float:
        """Log and account for a turn of the policy; what it cost now, in US dollars."""
        cost = reply.call.cost_usd if reply.call else 0.0
        now, recorded = (0.0, cost) if reply.replayed else (cost, None)
        self.episode.ledger.add(
            POLICY, seconds, now, failed=failed, replayed=reply.replayed, recorded_cost_usd=recorded
        )
        if reply.call:
            fields = reply.call.to_json() | {"cost_usd": now, "cache_key": reply.key or None}
            fields |= {"replayed": reply.replayed} | ({"recorded_cost_usd": cost} if reply.replayed else {})
            self.session.add("model_call", turn=self.episode.turns + failed, **fields)
        return now

    async def act(self, thinking: str, call: ToolCall) -> None:
        """Carry out one call, log it on both sides and tell the policy what came back.

        Raises ToolboxError, and BudgetError where the call might cost too much.
        """
        most = await self.toolbox.max_cost_usd(call, self.task, self.episode.images)
        with self.budget.reserve(most, call.name) as reserved:
            self.progress(f"{self.episode.turns:2d}  {call.name:<20} {_first_line(thinking)}")
            call_id = f"call_{self.episode.turns}"
            self.session.add("tool_call", call_id=call_id, tool=call.name, arguments=call.arguments)
            await self.sync()
            started = time.perf_counter()
            try:
                seen = await self.toolbox.call(call, self.task, self.episode.images)
            except ToolboxError as error:
                seconds = time.perf_counter() - started
                reserved.settle(error.cost_usd)
                self.episode.ledger.add(call.name, seconds, error.cost_usd or 0.0, failed=True)
                self.session.add(
                    "tool_result", call_id=call_id, tool=call.name, ok=False, seconds=round(seconds, 4),
                    cost_usd=error.cost_usd, payload={}, bound={}, images=[], error_class=error.kind, error=str(error),
                    cache_key=None, replayed=False,
                )  # fmt: skip
                raise
            reserved.settle(seen.cost_usd)
        self.remember(call, seen)
        images = [("synthesis", seen.image), ("mask", seen.mask)]
        recorded = {"recorded_cost_usd": seen.recorded_cost_usd, "recorded_seconds": seen.recorded_seconds}
        self.session.add(
            "tool_result", call_id=call_id, tool=call.name, ok=not seen.error, seconds=round(seen.seconds, 4),
            cost_usd=seen.cost_usd, payload=seen.payload, bound=seen.bound,
            images=[self.logged(image, role) for role, image in images if image],
            error_class=seen.kind or None, error=seen.error or None,
            cache_key=seen.cache_key or None, replayed=seen.replayed, **(recorded if seen.replayed else {}),
        )  # fmt: skip
        shown = (seen.image,) if seen.image else ()
        self.say(Message("tool", observation(call.name, seen.shown), shown, call.name))

    async def finish(self) -> None:
        """With the budget spent: find the mask of an image that passed and lacks only that, where it costs nothing."""
        passed = [made for made in self.episode.made if (made.evaluation or {}).get("passed")]
        best = max(passed, key=lambda made: float((made.evaluation or {}).get("score") or 0.0), default=None)
        if best is None or (self.episode.mask is not None and self.episode.mask_of == best.image.index):
            return
        call = ToolCall("mask_gen", {"anomaly_image": best.image.index})
        if await self.toolbox.max_cost_usd(call, self.task, self.episode.images) == 0:
            self.say(Message("user", f"The budget is spent. Image {best.image.index} passed and gets its mask."))
            self.episode.turns += 1
            await self.act("the budget is spent; the mask costs nothing", call)

    def remember(self, call: ToolCall, seen: Observation) -> None:
        """Update the episode's state from a result."""
        self.episode.ledger.add(
            call.name, seen.seconds, seen.cost_usd, failed=bool(seen.error), replayed=seen.replayed,
            recorded_cost_usd=seen.recorded_cost_usd,
        )  # fmt: skip
        if seen.error:
            return self.progress(f"    {call.name} refused: {seen.error}")
        if backend := seen.payload.get("backend"):
            self.episode.backends[call.name] = str(backend)
        for note in notes_of(seen.payload):
            if note not in self.episode.notes:
                self.episode.notes.append(note)
                self.progress(f"    note: {note}")
        if seen.image:
            self.episode.made.append(Made(seen.image, str(call.arguments.get("prompt", ""))))
        if call.name == "quality_eval":
            index = call.arguments["anomaly_image"]
            if index > 1:
                self.episode.made[index - 2].evaluation = seen.payload
            self.progress(f"    image {index}: score {seen.payload.get('score')}")
        if call.name == "mask_gen":
            self.episode.mask_result, self.episode.mask = seen.payload, seen.mask
            self.episode.mask_of = call.arguments["anomaly_image"]
        return None

    def repair(self, problem: str) -> None:
        """Tell the policy once more what a turn looks like. Raises PolicyError when it keeps failing."""
        self.episode.repairs += 1
        if self.episode.repairs > MAX_REPAIRS:
            raise PolicyError(f"the policy's turns could not be read {self.episode.repairs} times: {problem}")
        self.say(Message("user", f"Your turn could not be used: {problem}. Write it again."))

    def say(self, message: Message) -> None:
        """Add a message to the conversation and to the log."""
        self.messages.append(message)
        role = "original" if message.role == "user" else "synthesis"
        images = [self.logged(image, role) for image in message.images]
        named = {"name": message.name} if message.name else {}
        self.session.add("message", role=message.role, content=message.content, images=images, **named)

    def logged(self, image: ImageRef, role: str) -> dict[str, Any]:
        """Have an image stored and describe it for the log."""
        self.session.queue_image(image.sha256, image.png)
        return {
            "role": role,
            "index": image.index or None,
            "handle": self.toolbox.handle_of(image),
            "sha256": image.sha256,
            "width": image.width,
            "height": image.height,
        }

    async def sync(self) -> None:
        """Have the log on disk before anything else is done."""
        await to_thread.run_sync(self.session.sync)

    def end(self, reason: StopReason, error: str | None) -> None:
        """Set down how the episode ended; only the first end counts."""
        if self.ended:
            return
        self.ended = True
        episode = self.episode
        episode.stop_reason, episode.error = reason, error
        episode.seconds = round(time.perf_counter() - self.started, 3)
        self.session.add(
            "session_end",
            stop_reason=reason.value,
            answer=episode.answer.to_json() if episode.answer else None,
            error=error,
            turns=episode.turns,
            repairs=episode.repairs,
            seconds=episode.seconds,
            cost_usd=episode.cost_usd,
            ledger=episode.ledger.to_json(),
        )


def _first_line(text: str) -> str:
    line: Sequence[str] = text.strip().splitlines() or [""]
    return line[0] if len(line[0]) <= 96 else line[0][:95] + "…"
