"""A chat server on loopback that speaks OpenAI's wire format and says what it was given, reply by reply.

Replies are taken in order; the last one is repeated. What it does with ``stop`` is a matter of ``stop``: "drops" (the
reply ends before the stop string, as at OpenAI), "keeps" (after it), "ignores" (nothing is cut), "fails" (HTTP 500).
"""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Says:
    """A completion; ``calls`` are (function, arguments as JSON text or as an object)."""

    text: str | None = ""
    calls: Sequence[tuple[str, Any]] = ()
    finish: str = "stop"
    usage: tuple[int, int] | None = (1000, 50)
    message: dict[str, Any] = field(default_factory=dict)
    choice: dict[str, Any] = field(default_factory=dict)
    body: dict[str, Any] = field(default_factory=dict)


@dataclass
class Fails:
    """An error reply."""

    status: int
    message: str = "no"
    code: str | None = None
    param: str | None = None
    headers: dict[str, str] = field(default_factory=lambda: {"retry-after-ms": "1"})


@dataclass
class Raw:
    """Bytes as they are."""

    data: bytes
    content_type: str = "application/json"


class Hangs:
    """No reply until the server is closed."""


class FakeOpenAI:
    """A context manager; ``requests`` are the bodies of the chat requests, ``headers`` theirs."""

    def __init__(
        self,
        replies: Sequence[Says | Fails | Raw | Hangs] = (),
        *,
        stop: str = "drops",
        models: Sequence[str] = ("some-model",),
        streams: bool = True,
        key: str = "",
    ) -> None:
        self.replies, self.stop, self.models, self.streams, self.key = list(replies), stop, models, streams, key
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.closing = threading.Event()
        self._taken = 0
        fake = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                found = self.path.endswith("/v1/models")
                listed = {"object": "list", "data": [{"id": name, "object": "model"} for name in fake.models]}
                fake.send(self, 200 if found else 404, json.dumps(listed if found else {}).encode())

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                fake.headers.append({name.lower(): value for name, value in self.headers.items()})
                if not self.path.endswith("/v1/chat/completions"):
                    return fake.send(self, 404, b"{}")
                fake.requests.append(body)
                return fake.answer(self, body)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"

    def __enter__(self) -> FakeOpenAI:
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()

    def send(
        self, handler: BaseHTTPRequestHandler, status: int, data: bytes, kind: str = "application/json", **more: str
    ) -> None:
        handler.send_response(status)
        for name, value in ({"content-type": kind, "content-length": str(len(data))} | more).items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(data)

    def fail(self, handler: BaseHTTPRequestHandler, fault: Fails) -> None:
        error = {"message": fault.message, "code": fault.code, "param": fault.param, "type": "error"}
        self.send(handler, fault.status, json.dumps({"error": error}).encode(), **fault.headers)

    def answer(self, handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        if self.key and handler.headers["authorization"] != f"Bearer {self.key}":
            return self.fail(handler, Fails(401, f"Incorrect API key: {handler.headers['authorization']}"))
        if body["model"] not in self.models:
            return self.fail(handler, Fails(404, "no such model", "model_not_found"))
        if self.stop == "fails" and "stop" in body:
            return self.fail(handler, Fails(500, "Internal Server Error"))
        reply = self.replies[min(self._taken, len(self.replies) - 1)]
        self._taken += 1
        if isinstance(reply, Fails):
            return self.fail(handler, reply)
        if isinstance(reply, Raw):
            return self.send(handler, 200, reply.data, reply.content_type)
        if isinstance(reply, Hangs):
            self.closing.wait()
            return None
        if body.get("stream") and self.streams:
            return self._stream(handler, reply, body)
        return self.send(handler, 200, json.dumps(self._whole(reply, body)).encode())

    def _text(self, reply: Says, body: dict[str, Any]) -> str | None:
        text = reply.text
        if text is None or self.stop == "ignores" or "stop" not in body:
            return text
        ends = [(text.find(stop), stop) for stop in body["stop"] if stop in text]
        at, stop = min(ends, default=(len(text), ""))
        return text[: at + (len(stop) if self.stop == "keeps" else 0)]

    def _calls(self, reply: Says) -> list[dict[str, Any]]:
        return [
            {
                "id": f"id_{number}",
                "type": "function",
                "function": {"name": name, "arguments": given if isinstance(given, str) else json.dumps(given)},
            }
            for number, (name, given) in enumerate(reply.calls)
        ]

    def _whole(self, reply: Says, body: dict[str, Any]) -> dict[str, Any]:
        message = {"role": "assistant", "content": self._text(reply, body)} | reply.message
        if reply.calls:
            message["tool_calls"] = self._calls(reply)
        choice = {"index": 0, "message": message, "finish_reason": reply.finish} | reply.choice
        whole = {"id": "x", "object": "chat.completion", "created": 1, "model": body["model"], "choices": [choice]}
        return whole | self._usage(reply) | reply.body

    def _usage(self, reply: Says) -> dict[str, Any]:
        if reply.usage is None:
            return {}
        read, written = reply.usage
        return {"usage": {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}}

    def _stream(self, handler: BaseHTTPRequestHandler, reply: Says, body: dict[str, Any]) -> None:
        deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}]
        deltas += [{name: piece} for name, value in reply.message.items() for piece in _pieces(value)]
        deltas += [{"content": piece} for piece in _pieces(self._text(reply, body) or "")]
        for number, call in enumerate(self._calls(reply)):
            function = call["function"]
            deltas.append({"tool_calls": [call | {"index": number, "function": function | {"arguments": ""}}]})
            deltas += [
                {"tool_calls": [{"index": number, "function": {"arguments": piece}}]}
                for piece in _pieces(function["arguments"])
            ]
        choices: list[list[dict[str, Any]]] = [
            [{"index": 0, "delta": delta, "finish_reason": None}] for delta in deltas
        ]
        choices.append([{"index": 0, "delta": {}, "finish_reason": reply.finish}])
        chunks = [{"id": "x", "object": "chat.completion.chunk", "choices": choice} for choice in choices]
        if body.get("stream_options", {}).get("include_usage"):
            chunks.append({"id": "x", "object": "chat.completion.chunk", "choices": []} | self._usage(reply))
        handler.send_response(200)
        handler.send_header("content-type", "text/event-stream; charset=utf-8")
        handler.end_headers()
        try:
            for chunk in chunks:
                handler.wfile.write(f"data: {json.dumps(chunk)}\n\n".encode())
            handler.wfile.write(b"data: [DONE]\n\n")
        except OSError:  # the client has read enough
            pass


def _pieces(text: str) -> list[str]:
    return [text[start : start + 7] for start in range(0, len(text), 7)]
