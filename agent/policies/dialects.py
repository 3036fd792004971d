"""The two ways of speaking to a chat server; the loop and the session see the text protocol in both.

*text*: the paper's tags, which a trained policy writes. *native*: the server's function calling, for models that were
trained on it. A dialect turns the conversation into a request and a completion into the text of a turn.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeAlias

from agent.policies.completion import Completion, FunctionCall
from agent.protocol import (
    ANSWER,
    ImageRef,
    Message,
    ProtocolError,
    ToolCall,
    native_system_prompt,
    native_tools,
    parse_turn,
    render_parts,
)

STOPS = ("</tool_call>", "</answer>")
"""Where a text turn ends; nothing that a model writes after the first of them is read."""
EMPTY = "(empty)"
"""Stands in the conversation for a reply without any text, which many servers do not take."""
Show: TypeAlias = Callable[[ImageRef], str | None]
"""Gives an image's data URI, or None where it is left out."""

_CLOSING = re.compile("|".join(STOPS))
_FENCE = re.compile(r"\s*```(?:json)?\s*(\{.*\})\s*```\s*\Z", re.DOTALL)
_TAGS = re.compile(r"</?(?:thinking|think|tool_call|answer)>")


class Dialect(Protocol):
    """Between the conversation and one server's wire format."""

    name: str

    def request(self, messages: Sequence[Message], signatures: Sequence[dict[str, Any]], show: Show) -> dict[str, Any]:
        """The request's messages, and its tools or stop strings."""
        ...

    def read(self, completion: Completion) -> tuple[str, str]:
        """The turn as text of the protocol, and what is wrong with it where the text does not show that ("" else)."""
        ...


class TextDialect(Dialect):
    """Tags in plain text; a tool's observation is a user message."""

    name = "text"

    def request(self, messages: Sequence[Message], signatures: Sequence[dict[str, Any]], show: Show) -> dict[str, Any]:
        return {
            "messages": [
                {"role": "user" if message.role == "tool" else message.role, "content": _content(message, show)}
                for message in messages
            ],
            "stop": list(STOPS),
        }

    def read(self, completion: Completion) -> tuple[str, str]:
        text = completion.text
        if completion.calls and "<tool_call>" not in text:  # a server that reads the tags away
            text = f"{text.rstrip()}<tool_call>{_call_text(completion.calls[0])}</tool_call>"
        closing = _CLOSING.search(text)
        if closing:
            return text[: closing.end()], ""
        opened = max(("<tool_call>", "<answer>"), key=text.rfind)
        if opened in text and completion.finish_reason != "length":  # the server left the stop string out
            return f"{text}</{opened[1:]}", ""
        return text, _shortcoming(completion, text)


class NativeDialect(Dialect):
    """Function calling: the tools are functions, and so is the answer.

    A model that calls several functions at once is asked again, since a turn is one call and what comes next depends
    on what it returns.
    """

    name = "native"

    def request(self, messages: Sequence[Message], signatures: Sequence[dict[str, Any]], show: Show) -> dict[str, Any]:
        wire: list[dict[str, Any]] = []
        pending = ""
        for number, message in enumerate(messages):
            if message.role == "system":
                wire.append({"role": "system", "content": native_system_prompt()})
            elif message.role == "assistant":
                wire.append(_assistant(message.content, f"call_{number}"))
                pending = f"call_{number}" if "tool_calls" in wire[-1] else ""
            elif pending:
                wire.append({"role": "tool", "tool_call_id": pending, "content": _payload(message)})
                if message.images:
                    named = " and ".join(f"Image {image.index}" for image in message.images)
                    shown = Message("user", f"{named}, returned by {message.name}:", message.images)
                    wire.append({"role": "user", "content": _content(shown, show)})
                pending = ""
            else:
                wire.append({"role": "user", "content": _content(message, show)})
        return {"messages": wire, "tools": native_tools(signatures), "parallel_tool_calls": False}

    def read(self, completion: Completion) -> tuple[str, str]:
        thought = _TAGS.sub("", completion.text).strip()
        calls = completion.calls
        if len(calls) > 1:
            called = ", ".join(call.name for call in calls)
            return f"<thinking>{thought}</thinking>", f"{len(calls)} functions were called at once ({called}): call one"
        if not calls:
            answer = _written_answer(completion.text)
            if answer is not None:
                return render_parts("", ANSWER, answer), ""
            problem = _shortcoming(completion, thought) or f"no function was called: call one, or {ANSWER} to end"
            return f"<thinking>{thought}</thinking>" if thought else "", problem
        arguments = _object(calls[0].arguments or "{}")
        if arguments is None:
            problem = _shortcoming(completion, "") if completion.finish_reason == "length" else ""
            return (
                f"<thinking>{thought}</thinking>",
                problem or f"the arguments of {calls[0].name} are no JSON object",
            )
        if calls[0].name == ANSWER:
            return render_parts(thought, ANSWER, arguments), ""
        return render_parts(thought, "tool_call", {"name": calls[0].name, "arguments": arguments}), ""


