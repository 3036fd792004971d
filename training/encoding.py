"""Conversations as a model's token ids and pixels, piece by piece.

The chat template renders each message by itself, so a conversation can be encoded as it grows: what was sampled stays
as it was sampled, and only new messages are tokenized (token in, token out). An image is shown as ``picture_for_model``
makes it, and every piece is checked: as many image tokens as the vision encoder will give features, or an error.
"""

from __future__ import annotations

import functools
import io
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import anyio
from anyio import to_thread

from agent.chat_template import template_messages
from agent.policies.pictures import IMAGE_SIDE, picture_for_model
from agent.protocol import Message

if TYPE_CHECKING:
    import torch


OPENINGS = 4
"""Beginnings of conversations that are kept: rollouts of one task start together."""


class EncodingError(ValueError):
    """A conversation that cannot be encoded without altering it; the message says what is wrong."""


@dataclass(slots=True)
class Encoded:
    """Token ids, and for each image its patches (n, channels * pixels; float32), its grid (frames, rows, columns) and
    the picture as the model is shown it (PNG).
    """

    ids: list[int] = field(default_factory=list)
    patches: list[torch.Tensor] = field(default_factory=list)
    grids: list[tuple[int, int, int]] = field(default_factory=list)
    pictures: list[bytes] = field(default_factory=list)

    def __add__(self, other: Encoded) -> Encoded:
        return Encoded(
            self.ids + other.ids,
            self.patches + other.patches,
            self.grids + other.grids,
            self.pictures + other.pictures,
        )

    def with_ids(self, ids: Sequence[int]) -> Encoded:
        """The same with more ids at its end."""
        return replace(self, ids=[*self.ids, *ids])


class Encoder:
    """Encodes with a Qwen3-VL processor that carries the project's chat template.

    ``under_way``: pieces that ``encode_aside`` has not finished yet.
    """

    def __init__(self, processor: Any, image_side: int = IMAGE_SIDE) -> None:
        self.processor = processor
        self.image_side = image_side
        self.under_way = 0
        self._opening = functools.lru_cache(OPENINGS)(self._piece)
        self._one = anyio.CapacityLimiter(1)
        self._done: anyio.Event | None = None

    def encode(self, messages: Sequence[Message], *, after_turn: bool = False, generate: bool = True) -> Encoded:
        """A piece of a conversation; ``generate`` ends it with the generation prompt.

        ``after_turn``: the piece follows a sampled turn that ended in the end-of-turn token, whose line break is
        still to come. A conversation's beginning is the same in all rollouts of a task, and kept. Raises EncodingError.
        """
        text = self.processor.apply_chat_template(template_messages(messages), add_generation_prompt=generate)
        images = tuple(image.png for message in messages for image in message.images)
        return Encoded() + (self._piece("\n" + text, images) if after_turn else self._opening(text, images))

    async def encode_aside(self, messages: Sequence[Message], *, after_turn: bool = False) -> Encoded:
        """``encode`` in a worker thread, one piece at a time, while other episodes go on."""
        self.under_way += 1
        try:
            work = functools.partial(self.encode, messages, after_turn=after_turn)
            return await to_thread.run_sync(work, limiter=self._one)
        finally:
            self.under_way -= 1
            if self._done:
                self._done.set()
                self._done = None

    async def one_done(self) -> None:
        """Wait until a piece that is under way is finished."""
        self._done = self._done or anyio.Event()
        await self._done.wait()

    def _piece(self, text: str, pngs: tuple[bytes, ...]) -> Encoded:
        import torch
        from PIL import Image

        shown = [picture_for_model(png, self.image_side) for png in pngs]
        images = [Image.open(io.BytesIO(png)).convert("RGB") for png in shown]
        try:
            out = self.processor(text=[text], images=[images] if images else None)
        except ValueError as error:
            raise EncodingError(f"the conversation cannot be encoded: {error}") from error
        ids = [int(token) for token in out["input_ids"][0]]
        grids = [(int(t), int(h), int(w)) for t, h, w in out["image_grid_thw"]] if images else []
        check_image_tokens(ids, grids, self.processor)
        patches = []
        if images:
            pixels = torch.as_tensor(out["pixel_values"])
            patches = list(torch.split(pixels, [t * h * w for t, h, w in grids]))
        return Encoded(ids, patches, grids, shown)


def check_image_tokens(ids: Sequence[int], grids: Sequence[Sequence[int]], processor: Any) -> None:
    """Raise EncodingError unless the ids hold one image token for every feature of the images."""
    merged = processor.image_processor.merge_size**2
    features = sum(int(t) * int(h) * int(w) // merged for t, h, w in grids)
    tokens = sum(token == processor.image_token_id for token in ids)
    if tokens != features:
        raise EncodingError(
            f"{tokens} image tokens for {features} image features: does a text hold {processor.image_token}?"
        )
