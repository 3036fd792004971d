"""The seam between the toolbox and whatever carries out its calls: servers over MCP, or a recording of theirs.

The toolbox says what it wants in terms of the conversation (``ToolRequest``, with images as they are known there); a
transport names those images as its servers know them and brings back a ``ToolResult`` with the images already fetched.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from agent.protocol import ImageRef

MENDABLE = frozenset({"refused", "empty"})
"""Kinds of a backend's failure that another prompt may cure; every other kind ends the episode."""


class ToolboxError(RuntimeError):
    """The tools cannot go on (a server died, timed out or broke the protocol); the message names the cure.

    ``kind`` is the failure's class for the session, ``cost_usd`` what the failed call cost all the same, None where
    nobody knows (the call was given up, or its server is gone).
    """

    def __init__(self, message: str, kind: str = "ToolboxError", cost_usd: float | None = 0.0) -> None:
        super().__init__(message)
        self.kind = kind
        self.cost_usd = cost_usd


@dataclass(frozen=True, slots=True)
class ToolInfo:
    """A tool as its server describes it.

    ``backend``: name, model, version and max_cost_usd (None: unknown) of what stands behind it; the server's own name
    and version where it does not say.
    """

    name: str
    description: str
    input_schema: dict[str, Any]
    backend: dict[str, Any]

    @property
    def max_cost_usd(self) -> float | None:
        """The most that one call may cost in US dollars, None where it is unknown."""
        most = self.backend.get("max_cost_usd")
        return None if most is None else float(most)

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "description": self.description,
            "input_schema": self.input_schema,
            "backend": self.backend,
        }


@dataclass(frozen=True, slots=True)
class ToolRequest:
    """One call. ``arguments`` holds the tool's own arguments, with an ``ImageRef`` where it takes an image."""

    tool: str
    arguments: dict[str, Any]


@dataclass(frozen=True, slots=True)
class ToolResult:
    """What a call brought back.

    ``payload`` is the tool's JSON, ``images`` the images that it names, by the payload's field ("image", "mask");
    ``sent`` the arguments as the server got them. ``error`` is a refusal in the tool's own words ("" where there is
    none), ``kind`` its class. ``cost_usd`` is what was paid now: 0 for a replayed result, whose price and time at the
    time of recording are ``recorded_cost_usd`` and ``recorded_seconds``. ``key`` names it in a recording.
    """

    payload: dict[str, Any]
    seconds: float
    sent: dict[str, Any] = field(default_factory=dict)
    error: str = ""
    kind: str = ""
    cost_usd: float = 0.0
    images: dict[str, ImageRef] = field(default_factory=dict)
    key: str = ""
    replayed: bool = False
    recorded_cost_usd: float | None = None
    recorded_seconds: float | None = None


class Transport(Protocol):
    """Carries out calls; an async context manager that raises ToolboxError where it cannot begin."""

    described: list[dict[str, Any]]
    """Name, version and protocol era of every server."""

    @property
    def tools(self) -> Mapping[str, ToolInfo]:
        """All tools by name."""
        ...

    async def __aenter__(self) -> Transport: ...

    async def __aexit__(self, *exc: object) -> None: ...

    def handle_of(self, image: ImageRef) -> str:
        """The server's handle of an image; for the original its path until a result has named its handle."""
        ...

    async def photo(self, path: str) -> ImageRef:
        """Image 1: a photo as the tools see it. Raises ToolboxError where it cannot be used."""
        ...

    async def call(self, request: ToolRequest) -> ToolResult:
        """Carry out one call. Raises ToolboxError where it cannot be carried out at all."""
        ...

    async def max_cost_usd(self, request: ToolRequest) -> float | None:
        """The most that this very call may cost, None where nobody knows."""
        ...


class Handles:
    """How servers call the images of conversations, learnt from results and kept by content.

    By content, so that concurrent episodes share what was learnt, and a photo that changes on disk is another image.
    """

    def __init__(self) -> None:
        self._by_digest: dict[str, str] = {}

    def __contains__(self, image: ImageRef) -> bool:
        return image.sha256 in self._by_digest

    def of(self, image: ImageRef) -> str:
        return self._by_digest.get(image.sha256, image.handle)

    def learn(self, request: ToolRequest, result: ToolResult) -> None:
        """Take in the handles that a result gives to the images it was asked about and to those that it made."""
        for name, value in request.arguments.items():
            handle = result.payload.get(name)
            if isinstance(value, ImageRef) and isinstance(handle, str):
                self._by_digest[value.sha256] = handle
        for image in result.images.values():
            self._by_digest[image.sha256] = image.handle


def image_ref(handle: str, png: bytes, index: int = 0) -> ImageRef:
    """An image of the conversation from its PNG; ``index`` 0 where it has no number. Raises ToolboxError."""
    if png[:8] != b"\x89PNG\r\n\x1a\n" or len(png) < 24:
        raise ToolboxError("the server returned something that is not a PNG: is this an anomaly-agent server?")
    width, height = struct.unpack(">II", png[16:24])
    return ImageRef(index, handle, png, hashlib.sha256(png).hexdigest(), width, height)
