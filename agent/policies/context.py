"""What of a conversation still fits: which images are shown, and how many tokens it takes.

A conversation's text always stays. Of its images number 1 (the original) and the newest are always shown; of the
others the oldest go first, and the text says that they are gone. Token counts are estimates, set right by the usage
that the server reports with every reply.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from agent.policies.pictures import IMAGE_SIDE
from agent.protocol import ImageRef, Message

BYTES_A_TOKEN = 3
"""Bytes of UTF-8 text a token, on the safe side: English takes about 4, JSON 3.5, Chinese 3."""
PIXELS_A_TOKEN = 28
"""Side of the square of pixels that one image token stands for; Qwen3-VL has 32, Qwen2.5-VL 28."""
OVERHEAD = 8
"""Tokens of a message beside its content."""


@dataclass(frozen=True, slots=True)
class ContextLimits:
    """How much is shown: longest image side in pixels, images at most, and tokens of prompt and reply (0: no limit)."""

    side: int = IMAGE_SIDE
    max_images: int = 8
    max_tokens: int = 0


class ContextWindow:
    """The window of one episode: chooses the images to leave out and estimates the prompt's tokens."""

    def __init__(self, limits: ContextLimits, reply_tokens: int) -> None:
        self._limits, self._reply_tokens = limits, reply_tokens
        self._most = limits.max_images
        self._measured = (0, 0)
        self._hidden: tuple[int, ...] = ()

    def hidden(self, messages: Sequence[Message]) -> tuple[int, ...]:
        """Numbers of the images to leave out, oldest first."""
        images = _images(messages)
        spare = [image.index for image in images[:-1] if image.index != 1]
        hidden = spare[: max(0, len(images) - self._most)]
        room = self._limits.max_tokens - self._reply_tokens
        while self._limits.max_tokens and len(hidden) < len(spare) and self.tokens(messages, hidden) > room:
            hidden = spare[: len(hidden) + 1]
        return tuple(hidden)

    def shrink(self, messages: Sequence[Message]) -> tuple[int, ...]:
        """After the server found the conversation too long: show two images from now on; what to leave out."""
        self._most = 2
        return self.hidden(messages)

    def measured(self, messages: Sequence[Message], hidden: tuple[int, ...], prompt_tokens: int | None) -> None:
        """Take note of what the server counted for a prompt."""
        if prompt_tokens:
            self._measured, self._hidden = (len(messages), prompt_tokens), hidden

    def tokens(self, messages: Sequence[Message], hidden: Collection[int] = (), doubt: float = 1.0) -> int:
        """Estimated tokens of the prompt; what is not measured counts ``doubt`` times."""
        count, known = self._measured
        fresh = estimate(messages[count:], self._limits.side, hidden)
        gone = [
            image for image in _images(messages[:count]) if image.index in hidden and image.index not in self._hidden
        ]
        return max(0, known - sum(image_tokens(image, self._limits.side) for image in gone)) + math.ceil(doubt * fresh)


def estimate(messages: Sequence[Message], side: int, hidden: Collection[int] = ()) -> int:
    """Tokens of these messages, without any measurement."""
    text = sum(math.ceil(len(message.content.encode()) / BYTES_A_TOKEN) + OVERHEAD for message in messages)
    return text + sum(image_tokens(image, side) for image in _images(messages) if image.index not in hidden)


def image_tokens(image: ImageRef, side: int) -> int:
    """Tokens of an image shown with at most ``side`` pixels on its longer side."""
    scale = min(1.0, side / max(image.width, image.height))
    return math.prod(math.ceil(scale * length / PIXELS_A_TOKEN) for length in (image.width, image.height)) + 2


def _images(messages: Sequence[Message]) -> list[ImageRef]:
    return [image for message in messages for image in message.images]
