"""Stdio whose every line is answered: what is no message gets a JSON-RPC error instead of silence, as over HTTP."""

from __future__ import annotations

import contextvars
import json
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol, Self

import anyio
from mcp.server.mcpserver import MCPServer
from mcp.server.stdio import stdio_server
from mcp.shared.message import SessionMessage
from mcp_types import INVALID_REQUEST, PARSE_ERROR, ErrorData, JSONRPCError
from pydantic import ValidationError


class Received(Protocol):
    """What the SDK reads from stdin: messages, and the errors of lines that are none."""

    last_context: contextvars.Context | None

    async def receive(self) -> SessionMessage | Exception:
        """The next one. Raises anyio.EndOfStream."""
        ...

    async def aclose(self) -> None:
        """Read no further."""
        ...


class Sent(Protocol):
    """Where the SDK's messages go to stdout."""

    async def send(self, item: SessionMessage, /) -> None:
        """Write one."""
        ...


@dataclass(slots=True)
class Answered:
    """The messages of a stream; lines that are no message are answered here."""

    received: Received
    sent: Sent

    @property
    def last_context(self) -> contextvars.Context | None:
        """The context of the message that came last."""
        return self.received.last_context

    async def receive(self) -> SessionMessage:
        """The next message. Raises anyio.EndOfStream."""
        while True:
            item = await self.received.receive()
            if isinstance(item, SessionMessage):
                return item
            answer = answer_to(item)
            if answer is not None:
                await self.sent.send(SessionMessage(answer))

    async def aclose(self) -> None:
        """Read no further."""
        await self.received.aclose()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> SessionMessage:
        try:
            return await self.receive()
        except anyio.EndOfStream:
            raise StopAsyncIteration from None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()


def answer_to(error: Exception) -> JSONRPCError | None:
    """The error for a line that is no message, under the request's id where it shows; None for an empty line."""
    code, message, request_id = INVALID_REQUEST, "the line is no JSON-RPC request: send one object a line", None
    for problem in error.errors(include_url=False, include_context=False) if isinstance(error, ValidationError) else ():
        found: Any = problem["input"]
        if problem["type"] == "json_invalid":
            if not found.strip():
                return None
            code, message = PARSE_ERROR, "the line cannot be read as JSON: one whole object, well-formed, not too deep"
            try:
                found = json.loads(found)  # takes some of what the SDK does not: lone surrogates, deep nesting
            except (ValueError, RecursionError):
                continue
        if isinstance(found, dict) and type(found.get("id")) in (int, str):
            request_id = found["id"]
            break
    return JSONRPCError(jsonrpc="2.0", id=request_id, error=ErrorData(code=code, message=message))


class AnsweringServer(MCPServer):
    """The SDK's server, which alone would drop unreadable lines of stdin."""

    async def run_stdio_async(self) -> None:
        """Serve stdin and stdout until stdin ends, or nobody reads stdout any more."""
        inner = self._lowlevel_server
        try:
            async with stdio_server() as (received, sent):
                await inner.run(Answered(received, sent), sent, inner.create_initialization_options())
        except* BrokenPipeError:
            pass  # the client was killed in a call
