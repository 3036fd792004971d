"""What an episode has come to so far: its images, scores, mask and answer."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from agent.protocol import Answer, ImageRef
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
    cost_usd: float = 0.0
    backends: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

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
