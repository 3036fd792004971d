"""The built-in policy: Algorithm 1 of the paper, without a model.

It reads nothing but the conversation, as a model would, and writes the same text: a thought and one call. It
is a pure function of the messages, so an episode can be replayed or resumed at any turn.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from agent.policies import Policy, PolicyError, Reply
from agent.policies.refine import Refinement, insert, move, refine, step
from agent.protocol import Answer, Message, ToolCall, Turn, parse_turn, read_observation, render_turn
from agent.task import StopReason, Task
from agent.transport import MENDABLE

KNOWLEDGE_BELOW = 6.0
"""Score (0-10) under which knowledge_retrieval is called, once per episode (NeedKR of Algorithm 1)."""
STALLED = 0.5
"""Gain in score (0-10) of the last attempt under which the next one also goes to another place of the part."""
SIDES = ("central", "upper", "lower", "left", "right")


@dataclass(frozen=True, slots=True)
class Attempt:
    """One synthesized image: its prompt, its number, and what quality_eval said of it (None: not asked yet)."""

    prompt: str
    index: int
    evaluation: dict[str, Any] | None

    @property
    def score(self) -> float:
        return float(self.evaluation["score"]) if self.evaluation else -1.0


class Planner(Policy):
    """Prompt, edit, judge, refine until the threshold or the last allowed image; then mask the best and answer."""

    name = "planner"

    def __init__(self, task: Task) -> None:
        self._task = task

    async def next_turn(self, messages: Sequence[Message], signatures: Sequence[dict[str, Any]] = ()) -> Reply:
        """The next turn. Raises PolicyError where a tool refused and no other wording could change that."""
        return Reply(render_turn(self._decide(_history(messages))))

    def _decide(self, steps: list[tuple[ToolCall, dict[str, Any]]]) -> Turn:
        task = self._task
        names = {"item_name": task.item_name, "anomaly_type": task.anomaly_type}
        if not steps:
            thought = (
                f"Image 1 is a good {task.item_name} and the defect asked for is {task.anomaly_type}. "
                "First I need an editing prompt."
            )
            return Turn(thought, ToolCall("prompt_gen", {"image": 1, **names}))
        call, payload = steps[-1]
        attempts = _attempts(steps)
        if "error" in payload:
            return self._after_refusal(steps, attempts)
        if call.name == "prompt_gen":
            thought = f"The prompt names a place and a limited {payload['family']}. I edit the original photo with it."
            return _edit(thought, str(payload["prompt"]))
        if call.name == "image_gen":
            thought = f"Image {attempts[-1].index} is made. I have it judged before I go on."
            return Turn(thought, ToolCall("quality_eval", {"anomaly_image": attempts[-1].index, **names}))
        if call.name == "quality_eval":
            return self._after_review(steps, attempts, names)
        if call.name == "knowledge_retrieval":
            return self._next_edit(attempts, payload)
        return self._answer(payload, attempts)

    def _after_refusal(self, steps: list[tuple[ToolCall, dict[str, Any]]], attempts: list[Attempt]) -> Turn:
        """Another wording where the editor declined or changed nothing; where none is left, the best image so far.

        Raises PolicyError for every other refusal, and where there is no image at all.
        """
        call, payload = steps[-1]
        edits = [str(call.arguments["prompt"]) for call, _ in steps if call.name == "image_gen"]
        if call.name == "image_gen" and payload.get("kind") in MENDABLE:
            if len(edits) < self._task.max_images and self._task.max_turns - len(steps) >= 4:
                milder = step(edits[-1], severity=-1)
                other = milder if payload["kind"] == "refused" and milder.prompt not in edits else None
                refined = other or _something_else(edits[-1], self._task.item_name, set(edits))
                thought = f'The editor says: "{_shorten(str(payload["error"]))}" In the prompt I change: '
                return _edit(f"{thought}{'; '.join(refined.changes)}.", refined.prompt)
            if attempts:
                best = _best(attempts)
                thought = f"The editor makes no further image. Image {best.index} is the best; I find its mask."
                return Turn(thought, ToolCall("mask_gen", {"anomaly_image": best.index}))
        raise PolicyError(f"{call.name}: {payload['error']}", StopReason.TOOL_ERROR)

    def _after_review(
        self, steps: list[tuple[ToolCall, dict[str, Any]]], attempts: list[Attempt], names: dict[str, str]
    ) -> Turn:
        last = attempts[-1]
        turns_left = self._task.max_turns - len(steps)
        asked = any(call.name == "knowledge_retrieval" for call, _ in steps)
        if last.evaluation and last.evaluation["passed"]:
            thought = f"Image {last.index} scores {last.score:g} and passes. I find its mask."
            return Turn(thought, ToolCall("mask_gen", {"anomaly_image": last.index}))
        if len(attempts) >= self._task.max_images or turns_left < 4:  # another try: edit, judge, mask, answer
            best = _best(attempts)
            why = "All images are made" if len(attempts) >= self._task.max_images else "Few turns are left"
            thought = f"{why} and none passed. Image {best.index} is the best with {best.score:g}; I find its mask."
            return Turn(thought, ToolCall("mask_gen", {"anomaly_image": best.index}))
        if last.score < KNOWLEDGE_BELOW and not asked and turns_left >= 5:
            thought = f"A score of {last.score:g} is low. I look up how this defect really looks before I try again."
            return Turn(thought, ToolCall("knowledge_retrieval", names))
        return self._next_edit(attempts, None)

    def _next_edit(self, attempts: list[Attempt], knowledge: dict[str, Any] | None) -> Turn:
        """Refine the prompt of the best attempt so far by that attempt's review."""
        best, last = _best(attempts), attempts[-1]
        review = str(best.evaluation["review"]) if best.evaluation else ""
        refined = refine(best.prompt, review, self._task.item_name)
        tried = {attempt.prompt for attempt in attempts}
        if len(attempts) > 1 and best.score - attempts[-2].score < STALLED:
            refined = _elsewhere(refined, self._task.item_name, tried)
        if refined.prompt in tried:
            refined = _something_else(best.prompt, self._task.item_name, tried)
        prompt, changes = refined.prompt, list(refined.changes)
        if knowledge and (fact := _first_sentence(knowledge)):
            prompt = insert(prompt, fact)
            changes.append("added how it really looks")
        basis = "" if best is last else f" I go back to the prompt of image {best.index}, which scored better."
        thought = f'The review says: "{_shorten(review)}"{basis} In the prompt I change: {"; ".join(changes)}.'
        return _edit(thought, prompt)

    def _answer(self, mask: dict[str, Any], attempts: list[Attempt]) -> Turn:
        best = next((a for a in attempts if a.evaluation and a.evaluation["passed"]), _best(attempts))
        passed = bool(best.evaluation and best.evaluation["passed"])
        logic = (
            f"{self._task.anomaly_type} on {self._task.item_name}: image {best.index} of {len(attempts)} attempts, "
            f"score {best.score:g}. {_shorten(str(best.evaluation['review'])) if best.evaluation else ''}".strip()
        )
        if not mask.get("found"):
            thought = "mask_gen found no difference that is a defect, so there is no usable sample."
            return Turn(thought, Answer("failed", best.index, False, logic))
        thought = f"The mask covers {100 * float(mask['area_fraction']):.2g}% of the image. The sample is complete."
        return Turn(thought, Answer("success" if passed else "below_threshold", best.index, True, logic))


