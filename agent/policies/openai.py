"""The policy that is a model, on any OpenAI-compatible server: vLLM, ``transformers serve``, a hosted one.

It keeps nothing between turns but what the server taught it of the context; the conversation is the loop's.
"""

from __future__ import annotations

import base64
import math
import time
from collections.abc import Callable, Sequence
from typing import Any

from agent.policies import ModelCall, Policy, PolicyError, Reply
from agent.policies.completion import Completion
from agent.policies.context import ContextLimits, ContextWindow
from agent.policies.dialects import DIALECTS, is_whole, take_reasoning
from agent.policies.endpoint import ContextOverflowError, Endpoint
from agent.policies.pictures import picture_for_model
from agent.policies.sampling import Sampling
from agent.protocol import ImageRef, Message
from pricing import Price

DOUBT = 2.0
"""By how much a token estimate may be too low, for the bound of a turn's cost."""


class OpenAIPolicy(Policy):
    """One episode's model.

    ``price`` None: unknown, so that a turn may cost any amount; ``stop``: whether the server is asked to stop at the
    closing tags (text dialect); ``record_tokens``: ask for token ids and log-probabilities, which vLLM gives;
    ``on_text`` is handed every piece of text and reasoning as it comes.
    """

    name = "openai"

    def __init__(
        self,
        endpoint: Endpoint,
        sampling: Sampling,
        *,
        dialect: str = "text",
        limits: ContextLimits | None = None,
        price: Price | None = None,
        stop: bool = True,
        record_tokens: bool = False,
        on_text: Callable[[str], None] | None = None,
    ) -> None:
        self._endpoint, self._sampling, self._price = endpoint, sampling, price
        self._dialect, self._stop, self._record_tokens = DIALECTS[dialect], stop, record_tokens
        self._limits = limits or ContextLimits()
        self._on_text = on_text
        self._window = ContextWindow(self._limits, sampling.max_tokens)
        self._uris: dict[str, str] = {}

    def describe(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "model": self._endpoint.model,
            "base_url": self._endpoint.base_url,
            "dialect": self._dialect.name,
            "sampling": self._sampling.fields(),
            "image_side": self._limits.side,
            "max_context_images": self._limits.max_images,
            "max_context_tokens": self._limits.max_tokens,
            "price_known": self._price is not None,
        }

    def max_cost_usd(self, messages: Sequence[Message]) -> float:
        """The most that the next turn may cost: its prompt, estimated on the safe side, and a reply of full length.

        Infinite where the price is not known.
        """
        if self._price is None:
            return math.inf
        prompt = self._window.tokens(messages, self._window.hidden(messages), DOUBT)
        return self._price.of(prompt, self._sampling.max_tokens)

    async def next_turn(self, messages: Sequence[Message], signatures: Sequence[dict[str, Any]]) -> Reply:
        """The model's next turn. Raises PolicyError where the server fails or the conversation does not fit."""
        started = time.perf_counter()
        hidden = self._window.hidden(messages)
        try:
            completion = await self._ask(messages, signatures, hidden)
        except ContextOverflowError as error:
            fewer = self._window.shrink(messages)
            if len(fewer) <= len(hidden):
                raise self._too_long(error) from error
            hidden = fewer
            try:
                completion = await self._ask(messages, signatures, hidden)
            except ContextOverflowError as again:
                raise self._too_long(again) from again
            completion.attempts += 1
        self._window.measured(messages, hidden, completion.prompt_tokens)
        take_reasoning(completion)
        text, problem = self._dialect.read(completion)
        call = self._record(completion, messages, hidden, time.perf_counter() - started)
        if not completion.choices:
            url = self._endpoint.base_url
            paid = call if call.cost_usd or completion.prompt_tokens else None
            raise PolicyError(f"the policy server {url} answered without a choice: see its log", call=paid)
        return Reply(text, call, problem)

    async def _ask(
        self, messages: Sequence[Message], signatures: Sequence[dict[str, Any]], hidden: tuple[int, ...]
    ) -> Completion:
        request = self._dialect.request(messages, signatures, lambda image: self._show(image, hidden))
        if not self._stop:
            request.pop("stop", None)
        request |= self._sampling.fields()
        if self._record_tokens:
            request |= {"logprobs": True, "extra_body": {"return_token_ids": True}}
        free = self._dialect.name == "text" and self._price == Price()  # else the bill's usage would be missed
        return await self._endpoint.complete(request, self._on_text, is_whole if free else None)

    def _show(self, image: ImageRef, hidden: tuple[int, ...]) -> str | None:
        if image.index in hidden:
            return None
        if image.sha256 not in self._uris:
            png = picture_for_model(image.png, self._limits.side)
            self._uris[image.sha256] = f"data:image/png;base64,{base64.b64encode(png).decode()}"
        return self._uris[image.sha256]

    def _record(
        self, completion: Completion, messages: Sequence[Message], hidden: tuple[int, ...], seconds: float
    ) -> ModelCall:
        known = completion.prompt_tokens is not None and completion.completion_tokens is not None
        if self._price is None:
            cost = 0.0
        elif known:
            cost = self._price.of(completion.prompt_tokens or 0, completion.completion_tokens or 0)
        else:
            cost = self.max_cost_usd(messages)
        return ModelCall(
            model=self._endpoint.model,
            seconds=round(seconds, 3),
            finish_reason=completion.finish_reason,
            prompt_tokens=completion.prompt_tokens,
            completion_tokens=completion.completion_tokens,
            cost_usd=cost,
            attempts=completion.attempts,
            sampling=completion.sent,
            reasoning=completion.reasoning.strip(),
            dropped_images=hidden,
            prompt_token_ids=completion.prompt_token_ids,
            completion_token_ids=completion.token_ids,
            logprobs=completion.logprobs,
        )

    def _too_long(self, error: ContextOverflowError) -> PolicyError:
        return PolicyError(
            f"{error} and no more images can be left out: serve the model with a longer context, or lower "
            "--max-tokens, --image-side or --max-turns"
        )
