"""The two services that answer questions: Gemini's API, and OpenAI's, which vLLM and others speak too."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mcp_servers.backends import BackendChoice
from mcp_servers.errors import BackendError, FailureKind
from mcp_servers.remote import ask, gemini, key_of, openai_client
from mcp_servers.remote.access import service_of
from mcp_servers.remote.errors import unreadable
from mcp_servers.vlm.asking import Question, Reply, Service, complaint
from mcp_servers.vlm.choosing import MAX_OUTPUT_TOKENS, PICTURE_TOKENS, TEXT_TOKENS, model_of, price_for

if TYPE_CHECKING:
    from google.genai.types import Content, GenerateContentResponse


def service_for(choice: BackendChoice) -> Service:
    """The chosen service (``choice.name`` is gemini or openai)."""
    return _Gemini(choice) if choice.name == "gemini" else _OpenAI(choice)


class _Named:
    def __init__(self, choice: BackendChoice) -> None:
        self.choice = choice
        self.model = model_of(choice)
        self.service = service_of(choice.name, choice)
        self.title = f"{self.model} ({self.service})"
        self.secrets = (key_of(choice.name, choice),)

    def cost(self, tokens: tuple[int, int] | None, pictures: int) -> float:
        """US dollars of one reply; where the service does not count its tokens, the most that it may have cost."""
        price = price_for(self.choice, self.model)
        most = (TEXT_TOKENS + pictures * PICTURE_TOKENS, MAX_OUTPUT_TOKENS)
        return 0.0 if price is None else price.of(*(tokens or most))


class _Gemini(_Named):
    async def complete(self, question: Question, exchange: Sequence[tuple[str, str]]) -> Reply:
        from google.genai import types

        config = types.GenerateContentConfig(
            system_instruction=question.rules,
            response_mime_type="application/json",
            response_json_schema=question.schema,
            max_output_tokens=MAX_OUTPUT_TOKENS,
        )
        contents: Any = self._contents(question, exchange)
        async with gemini.client(self.choice) as client:

            async def send() -> tuple[GenerateContentResponse, float]:
                response = await client.models.generate_content(model=self.model, contents=contents, config=config)
                cost = self.cost(tokens_of(response), len(question.pictures))
                gemini.raise_if_refused(response, self.service, cost)
                return response, cost

            answered = await ask(send, self.service, self.choice, self.secrets)
        response, cost = answered.value
        return Reply(text_of(response), gemini.ended_with(response), cost, answered.attempts)

    def _contents(self, question: Question, exchange: Sequence[tuple[str, str]]) -> list[Content]:
        from google.genai import types

        parts = []
        for label, png in question.pictures:
            parts += [types.Part.from_text(text=label), types.Part.from_bytes(data=png, mime_type="image/png")]
        contents = [types.Content(role="user", parts=[*parts, types.Part.from_text(text=question.text)])]
        for reply, problem in exchange:
            if reply:
                contents.append(types.Content(role="model", parts=[types.Part.from_text(text=reply)]))
            contents.append(types.Content(role="user", parts=[types.Part.from_text(text=complaint(problem))]))
        return contents


class _OpenAI(_Named):
    async def complete(self, question: Question, exchange: Sequence[tuple[str, str]]) -> Reply:
        from openai.types.chat import ChatCompletion

        schema = {"name": question.name, "strict": True, "schema": question.schema}
        form: Any = {"type": "json_schema", "json_schema": schema}
        messages: Any = self._messages(question, exchange)
        async with openai_client.client(self.choice) as client:

            async def send() -> tuple[ChatCompletion, float]:
                completion = await client.chat.completions.create(
                    model=self.model,
                    messages=messages,
                    response_format=form,
                    max_completion_tokens=MAX_OUTPUT_TOKENS,
                )
                if not isinstance(completion, ChatCompletion):  # a page of text, say from a proxy
                    raise unreadable(self.service).error()
                used = completion.usage
                tokens = (used.prompt_tokens, used.completion_tokens) if used else None
                return completion, self.cost(tokens, len(question.pictures))

            answered = await ask(send, self.service, self.choice, self.secrets)
        completion, cost = answered.value
        first = next(iter(completion.choices or []), None)
        if first is None or first.message is None:
            return Reply("", "no choice", cost, answered.attempts)
        if first.message.refusal or first.finish_reason == "content_filter":
            text = f"{self.service} refused for policy reasons: word the task more neutrally"
            raise BackendError(text, FailureKind.REFUSED, cost_usd=cost, attempts=answered.attempts)
        return Reply(first.message.content or "", str(first.finish_reason), cost, answered.attempts)

    def _messages(self, question: Question, exchange: Sequence[tuple[str, str]]) -> list[dict[str, Any]]:
        parts: list[dict[str, Any]] = []
        for label, png in question.pictures:
            url = f"data:image/png;base64,{base64.b64encode(png).decode()}"
            parts += [
                {"type": "text", "text": label},
                {"type": "image_url", "image_url": {"url": url, "detail": "high"}},
            ]
        parts.append({"type": "text", "text": question.text})
        messages: list[dict[str, Any]] = [
            {"role": "system", "content": question.rules},
            {"role": "user", "content": parts},
        ]
        for reply, problem in exchange:
            messages += [{"role": "assistant", "content": reply}] if reply else []
            messages.append({"role": "user", "content": complaint(problem)})
        return messages


def text_of(response: GenerateContentResponse) -> str:
    """What Gemini wrote, without its thoughts; "" where it wrote nothing."""
    candidate = next(iter(response.candidates or []), None)
    parts = (candidate.content.parts if candidate and candidate.content else None) or []
    return "".join(part.text for part in parts if part.text and not part.thought)


def tokens_of(response: GenerateContentResponse) -> tuple[int, int] | None:
    """Tokens that Gemini bills as input and as output (thoughts included), None where it does not count them."""
    used = response.usage_metadata
    if used is None or used.prompt_token_count is None:
        return None
    read = used.prompt_token_count + (used.tool_use_prompt_token_count or 0)
    return read, (used.candidates_token_count or 0) + (used.thoughts_token_count or 0)
