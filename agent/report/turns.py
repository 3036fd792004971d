"""The conversation of a session, as a reader follows it: thought, tool call, observation, answer."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Any

from agent.report.pictures import Album, Picture
from agent.session import Session

_THINKING = re.compile(r"<thinking>(.*?)(?:</thinking>|(?=<tool_call>|<answer>)|\Z)", re.DOTALL)
_ACTION = re.compile(r"<(tool_call|answer)>.*?(?:</\1>|\Z)", re.DOTALL)
_RESPONSE = re.compile(r"\[Tool Response from ([^\]]*)\]\s*")


@dataclass(slots=True)
class Call:
    """One tool call and what came back; ``finished`` is False where the log ends before its result."""

    tool: str
    arguments: Any
    bound: Any = None
    finished: bool = False
    ok: bool = False
    payload: dict[str, Any] = field(default_factory=dict)
    seconds: float | None = None
    cost_usd: float | None = None
    replayed: bool = False
    error: str = ""
    observation: str = ""
    """What the policy was shown, pretty-printed where it is JSON."""
    pictures: list[tuple[str, Picture]] = field(default_factory=list)
    """Caption and image."""


@dataclass(slots=True)
class Entry:
    """One step of the conversation: an assistant's turn (``number`` from 1) or a message to it (``number`` 0)."""

    role: str
    number: int = 0
    thought: str = ""
    text: str = ""
    """A message's own text, or what an assistant wrote outside the protocol."""
    call: Call | None = None
    answer: Any = None
    pictures: list[tuple[str, Picture]] = field(default_factory=list)


def pretty(value: Any, indent: int = 0) -> str:
    """JSON in any language's letters, over several lines only where one of 88 columns does not hold it."""
    line = json.dumps(value, ensure_ascii=False)
    if len(line) + indent <= 88 or not isinstance(value, dict | list) or not value:
        return line
    pad = " " * (indent + 2)
    if isinstance(value, dict):
        rows = [f"{json.dumps(key, ensure_ascii=False)}: {pretty(item, indent + 2)}" for key, item in value.items()]
        return "{\n" + ",\n".join(pad + row for row in rows) + "\n" + " " * indent + "}"
    return "[\n" + ",\n".join(pad + pretty(item, indent + 2) for item in value) + "\n" + " " * indent + "]"


def read_conversation(session: Session, album: Album) -> tuple[str, list[Entry]]:
    """The system prompt (empty where there is none) and the steps after it, in the order of the log."""
    system, entries = "", list[Entry]()
    calls: dict[Any, Call] = {}
    for event in session.events:
        if event["type"] == "message":
            role, content = str(event.get("role")), str(event.get("content") or "")
            if role == "system" and not system:
                system = content
            elif role == "assistant":
                number = sum(entry.role == "assistant" for entry in entries) + 1
                entries.append(_assistant(content, number))
            elif not _observe(event, content, entries):
                entries.append(Entry(role=role, text=content, pictures=_photos(album, event)))
        elif event["type"] == "tool_call":
            call = Call(tool=str(event.get("tool")), arguments=event.get("arguments"), bound=event.get("bound"))
            calls[event.get("call_id")] = call
            if not entries or entries[-1].role != "assistant" or entries[-1].call is not None:
                entries.append(Entry(role="assistant"))
            entries[-1].call = call
        elif event["type"] == "tool_result" and event.get("call_id") in calls:
            _finish(album, calls[event.get("call_id")], event)
    for entry in entries:
        if entry.call is not None and entry.call.finished and not entry.call.observation:
            entry.call.observation = pretty(entry.call.payload) if entry.call.payload else ""
    return system, entries


def _assistant(content: str, number: int) -> Entry:
    entry = Entry(role="assistant", number=number)
    thought = _THINKING.search(content)
    entry.thought = thought.group(1).strip() if thought else ""
    rest = _THINKING.sub("", content, count=1)
    action = _ACTION.search(rest)
    if action and action.group(1) == "answer":
        body = re.sub(r"</?answer>", "", action.group(0)).strip()
        try:
            entry.answer = json.loads(body)
        except ValueError:
            entry.answer = body
    entry.text = _ACTION.sub("", rest, count=1).strip()
    return entry


def _observe(event: dict[str, Any], content: str, entries: list[Entry]) -> bool:
    """Attach a tool's response to the call it answers; False where the message is none."""
    header = _RESPONSE.match(content)
    if event.get("role") != "tool" and not header:
        return False
    call = entries[-1].call if entries else None
    if call is None or call.observation:
        return False
    body = content[header.end() :] if header else content
    try:
        call.observation = pretty(json.loads(body))
    except ValueError:
        call.observation = body.strip()
    return True


def _finish(album: Album, call: Call, event: dict[str, Any]) -> None:
    call.finished, call.ok = True, bool(event.get("ok"))
    call.bound = event.get("bound") or call.bound
    call.payload = event.get("payload") or {}
    call.seconds, call.cost_usd = event.get("seconds"), event.get("cost_usd")
    call.replayed = bool(event.get("replayed"))
    if not call.ok:
        parts = (event.get("error_class"), event.get("error"))
        call.error = ": ".join(str(part) for part in parts if part) or "the tool failed and gave no reason"
    for image in event.get("images") or []:
        if image.get("role") == "mask":
            call.pictures.append(("Mask", album.mask(image)))
        else:
            call.pictures.append((f"Image {image.get('index')}", album.photo(image)))


def _photos(album: Album, event: dict[str, Any]) -> list[tuple[str, Picture]]:
    return [
        (f"Image {image.get('index')} ({image.get('role')})", album.photo(image)) for image in event.get("images") or []
    ]
