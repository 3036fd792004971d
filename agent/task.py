"""What an episode is asked to do, and how it can end."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

LIMITS: dict[str, tuple[int, int]] = {
    "threshold": (0, 10),
    "max_images": (1, 20),
    "max_turns": (5, 200),
    "count": (0, 12),
    "margin": (0, 200),
    "seed": (0, 2**63 - 1),
}
"""Least and greatest value of a task's numbers."""


class StopReason(StrEnum):
    """Why an episode ended; recorded in every session."""

    ANSWERED = "answered"
    MAX_TURNS = "max_turns"
    POLICY_ERROR = "policy_error"
    TOOL_ERROR = "tool_error"
    BUDGET = "budget"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class Task:
    """One synthesis task: photo, item, anomaly type and the user's options.

    ``image`` is what the tool servers are given (a path they may read, or a data URI); ``region`` is empty, or
    "x,y,width,height" in pixels of the upright photo, or a mask image's path. ``example_image`` and
    ``example_mask`` name a photo of a real defect and its mask, "" where there is none; ``count`` is the number of
    defects, 0 where the prompt decides; ``margin`` the pixels by which the mask is grown. ``threshold`` is the
    score (0-10) from which a sample passes; ``max_images`` the number of attempts (N of Algorithm 1); ``max_turns``
    bounds the assistant's turns.
    """

    image: str
    item_name: str
    anomaly_type: str
    seed: int = 0
    region: str = ""
    example_image: str = ""
    example_mask: str = ""
    count: int = 0
    margin: int = 0
    threshold: float = 7.0
    max_images: int = 3
    max_turns: int = 12

    def to_json(self) -> dict[str, Any]:
        """Plain fields; a data URI is cut short."""
        return {
            name: f"{value[:40]}..." if isinstance(value, str) and value.startswith("data:") else value
            for name, value in asdict(self).items()
        }
