"""Stand-ins for paid model services: loopback HTTP servers that speak Gemini's and OpenAI's wire format.

A ``FakeModels`` answers request after request from a script; its last entry repeats. The real SDKs talk to it.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, TypeAlias

Scripted: TypeAlias = "Response | Callable[[dict[str, Any]], Response]"
"""An answer, or a function from the request's JSON to one."""


@dataclass(frozen=True)
class Response:
    """One HTTP answer; ``hang``: none at all until the server is closed."""

    body: Any = None
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    hang: bool = False


@dataclass
class FakeModels:
    """What was asked (path, headers, JSON), and what is answered next."""

    script: Sequence[Scripted]
    requests: list[dict[str, Any]] = field(default_factory=list)
    url: str = ""
    closing: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def next(self, path: str, headers: dict[str, str], body: dict[str, Any]) -> Response:
        with self.lock:
            self.requests.append({"path": path, "headers": headers, "body": body})
            answer = self.script[min(len(self.requests), len(self.script)) - 1]
        return answer(body) if callable(answer) else answer

    def texts(self, number: int = -1) -> str:
        """Everything textual that a request said, as one string (pictures left out)."""
        body = self.requests[number]["body"]
        found: list[str] = []

        def walk(node: Any) -> None:
            if isinstance(node, dict):
                for key, value in node.items():
                    if key not in ("inlineData", "image_url", "data"):
                        walk(value)
            elif isinstance(node, list):
                for item in node:
                    walk(item)
            elif isinstance(node, str):
                found.append(node)

        walk(body.get("messages") or [body.get("systemInstruction"), body.get("contents")])
        return "\n".join(found)


@contextmanager
def fake_models(*script: Scripted) -> Iterator[FakeModels]:
    """A running stand-in; ``url`` is its address without a path."""
    fake = FakeModels(script)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            response = fake.next(self.path, {k.lower(): v for k, v in self.headers.items()}, body)
            if response.hang:
                fake.closing.wait(30)
                return
            data = response.body if isinstance(response.body, bytes) else json.dumps(response.body).encode()
            kind = "text/html" if isinstance(response.body, bytes) else "application/json"
            self.send_response(response.status)
            for name, value in ({"Content-Type": kind, "Content-Length": str(len(data))} | response.headers).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class names it
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    fake.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield fake
    finally:
        fake.closing.set()
        server.shutdown()
        server.server_close()
        thread.join()


def openai_says(
    text: str | None, stopped: str = "stop", tokens: tuple[int, int] = (2000, 300), **more: Any
) -> Response:
    """A chat completion; ``more`` goes into its message (refusal)."""
    message = {"role": "assistant", "content": text, **more}
    return Response({
        "id": "c1", "object": "chat.completion", "created": 1, "model": "m",
        "choices": [{"index": 0, "finish_reason": stopped, "message": message}],
        "usage": {"prompt_tokens": tokens[0], "completion_tokens": tokens[1], "total_tokens": sum(tokens)},
    })  # fmt: skip


def gemini_says(
    text: str | None, stopped: str = "STOP", tokens: tuple[int, int, int] = (2000, 100, 200), **more: Any
) -> Response:
    """A generated content with a thought before it; tokens of prompt, text and thoughts; ``more``: grounding."""
    parts = [{"text": "Let me see.", "thought": True}] + ([{"text": text}] if text is not None else [])
    used = dict(zip(("promptTokenCount", "candidatesTokenCount", "thoughtsTokenCount"), tokens, strict=True))
    candidate = {"content": {"role": "model", "parts": parts}, "finishReason": stopped, **more}
    return Response({"candidates": [candidate], "usageMetadata": used})


def gemini_blocks(reason: str = "SAFETY") -> Response:
    """A prompt that Gemini declines."""
    return Response({"promptFeedback": {"blockReason": reason}, "usageMetadata": {"promptTokenCount": 500}})


def fails(status: int, message: str = "try later", wait: int | None = 0) -> Response:
    """An error that both SDKs understand, with a Retry-After in seconds (None: without)."""
    headers = {} if wait is None else {"Retry-After": str(wait)}
    return Response({"error": {"code": status, "message": message, "status": "X"}}, status, headers)
