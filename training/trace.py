"""A session as the reward and the training data look at it: the sequence of actions, with scores and what was refused.

One action is one assistant turn: a tool call, the answer, or a turn that the loop could not use.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from agent.protocol import Answer, ProtocolError, ToolCall, parse_turn
from agent.session import Session

ANSWER = "answer"
UNUSABLE = "unusable"
MAX_SCORE = 10.0


@dataclass(slots=True)
class Action:
    """One assistant turn.

    ``kind``: the tool's name, "answer", or "unusable". ``ok``: whether a call was carried out. ``refused``: why not,
    "" where it was or where nothing came back. ``image``: number of the image that was made, judged or masked (the
    original is 1). ``score``: what quality_eval gave, 0-10, None where it gave no such number. ``anomaly_type`` and
    ``item_name``: as the call named them, None where it names none. ``found``: whether mask_gen found a defect.
    """

    kind: str
    ok: bool = False
    refused: str = ""
    image: int | None = None
    score: float | None = None
    anomaly_type: str | None = None
    item_name: str | None = None
    found: bool = False


@dataclass(frozen=True, slots=True)
class Trace:
    """What happened in one episode, without its texts and pictures.

    ``stop_reason`` is "" where the session has no end. ``turns`` counts every assistant turn (T of the paper), also
    those that could not be used. ``policy_broke``: the episode ended because the last turn could not be used.
    """

    item_name: str
    anomaly_type: str
    threshold: float
    actions: Sequence[Action]
    stop_reason: str
    answer: Answer | None = None
    policy_broke: bool = False

    @property
    def turns(self) -> int:
        return len(self.actions)

    @property
    def images(self) -> list[int]:
        """Numbers of the synthesized images, in the order they were made."""
        return [a.image for a in self.actions if a.kind == "image_gen" and a.ok and a.image is not None]

    def astray(self, action: Action) -> bool:
        """Whether a call names another anomaly type or item than the task does."""
        item = action.item_name
        other_item = item is not None and item.strip() != self.item_name.strip()
        return other_item or action.anomaly_type not in (None, self.anomaly_type)

    def evidence(self, action: Action) -> bool:
        """Whether an action is a judgement that counts: a score, of the anomaly type on the item of the task."""
        scored = action.kind == "quality_eval" and action.ok and action.score is not None
        return scored and not self.astray(action)

    @property
    def scores(self) -> dict[int, float]:
        """Score (0-10) of each judged synthesized image by its number, in the order the images were made.

        The first judgement of an image counts: asking again until the judge is kind gains nothing.
        """
        first: dict[int, float] = {}
        for action in self.actions:
            if self.evidence(action) and action.image is not None and action.score is not None:
                first.setdefault(action.image, action.score)
        return {image: first[image] for image in self.images if image in first}

    @property
    def refusals(self) -> int:
        return sum(bool(action.refused) for action in self.actions)

    @property
    def unusable(self) -> int:
        return sum(action.kind == UNUSABLE for action in self.actions)


def read_trace(session: Session) -> Trace:
    """The actions of a session. Never raises for what a policy or a tool wrote: that is what is to be judged."""
    task = session.start.get("task") or {}
    reader = _Reader()
    for event in session.events:
        reader.read(event)
    end = session.end or {}
    stop_reason = str(end.get("stop_reason") or "")
    answer = reader.answer if stop_reason == "answered" else None
    if reader.actions and reader.actions[-1].kind == ANSWER and answer is None:
        reader.actions[-1] = Action(UNUSABLE)
    return Trace(
        item_name=str(task.get("item_name", "")),
        anomaly_type=str(task.get("anomaly_type", "")),
        threshold=_number(task.get("threshold")) or 0.0,
        actions=tuple(reader.actions),
        stop_reason=stop_reason,
        answer=answer,
        policy_broke=stop_reason == "policy_error" and reader.last_role == "assistant",
    )


@dataclass(slots=True)
class _Reader:
    """Follows the events of a log."""

    actions: list[Action] = field(default_factory=list)
    answer: Answer | None = None
    last_role: str = ""
    made: int = 1

    def read(self, event: dict[str, Any]) -> None:
        if event["type"] == "message":
            self.last_role = str(event.get("role"))
            if self.last_role == "assistant":
                self.turn(str(event.get("content") or ""))
            elif self.last_role == "user" and self.actions and self.actions[-1].kind == ANSWER:
                self.actions[-1], self.answer = Action(UNUSABLE), None  # the loop sent the answer back
        elif event["type"] == "tool_result" and self.actions:
            self.result(self.actions[-1], event)

    def turn(self, text: str) -> None:
        try:
            action = parse_turn(text).action
        except ProtocolError:
            self.actions.append(Action(UNUSABLE))
            return
        if isinstance(action, ToolCall):
            number = action.arguments.get("anomaly_image")
            anomaly, item = action.arguments.get("anomaly_type"), action.arguments.get("item_name")
            self.actions.append(
                Action(
                    action.name,
                    image=number if isinstance(number, int) and not isinstance(number, bool) else None,
                    anomaly_type=None if anomaly is None else str(anomaly),
                    item_name=None if item is None else str(item),
                )
            )
        else:
            self.answer = action
            self.actions.append(Action(ANSWER))

    def result(self, action: Action, event: dict[str, Any]) -> None:
        payload = event.get("payload") or {}
        action.ok = bool(event.get("ok"))
        action.refused = "" if action.ok else str(event.get("error") or "refused without a reason")
        if action.ok and action.kind == "image_gen":
            self.made += 1
            action.image = self.made
        elif action.ok and action.kind == "quality_eval":
            score = _number(payload.get("score"))
            action.score = score if score is not None and 0 <= score <= MAX_SCORE else None
        elif action.ok and action.kind == "mask_gen":
            action.found = any(image.get("role") == "mask" for image in event.get("images") or [])


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:  # more digits than a float holds
        return None
    return number if math.isfinite(number) else None
