"""What a call of image_gen asks for, as its arguments say it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Wish:
    """The arguments of one call; empty texts and 0 mean no wish."""

    prompt: str
    target_image: str
    seed: int = 0
    region: str = ""
    example_image: str = ""
    example_mask: str = ""
    count: int = 0
    size: str = ""
    severity: str = ""
