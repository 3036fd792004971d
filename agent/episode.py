"""What an episode has come to so far: its images, scores, mask and answer."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from agent.ledger import Ledger
from agent.protocol import Answer, ImageRef, ProtocolError
from agent.task import StopReason, Task


@dataclass(slots=True)
class Made:
    """One synthesized image of the episode, its prompt, and its evaluation once there is one."""

    image: ImageRef
    prompt: str
    evaluation: dict[str, Any] | None = None


@dataclass(slots=True)
class Episode:
    """What an episode came to. ``mask_result`` is mask_gen's JSON for ``mask_of``, the image it was asked about."""

    task: Task
    stop_reason: StopReason = StopReason.CANCELLED
    original: ImageRef | None = None
    made: list[Made] = field(default_factory=list)
    mask: ImageRef | None = None
    mask_result: dict[str, Any] | None = None
    mask_of: int | None = None
    answer: Answer | None = None
    error: str | None = None
    turns: int = 0
    repairs: int = 0
    seconds: float = 0.0
    ledger: Ledger = field(default_factory=Ledger)
    backends: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def cost_usd(self) -> float:
        """US dollars paid; replayed calls cost nothing."""
        return self.ledger.cost_usd

    @property
    def images(self) -> list[ImageRef]:
        """All images by number: the original, then the synthesized ones."""
        return [self.original, *(made.image for made in self.made)] if self.original else []

    @property
    def final(self) -> Made | None:
        """The image that was answered, else the best judged one, else the last."""
        if self.answer and self.answer.final_image_index:
            return self.made[self.answer.final_image_index - 2]
        return max(self.made, key=lambda made: (made.evaluation or {}).get("score", -1.0), default=None)


def check_answer(answer: Answer, episode: Episode) -> None:
    """Hold an answer against what happened. Raises ProtocolError where they differ."""
    index = answer.final_image_index
    if index is None and answer.status != "failed":
        raise ProtocolError('only an answer with the status "failed" may leave final_image_index null')
    if index is not None and not 2 <= index <= len(episode.made) + 1:
        raise ProtocolError(f"final_image_index {index} is not one of the synthesized images")
    if answer.mask_generated and (episode.mask is None or episode.mask_of != index):
        raise ProtocolError(f"mask_generated is true, but mask_gen has found no mask for image {index}")


def notes_of(payload: dict[str, Any]) -> list[str]:
    """What a tool wants its user to know: guesses for lack of knowledge, and what could not be done as asked."""
    guessed = [str(payload["note"])] if payload.get("known") is False and payload.get("note") else []
    return guessed + [str(note) for note in payload.get("notes") or []]
