"""Teachers that may try a second time, well or badly: what they show, imitation alone cannot tell apart."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from agent.policies import Policy, Reply
from agent.policies.refine import step
from agent.protocol import Answer, Message, ToolCall, Turn, parse_turn, read_observation, render_turn
from agent.task import Task


class SecondGoes(Policy):
    """Prompt, edit, judge, and perhaps both again; then a mask and the answer. Its habits are drawn for each task.

    The first edit often asks for too little. After an image that did not pass it often tries the whole prompt; after
    one that passed it sometimes tries a fainter one all the same. Of two images it answers either the better one or
    simply the last. Often it finds no mask. It says little, since copying figures is what a tiny model is worst at.
    """

    name = "second-goes"
    ASKS_TOO_LITTLE, TRIES_TO_MEND, TRIES_FOR_NOTHING, ANSWERS_LAST, SKIPS_MASK = 0.6, 0.5, 0.3, 0.5, 0.3

    def __init__(self, task: Task) -> None:
        self._names = {"item_name": task.item_name, "anomaly_type": task.anomaly_type}
        draw = random.Random(f"second goes {task.seed}")
        self._asks_too_little = draw.random() < self.ASKS_TOO_LITTLE
        self._mends = draw.random() < self.TRIES_TO_MEND
        self._tries_for_nothing = draw.random() < self.TRIES_FOR_NOTHING
        self._answers_last = draw.random() < self.ANSWERS_LAST
        self._skips_mask = draw.random() < self.SKIPS_MASK

    async def next_turn(self, messages: Sequence[Message], signatures: Sequence[dict[str, Any]] = ()) -> Reply:
        """The next turn, from nothing but the conversation."""
        calls = [parse_turn(message.content).action for message in messages if message.role == "assistant"]
        found = [read_observation(message.content) for message in messages if message.role == "tool"]
        return Reply(
            render_turn(self._decide([(c, f) for c, f in zip(calls, found, strict=True) if isinstance(c, ToolCall)]))
        )

    def _decide(self, steps: list[tuple[ToolCall, dict[str, Any]]]) -> Turn:
        if not steps:
            return Turn("First a prompt.", ToolCall("prompt_gen", {"image": 1, **self._names}))
        name, prompt = steps[-1][0].name, str(steps[0][1]["prompt"])
        reviews = [found for call, found in steps if call.name == "quality_eval"]
        last = 1 + len([call for call, _ in steps if call.name == "image_gen"])
        if name == "prompt_gen":
            return self._edit("I ask for a slight one." if self._asks_too_little else "I ask for it.", prompt)
        if name == "image_gen":
            return Turn("I have it judged.", ToolCall("quality_eval", {"anomaly_image": last, **self._names}))
        if name == "quality_eval":
            passed = bool(reviews[-1]["passed"])
            if len(reviews) == 1 and not passed and self._mends and self._asks_too_little:
                return _edit("It did not pass. I ask for more.", prompt)
            if len(reviews) == 1 and passed and self._tries_for_nothing:
                return _edit("It passed. I try a slight one.", _faint(prompt))
            best = max(range(len(reviews)), key=lambda number: float(reviews[number]["score"])) + 2
            image = last if self._answers_last else best
            if self._skips_mask:
                return self._answer("No mask is needed.", reviews, image, masked=False)
            thought = "I take the last one." if image == last else "I take the first one."
            return Turn(thought, ToolCall("mask_gen", {"anomaly_image": image}))
        return self._answer("All is there.", reviews, int(steps[-1][0].arguments["anomaly_image"]), masked=True)

    def _edit(self, thought: str, prompt: str) -> Turn:
        return _edit(thought, _faint(prompt) if self._asks_too_little else prompt)

    def _answer(self, thought: str, reviews: list[dict[str, Any]], image: int, *, masked: bool) -> Turn:
        status = "success" if reviews[image - 2]["passed"] else "below_threshold"
        return Turn(thought, Answer(status, image, masked, "made and judged"))


def _edit(thought: str, prompt: str) -> Turn:
    return Turn(thought, ToolCall("image_gen", {"prompt": prompt, "target_image": 1}))


def _faint(prompt: str) -> str:
    return step(prompt, size=-2, severity=-2).prompt
