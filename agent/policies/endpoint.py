"""One OpenAI-compatible server: requests through the OpenAI SDK, what this server does not take, failures in one line.

The SDK repeats what may pass (connection, 408, 409, 429, 5xx) with growing waits. On top of that an endpoint learns:
a field that the server rejects is left out from then on, and so is ``stop`` where it makes the server fail, which
``transformers serve`` does with images. It is shared by all episodes that use the server.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import anyio
import openai

from agent.policies import PolicyError
from agent.policies.completion import Completion
from agent.policies.failures import describe, field_not_taken, may_pass, no_such_model, overflows, server_words
from agent.policies.sampling import RETRIES, TIMEOUT

CONNECT_TIMEOUT = 15.0
_CONVERSATION = frozenset({"messages", "model", "tools", "stream", "stream_options", "extra_body"})


class ContextOverflowError(PolicyError):
    """The conversation does not fit the model's context; the message is the server's."""


class Endpoint:
    """A server and a model on it. ``timeout``: seconds for one reply, repetitions included."""

    def __init__(
        self, base_url: str, model: str, api_key: str = "", timeout: float = TIMEOUT, retries: int = RETRIES
    ) -> None:
        self.base_url, self.model = base_url, model
        self._key, self._timeout, self._retries = api_key, timeout, retries
        self._client: openai.AsyncOpenAI | None = None
        self._left_out: set[str] = set()
        self._stop_proven = False

    def __repr__(self) -> str:
        return f"Endpoint({self.base_url!r}, {self.model!r})"

    @property
    def client(self) -> openai.AsyncOpenAI:
        if self._client is None:
            self._client = openai.AsyncOpenAI(
                base_url=self.base_url,
                api_key=self._key or "none",
                timeout=openai.Timeout(self._timeout, connect=CONNECT_TIMEOUT),
                max_retries=self._retries,
            )
        return self._client

    async def aclose(self) -> None:
        """Close the connections; the endpoint opens new ones where it is used again."""
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    async def models(self) -> list[str] | None:
        """The names of the server's models, None where it keeps no list. Raises PolicyError."""
        try:
            with anyio.fail_after(self._timeout):
                page = await self.client.models.list()
        except TimeoutError as error:
            raise PolicyError(self._slow()) from error
        except openai.NotFoundError:
            return None
        except openai.APIError as error:
            raise PolicyError(describe(error, self.base_url, self._scrub, self._tries(error))) from error
        except ValueError as error:
            raise PolicyError(self._foreign()) from error
        if not isinstance(getattr(page, "data", None), list):
            raise PolicyError(self._foreign())
        return [str(model.id) for model in page.data]

    async def complete(
        self,
        request: Mapping[str, Any],
        on_text: Callable[[str], None] | None = None,
        enough: Callable[[str], bool] | None = None,
    ) -> Completion:
        """One chat completion of ``request`` (messages and options). Raises PolicyError, ContextOverflowError among it.

        With ``on_text`` the reply is streamed and every piece of text or reasoning handed over as it comes; where the
        server has no stop strings and ``enough`` says of the text so far that the rest is of no use, the reply is
        broken off there.
        """
        try:
            with anyio.fail_after(self._timeout):
                return await self._complete(request, on_text, enough)
        except TimeoutError as error:
            raise PolicyError(self._slow()) from error
        except openai.APIError as error:
            raise await self._failure(error) from error
        except ValueError as error:  # no JSON where JSON was due
            raise PolicyError(self._foreign()) from error

    async def _complete(
        self, request: Mapping[str, Any], on_text: Callable[[str], None] | None, enough: Callable[[str], bool] | None
    ) -> Completion:
        failed, patient = 0, False
        while True:
            fields = self._accepted(request, stream=on_text is not None)
            untried = "stop" in fields and not self._stop_proven
            retries = 0 if untried and not patient else self._retries
            try:
                completion = await self._send(fields, retries, on_text, None if "stop" in fields else enough)
            except openai.APIError as error:
                failed += retries + 1 if may_pass(error) else 1
                if self._learn(error, fields):
                    continue
                if retries < self._retries and may_pass(error):
                    patient = True
                    continue
                raise
            self._stop_proven = self._stop_proven or "stop" in fields
            completion.attempts += failed
            completion.sent = {key: value for key, value in fields.items() if key not in _CONVERSATION}
            return completion

    def _accepted(self, request: Mapping[str, Any], stream: bool) -> dict[str, Any]:
        """The request's fields without those that this server does not take."""
        fields = dict(request)
        if stream:
            fields |= {"stream": True, "stream_options": {"include_usage": True}}
        if "max_tokens" in self._left_out and "max_tokens" in fields:
            fields["max_completion_tokens"] = fields["max_tokens"]
        kept = {key: value for key, value in fields.items() if key not in self._left_out}
        if "stream" not in kept:
            kept.pop("stream_options", None)
        return kept

    def _learn(self, error: openai.APIError, fields: Mapping[str, Any]) -> bool:
        """Leave out from now on what made this request fail; False where that is not known."""
        failing = type(error) is openai.APIError or getattr(error, "status_code", 0) == 500
        name = (
            "stop" if failing and "stop" in fields and not self._stop_proven else field_not_taken(error, list(fields))
        )
        if name:
            self._left_out.add(name)
        return bool(name)

    async def _send(
        self,
        fields: dict[str, Any],
        retries: int,
        on_text: Callable[[str], None] | None,
        enough: Callable[[str], bool] | None,
    ) -> Completion:
        completions = self.client.with_options(max_retries=retries).chat.completions
        raw = await completions.with_raw_response.create(model=self.model, **fields)
        completion = Completion(attempts=raw.retries_taken + 1)
        if "stream" in fields and raw.headers.get("content-type", "").startswith("text/event-stream"):
            async with raw.parse() as stream:
                async for chunk in stream:
                    completion.add(chunk.model_dump(warnings=False), on_text)
                    if enough and enough(completion.text):
                        completion.finish_reason = completion.finish_reason or "stop"
                        break
            return completion
        body = json.loads(await raw.http_response.aread())
        if not isinstance(body, dict):
            raise ValueError("not a chat completion")
        completion.add(body, on_text)
        return completion

    async def _failure(self, error: openai.APIError) -> PolicyError:
        if overflows(error):
            words = self._scrub(server_words(error))
            return ContextOverflowError(f"the conversation does not fit the model's context ({words})")
        if isinstance(error, openai.NotFoundError):
            try:
                models = await self.models()
            except PolicyError as other:
                return other
            return PolicyError(no_such_model(self.model, self.base_url, models))
        return PolicyError(describe(error, self.base_url, self._scrub, self._tries(error)))

    def _tries(self, error: openai.APIError) -> int:
        return self._retries + 1 if may_pass(error) else 1

    def _scrub(self, text: str) -> str:
        return text.replace(self._key, "[key]") if self._key else text

    def _slow(self) -> str:
        return (
            f"the policy server {self.base_url} took over {self._timeout:g} s for a reply: raise --policy-timeout, or "
            "lower --max-tokens"
        )

    def _foreign(self) -> str:
        return f"{self.base_url} answered with something that is no chat completion: check --base-url"
