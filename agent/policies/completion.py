"""A chat completion as servers really send it, whole or in pieces, gathered into one plain record.

Servers that call themselves OpenAI-compatible differ: reasoning comes as ``reasoning_content`` or ``reasoning``, token
ids only from vLLM, function calls in pieces without a number. Everything is read from plain JSON and with care.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class FunctionCall:
    """One function that the model called; ``arguments`` is the JSON text as it came."""

    name: str = ""
    arguments: str = ""


@dataclass(slots=True)
class Completion:
    """What came back: text, reasoning, function calls, and the server's bookkeeping (None where it keeps none).

    ``choices`` counts how often the server said anything of its first choice; 0 means that there was none.
    ``logprobs`` are natural logarithms, one a completion token. ``sent``: the request's fields beside the
    conversation, as they were accepted; ``attempts``: HTTP requests made.
    """

    text: str = ""
    reasoning: str = ""
    refusal: str = ""
    calls: list[FunctionCall] = field(default_factory=list)
    choices: int = 0
    finish_reason: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_token_ids: tuple[int, ...] | None = None
    token_ids: tuple[int, ...] | None = None
    logprobs: tuple[float, ...] | None = None
    sent: dict[str, Any] = field(default_factory=dict)
    attempts: int = 1

    def add(self, body: Mapping[str, Any], on_text: Callable[[str], None] | None = None) -> None:
        """Take in a whole response or one piece of a streamed one."""
        if usage := _object(body.get("usage")):
            self.prompt_tokens = _whole(usage.get("prompt_tokens"))
            self.completion_tokens = _whole(usage.get("completion_tokens"))
        if ids := _numbers(body.get("prompt_token_ids")):
            self.prompt_token_ids = tuple(map(int, ids))
        choices = body.get("choices")
        choice = _object(choices[0]) if isinstance(choices, list) and choices else None
        if choice is None or choice.get("index") not in (0, None):
            return
        self.choices += 1
        if choice.get("finish_reason"):
            self.finish_reason = str(choice["finish_reason"])
        if ids := _numbers(choice.get("token_ids")):
            self.token_ids = (self.token_ids or ()) + tuple(map(int, ids))
        tokens = (_object(choice.get("logprobs")) or {}).get("content") or []
        if logprobs := _numbers([_object(token) and token.get("logprob") for token in tokens]):
            self.logprobs = (self.logprobs or ()) + tuple(map(float, logprobs))
        message = _object(choice.get("message")) or _object(choice.get("delta")) or {}
        text, reasoning = (
            _text(message.get("content")),
            _text(message.get("reasoning_content") or message.get("reasoning")),
        )
        self.text += text
        self.reasoning += reasoning
        self.refusal += _text(message.get("refusal"))
        for call in message.get("tool_calls") or []:
            self._add_call(_object(call) or {})
        if on_text and (reasoning or text):
            on_text(reasoning + text)

    def _add_call(self, call: Mapping[str, Any]) -> None:
        """Add a call or a piece of one: pieces carry their call's number, or belong to the last one."""
        function = _object(call.get("function")) or {}
        number = call.get("index")
        if not isinstance(number, int):
            number = len(self.calls) - (0 if function.get("name") or not self.calls else 1)
        while len(self.calls) <= min(number, 64):
            self.calls.append(FunctionCall())
        target = self.calls[min(number, 64)]
        target.name += _text(function.get("name"))
        arguments = function.get("arguments")
        target.arguments += json.dumps(arguments) if isinstance(arguments, dict) else _text(arguments)


def _object(value: Any) -> dict[str, Any] | None:
    return value if isinstance(value, dict) else None


def _whole(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _numbers(value: Any) -> list[Any]:
    """A list of numbers, empty where it is anything else."""
    return value if isinstance(value, list) and all(isinstance(item, int | float) for item in value) else []


def _text(value: Any) -> str:
    """A content field's text: a string, or a list of parts of which the text parts count."""
    if isinstance(value, list):
        return "".join(str(part.get("text") or "") for part in map(_object, value) if part)
    return value if isinstance(value, str) else ""
