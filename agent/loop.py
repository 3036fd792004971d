"""One episode: policy turn -> tool call -> observation, until the answer. THE loop: running, recording and
training all use this one.

Errors are settled here: a tool's refusal is an observation the policy may act on, a turn that cannot be read
gets one message that says what is wrong, and whatever else goes wrong ends the episode with a StopReason. An
episode always returns; what was made before it ended is kept.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Sequence
from typing import Any

import anyio

from agent.episode import Episode, Made
from agent.policies import ModelCall, Policy, PolicyError
from agent.protocol import (
    Answer,
    ImageRef,
    Message,
    ProtocolError,
    ToolCall,
    Turn,
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
) -> Episode:
    """Run one task to its end and record it. Raises only cancellation (recorded first) and OSError of the log.

    ``episode``: filled as the episode goes, for a caller who wants what was made before a cancellation.
    """
    runner = _Runner(task, policy, toolbox, session, progress, episode or Episode(task))
    try:
        await runner.run()
    except anyio.get_cancelled_exc_class():
        runner.end(StopReason.CANCELLED, "cancelled")
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
    ) -> None:
        self.task, self.policy, self.toolbox, self.session, self.progress = task, policy, toolbox, session, progress
        self.episode = episode
        self.messages: list[Message] = []
        self.started = time.perf_counter()

    async def run(self) -> None:
        signatures = self.toolbox.signatures()
        self.session.append(
            "session_start",
            session_id=uuid.uuid4().hex,
            task=self.task.to_json(),
            policy=self.policy.describe(),
            servers=self.toolbox.described,
            tools=signatures,
            protocol_hash=protocol_hash(signatures),
        )
        try:
            self.episode.original = await self.toolbox.open_photo(self.task.image)
            self.say(Message("system", system_prompt(signatures)))
            self.say(Message("user", user_prompt(self.task), (self.episode.original,)))
            await self.turns(signatures)
        except PolicyError as error:
            if error.call:
                self.paid(error.call, self.episode.turns + 1)
            self.end(error.stop, str(error))
        except ToolboxError as error:
            self.end(StopReason.TOOL_ERROR, str(error))

    async def turns(self, signatures: Sequence[dict[str, Any]]) -> None:
        while self.episode.turns < self.task.max_turns:
            reply = await self.policy.next_turn(self.messages, signatures)
            self.episode.turns += 1
            if reply.call:
                self.paid(reply.call, self.episode.turns)
            self.say(Message("assistant", reply.text))
            try:
                if reply.problem:
                    raise ProtocolError(reply.problem)
                turn = parse_turn(reply.text)
                if isinstance(turn.action, Answer):
                    self.check(turn.action)
                    self.episode.answer = turn.action
                    return self.end(StopReason.ANSWERED, None)
            except ProtocolError as error:
                self.repair(str(error))
                continue
            await self.act(turn, turn.action)
        return self.end(StopReason.MAX_TURNS, f"no answer within {self.task.max_turns} turns: raise --max-turns")

    def paid(self, call: ModelCall, turn: int) -> None:
        """Log one call of the policy's model and add up its cost."""
        self.session.append("model_call", turn=turn, **call.to_json())
        self.episode.cost_usd += call.cost_usd

    async def act(self, turn: Turn, call: ToolCall) -> None:
        """Carry out one call, log it on both sides and tell the policy what came back."""
        self.progress(f"{self.episode.turns:2d}  {call.name:<20} {_first_line(turn.thinking)}")
        call_id = f"call_{self.episode.turns}"
        self.session.append("tool_call", call_id=call_id, tool=call.name, arguments=call.arguments)
        try:
            seen = await self.toolbox.call(call, self.task, self.episode.images)
        except ToolboxError as error:
            self.session.append(
                "tool_result", call_id=call_id, tool=call.name, ok=False, seconds=None, cost_usd=error.cost_usd,
                payload={}, bound={}, images=[], error_class=error.kind, error=str(error),
            )  # fmt: skip
            self.episode.cost_usd += error.cost_usd
            raise
        self.remember(call, seen)
        images = [("synthesis", seen.image), ("mask", seen.mask)]
        self.session.append(
            "tool_result", call_id=call_id, tool=call.name, ok=not seen.error, seconds=round(seen.seconds, 4),
            cost_usd=seen.cost_usd, payload=seen.payload, bound=seen.bound,
            images=[self.logged(image, role) for role, image in images if image],
            error_class=seen.kind or None, error=seen.error or None,
        )  # fmt: skip
        shown = (seen.image,) if seen.image else ()
        self.say(Message("tool", observation(call.name, seen.shown), shown, call.name))

    def remember(self, call: ToolCall, seen: Observation) -> None:
        """Update the episode's state from a result."""
        self.episode.cost_usd += seen.cost_usd
        if seen.error:
            return self.progress(f"    {call.name} refused: {seen.error}")
        if backend := seen.payload.get("backend"):
            self.episode.backends[call.name] = str(backend)
        for note in _notes(seen.payload):
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

    def check(self, answer: Answer) -> None:
        """Hold an answer against what happened. Raises ProtocolError where they differ."""
        index = answer.final_image_index
        if index is None and answer.status != "failed":
            raise ProtocolError('only an answer with the status "failed" may leave final_image_index null')
        if index is not None and not 2 <= index <= len(self.episode.made) + 1:
            raise ProtocolError(f"final_image_index {index} is not one of the synthesized images")
        if answer.mask_generated and (self.episode.mask is None or self.episode.mask_of != index):
            raise ProtocolError(f"mask_generated is true, but mask_gen has found no mask for image {index}")

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
        self.session.append("message", role=message.role, content=message.content, images=images, **named)

    def logged(self, image: ImageRef, role: str) -> dict[str, Any]:
        """Store an image and describe it for the log."""
        return {
            "role": role,
            "index": image.index or None,
            "handle": self.toolbox.handle_of(image),
            "sha256": self.session.add_image(image.png),
            "width": image.width,
            "height": image.height,
        }

    def end(self, reason: StopReason, error: str | None) -> None:
        episode = self.episode
        episode.stop_reason, episode.error = reason, error
        episode.seconds = round(time.perf_counter() - self.started, 3)
        self.session.append(
            "session_end",
            stop_reason=reason.value,
            answer=episode.answer.to_json() if episode.answer else None,
            error=error,
            turns=episode.turns,
            repairs=episode.repairs,
            seconds=episode.seconds,
            cost_usd=episode.cost_usd,
        )


def _notes(payload: dict[str, Any]) -> list[str]:
    """What a tool wants its user to know: guesses for lack of knowledge, and what could not be done as asked."""
    guessed = [str(payload["note"])] if payload.get("known") is False and payload.get("note") else []
    return guessed + [str(note) for note in payload.get("notes") or []]


def _first_line(text: str) -> str:
    line: Sequence[str] = text.strip().splitlines() or [""]
    return line[0] if len(line[0]) <= 96 else line[0][:95] + "…"