DIALECTS: dict[str, Dialect] = {"text": TextDialect(), "native": NativeDialect()}


def take_reasoning(completion: Completion) -> None:
    """Move what a reasoning model thought in ``<think>`` (or before a lone ``</think>``) out of the reply's text."""
    reasoning, closed, rest = completion.text.rpartition("</think>")
    if not closed and completion.text.lstrip().startswith("<think>"):
        reasoning, rest = completion.text, ""
    completion.reasoning += reasoning.lstrip().removeprefix("<think>")
    completion.text = rest.lstrip() if reasoning else rest


def is_whole(text: str) -> bool:
    """Whether the text so far of a text turn holds a closing tag, its reasoning set aside."""
    reasons = text.lstrip().startswith("<think>") and "</think>" not in text
    return not reasons and _CLOSING.search(text.rpartition("</think>")[2]) is not None


def _shortcoming(completion: Completion, text: str) -> str:
    """Why a reply without an action has none, as far as the server says so."""
    if completion.finish_reason == "length":
        limit = completion.sent.get("max_tokens") or completion.sent.get("max_completion_tokens")
        return f"it was cut off at {limit} tokens before it was complete: keep it shorter, or raise --max-tokens"
    if completion.refusal:
        return f"the model refused: {' '.join(completion.refusal.split())[:200]}"
    if completion.finish_reason == "content_filter":
        return "the server's content filter stopped it: word it differently"
    if not text.strip():
        return "it ended within the reasoning: write the turn after it" if completion.reasoning else "it was empty"
    return ""


def _content(message: Message, show: Show) -> str | list[dict[str, Any]]:
    """Text first, then the images; a string where there are none."""
    shown = [(image, show(image)) for image in message.images]
    gone = "".join(f"\n(image {image.index} is no longer shown)" for image, uri in shown if uri is None)
    text = (message.content or EMPTY) + gone
    parts = [{"type": "image_url", "image_url": {"url": uri}} for _, uri in shown if uri is not None]
    return [{"type": "text", "text": text}, *parts] if parts else text


def _assistant(text: str, call_id: str) -> dict[str, Any]:
    """An assistant message; its call or answer as a function call, where the turn can be read."""
    try:
        turn = parse_turn(text)
    except ProtocolError:
        return {"role": "assistant", "content": _TAGS.sub(" ", text).strip() or EMPTY}
    action = turn.action
    name, fields = (action.name, action.arguments) if isinstance(action, ToolCall) else (ANSWER, action.to_json())
    function = {"name": name, "arguments": json.dumps(fields, ensure_ascii=False)}
    call = {"id": call_id, "type": "function", "function": function}
    return {"role": "assistant", "content": turn.thinking or None, "tool_calls": [call]}


def _payload(message: Message) -> str:
    """A tool's JSON without the line that names the tool; other messages as they are."""
    head, _, body = message.content.partition("\n")
    return body if head.startswith("[Tool Response from ") else message.content


def _call_text(call: FunctionCall) -> str:
    arguments = _object(call.arguments)
    if arguments is None:
        return f'{{"name": {json.dumps(call.name)}, "arguments": {call.arguments}}}'
    return json.dumps({"name": call.name, "arguments": arguments}, ensure_ascii=False).replace("</", "<\\/")


def _written_answer(text: str) -> dict[str, Any] | None:
    """The answer of a model that writes it instead of calling the function: in tags, in a fence or bare."""
    tagged = re.search(r"<answer>(.*?)(?:</answer>|\Z)", text, re.DOTALL)
    fenced = _FENCE.match(text)
    found = _object(tagged[1] if tagged else fenced[1] if fenced else text)
    return found if found is not None and "final_image_index" in found else None


def _object(text: str) -> dict[str, Any] | None:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
