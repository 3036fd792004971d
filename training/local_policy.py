"""A policy that generates with a model in this process: token in, token out, many episodes in one batch.

The held-out measurement of SFT and the rollouts of GRPO run it through the very loop that ``agent.run`` uses. One
``LocalPolicy`` per episode keeps the episode's ids; all of them share one ``Batcher``, which gathers the turns that
are waiting and generates them together. A turn ends at the end-of-turn token or at a closing tag.
"""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from random import Random
from typing import Any, Protocol

import anyio
import anyio.to_thread

from agent.chat_template import END_OF_TURN
from agent.policies import ModelCall, Policy, PolicyError, Reply
from agent.protocol import Message
from training.encoding import Encoded, Encoder, EncodingError
from training.generation import Generated, Sampling, generate


class TurnSource(Protocol):
    """What a ``LocalPolicy`` gets its turns from: ``Batcher``, or a vLLM engine (``training.grpo.vllm``)."""

    encoder: Encoder
    sampling: Sampling
    failure: Exception | None
    """What was last the matter with the model itself, or its server: no episode's fault."""

    @property
    def room(self) -> int:
        """The most tokens that a prompt and its turn may have together."""
        ...

    async def turn(self, prompt: Encoded, draw: Random) -> Generated:
        """One turn for a prompt; ``draw`` gives its random numbers. Raises PolicyError, or what generation raises."""
        ...


class Batcher:
    """Generates the turns of many episodes together: whoever comes first serves everyone who is waiting.

    ``max_batch`` bounds one batch; others wait for the next. A batch that is not full waits for prompts that are being
    encoded: they come at once, and would have to wait for its end. ``room`` is the most tokens that a prompt and its
    turn may have together. ``failure`` is what generation raised last: an episode cannot tell whether it is its own.
    """

    def __init__(self, model: Any, encoder: Encoder, sampling: Sampling, max_batch: int = 8) -> None:
        self.model, self.encoder, self.sampling, self.max_batch = model, encoder, sampling, max_batch
        self.failure: Exception | None = None
        self._waiting: list[_Request] = []
        self._lock = anyio.Lock()

    @property
    def room(self) -> int:
        """Tokens that the model's context holds."""
        return int(self.model.config.get_text_config().max_position_embeddings)

    def generate(self, prompts: Sequence[Encoded], draws: Sequence[Random]) -> list[Generated]:
        """One turn for each prompt, in one batch."""
        return generate(self.model, self.encoder.processor, prompts, self.sampling, draws)

    async def turn(self, prompt: Encoded, draw: Random) -> Generated:
        """One turn for a prompt; ``draw`` gives its random numbers. Raises what generation raises."""
        request = _Request(prompt, draw)
        self._waiting.append(request)
        try:
            async with self._lock:
                await anyio.sleep(0)  # lets episodes that go on in the same moment join
                while request.result is None:
                    while self.encoder.under_way and len(self._waiting) < self.max_batch:
                        await self.encoder.one_done()
                    await self._serve()
            return request.result
        finally:
            if request in self._waiting:
                self._waiting.remove(request)

    async def _serve(self) -> None:
        batch = self._waiting[: self.max_batch]
        work = functools.partial(
            self.generate, [request.prompt for request in batch], [request.draw for request in batch]
        )
        try:
            results = await anyio.to_thread.run_sync(work)
        except Exception as error:
            self.failure = error
            raise
        for request, result in zip(batch, results, strict=True):
            request.result = result
            if request in self._waiting:
                self._waiting.remove(request)


@dataclass(slots=True, eq=False)
class _Request:
    prompt: Encoded
    draw: Random
    result: Generated | None = None


class LocalPolicy(Policy):
    """The assistant of one episode. ``encoded`` holds the whole episode's ids as they were sampled and observed.

    ``sampled`` marks, one entry an id, what the model wrote itself (1) and what it was given (0); ``logprobs`` are
    natural logarithms at the sampling temperature, 0.0 where ``sampled`` is 0. ``seed`` makes the episode's random
    numbers, together with the sampling's; ``max_tokens`` bounds the episode where the model would hold more. A
    log-probability that the engine did not tell is NaN, and the recorded call then tells none.
    """

    name = "local"

    def __init__(
        self, batcher: TurnSource, label: str = "local", seed: int | str = 0, max_tokens: int | None = None
    ) -> None:
        self._batcher, self._label = batcher, label
        self._draw = Random(f"{batcher.sampling.seed} {seed}")
        self._room = min(batcher.room, max_tokens or batcher.room)
        self._end = batcher.encoder.processor.tokenizer.convert_tokens_to_ids(END_OF_TURN)
        self._seen: list[Message] = []
        self.encoded = Encoded()
        self.sampled: list[int] = []
        self.logprobs: list[float] = []

    def describe(self) -> dict[str, Any]:
        """Name, model and sampling."""
        return {"name": self.name, "model": self._label, "sampling": asdict(self._batcher.sampling)}

    async def next_turn(self, messages: Sequence[Message], signatures: Sequence[dict[str, Any]] = ()) -> Reply:
        """Generate the next turn. Raises PolicyError where the conversation is not the one that was begun, cannot be
        encoded, or does not fit the model's context.
        """
        started = time.perf_counter()
        await self._take(messages)
        prompt = tuple(self.encoded.ids)
        if len(prompt) + self._batcher.sampling.max_new_tokens > self._room:
            raise PolicyError(f"the conversation of {len(prompt)} tokens leaves no room in {self._room}")
        turn = await self._batcher.turn(self.encoded, self._draw)
        self._add(turn.ids, 1, turn.logprobs)
        if turn.ids[-1:] != [self._end]:
            self._add([self._end], 0, [0.0])
        text: str = self._batcher.encoder.processor.tokenizer.decode(turn.ids, skip_special_tokens=True)
        self._seen.append(Message("assistant", text))
        call = ModelCall(
            model=self._label,
            seconds=round(time.perf_counter() - started, 4),
            finish_reason=turn.finish_reason,
            prompt_tokens=len(prompt),
            completion_tokens=len(turn.ids),
            sampling=asdict(self._batcher.sampling),
            prompt_token_ids=prompt,
            completion_token_ids=tuple(turn.ids),
            logprobs=None if any(map(math.isnan, turn.logprobs)) else tuple(turn.logprobs),
        )
        return Reply(text, call)

    async def _take(self, messages: Sequence[Message]) -> None:
        """Encode what is new in the conversation."""
        known = len(self._seen)
        if [(m.role, m.content) for m in messages[:known]] != [(m.role, m.content) for m in self._seen]:
            raise PolicyError("the conversation is not the one that this policy began: use one policy an episode")
        try:
            piece = await self._batcher.encoder.encode_aside(messages[known:], after_turn=known > 0)
        except EncodingError as error:
            raise PolicyError(str(error)) from error
        self.encoded += replace(piece, ids=[])
        self._add(piece.ids, 0, [0.0] * len(piece.ids))
        self._seen = list(messages)

    def _add(self, ids: Sequence[int], sampled: int, logprobs: Sequence[float]) -> None:
        self.encoded = self.encoded.with_ids(ids)
        self.sampled += [sampled] * len(ids)
        self.logprobs += logprobs