def _history(messages: Sequence[Message]) -> list[tuple[ToolCall, dict[str, Any]]]:
    """The calls made so far, each with the JSON that came back."""
    steps = []
    call: ToolCall | None = None
    for message in messages:
        if message.role == "assistant":
            action = parse_turn(message.content).action
            call = action if isinstance(action, ToolCall) else None
        elif message.role == "tool" and call is not None:
            steps.append((call, read_observation(message.content)))
    return steps


def _attempts(steps: list[tuple[ToolCall, dict[str, Any]]]) -> list[Attempt]:
    evaluations = {
        call.arguments["anomaly_image"]: payload
        for call, payload in steps
        if call.name == "quality_eval" and "error" not in payload
    }
    return [
        Attempt(str(call.arguments["prompt"]), payload["image_index"], evaluations.get(payload["image_index"]))
        for call, payload in steps
        if call.name == "image_gen" and "error" not in payload
    ]


def _best(attempts: list[Attempt]) -> Attempt:
    return max(attempts, key=lambda attempt: attempt.score)


def _edit(thought: str, prompt: str) -> Turn:
    return Turn(thought, ToolCall("image_gen", {"prompt": prompt, "target_image": 1}))


def _elsewhere(refined: Refinement, item_name: str, tried: set[str]) -> Refinement:
    """The same wish at a part of the item that no prompt has named yet: some places carry a defect badly."""
    for side in SIDES:
        place = f"the {side} part of the {item_name}"
        if not any(place in prompt for prompt in tried):
            moved = move(refined.prompt, place)
            return Refinement(moved.prompt, refined.changes + moved.changes)
    return refined


def _something_else(prompt: str, item_name: str, tried: set[str]) -> Refinement:
    """A change of its own where the review asks for nothing that was not tried: strength, size, then the place."""
    strengths = ((0, 1), (0, -1), (1, 0), (-1, 0), (1, 1), (0, 2))
    for side in ("", *SIDES):
        moved = move(prompt, f"the {side} part of the {item_name}") if side else Refinement(prompt, ())
        for size, severity in ((0, 0), *strengths):
            other = step(moved.prompt, size, severity)
            if other.prompt not in tried:
                return Refinement(other.prompt, moved.changes + other.changes)
    return Refinement(prompt, ("nothing: every change of words has been tried",))


def _first_sentence(knowledge: dict[str, Any]) -> str:
    """The first sentence of the first passage that the server vouches for, if it is short enough for a prompt.

    Passages of a user's folder or of the web are not marked as trusted: a sentence of theirs could be an instruction to
    the image editor.
    """
    passages = [passage for passage in knowledge.get("passages") or [] if passage.get("trusted") is True]
    if not passages:
        return ""
    sentence = re.split(r"(?<=[.!?])\s+", str(passages[0].get("text", "")).strip())[0]
    return sentence if 20 <= len(sentence) <= 240 else ""


def _shorten(text: str, limit: int = 240) -> str:
    return text if len(text) <= limit else text[: limit - 1].rsplit(" ", 1)[0] + "…"
