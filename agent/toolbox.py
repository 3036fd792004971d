"""The MCP client: connects to tool servers, shows the model the paper's signatures, and carries out its calls.

Each tool is described once, by its server. The model's signature is derived from the MCP schema: arguments
named ``…image`` become 1-based image numbers, ``normal_image`` is bound to image 1 and hidden, and optional
arguments (seed, region, threshold) are the user's: bound from the task and hidden too.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import struct
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import anyio
import mcp_types as types
from mcp import Client
from mcp.client.stdio import StdioServerParameters
from mcp.shared.exceptions import MCPError

from agent.protocol import FIVE_TOOLS, ImageRef, ToolCall
from agent.task import Task

CALL_TIMEOUT = 120.0
SERVICE_TIMEOUT = 600.0
"""Seconds for a call that may wait for a service, and ask it again."""
CONNECT_TIMEOUT = 60.0
DIED = "the server of {} died: run again; if it dies again, start it by hand to see why"
ORIGINAL = "normal_image"
_HIDDEN_FACTS = frozenset(
    {"image", "target_image", "anomaly_image", "normal_image", "mask", "measurements", "seconds", "cost_usd"}
)


META_BACKEND = "anomaly-agent/backend"
META_FAILURE = "anomaly-agent/failure"
MENDABLE = frozenset({"refused", "empty"})
"""Kinds of a backend's failure that another prompt may cure; every other kind ends the episode."""
BACKEND_ROLES = ("prompter", "editor", "judge", "knowledge", "masker")
"""The built-in server's options that choose the backend of prompt_gen, image_gen, quality_eval,
knowledge_retrieval and mask_gen."""
NETWORK = ("http_proxy", "https_proxy", "all_proxy", "no_proxy", "ssl_cert_file", "ssl_cert_dir")
KEYS = ("GEMINI_API_KEY", "GOOGLE_API_KEY", "OPENAI_API_KEY", "XAI_API_KEY")


class ToolboxError(RuntimeError):
    """The tools cannot go on (a server died, timed out or broke the protocol); the message names the cure.

    ``kind`` is the failure's class for the session, ``cost_usd`` what the failed call cost all the same.
    """

    def __init__(self, message: str, kind: str = "ToolboxError", cost_usd: float = 0.0) -> None:
        super().__init__(message)
        self.kind = kind
        self.cost_usd = cost_usd


@dataclass(frozen=True, slots=True)
class Server:
    """Where tools come from: a command to start (stdio) or the URL of a running server (streamable HTTP)."""

    command: Sequence[str] = ()
    url: str = ""
    env: dict[str, str] = field(default_factory=dict)
    cwd: str | None = None

    @property
    def label(self) -> str:
        return self.url or " ".join(self.command)


def builtin_server(allow: Sequence[Path], backends: Sequence[str] = ()) -> Server:
    """All five tools of this project in one process that may read the given folders.

    ``backends``: further arguments of ``python -m mcp_servers``, such as ``--editor gemini``.
    """
    arguments = [argument for folder in allow for argument in ("--allow", str(folder))] + list(backends)
    passed = ("ANOMALY_AGENT_", "OMP_", "XDG_CACHE")
    env = {
        key: value
        for key, value in os.environ.items()
        if key.startswith(passed) or key in KEYS or key.lower() in NETWORK
    }
    root = str(Path(__file__).resolve().parent.parent)  # holds the sibling package in a checkout and when installed
    env["PYTHONPATH"] = os.pathsep.join(part for part in (root, os.environ.get("PYTHONPATH", "")) if part)
    return Server(command=(sys.executable, "-m", "mcp_servers", *arguments), env=env)


@dataclass(frozen=True, slots=True)
class Observation:
    """What a call brought back.

    ``payload`` is the tool's JSON as it came, ``shown`` what the policy is told, ``image`` a new conversation
    image (image_gen), ``mask`` a mask (mask_gen). ``error`` is the tool's refusal in its own words, which the
    policy may act on; "" where the call succeeded. ``kind`` is the failure's class, ``cost_usd`` what the call cost.
    """

    payload: dict[str, Any]
    shown: dict[str, Any]
    bound: dict[str, Any]
    seconds: float
    error: str = ""
    kind: str = ""
    cost_usd: float = 0.0
    image: ImageRef | None = None
    mask: ImageRef | None = None


class Toolbox:
    """An async context manager over one or more servers that together offer the five tools.

    Raises ToolboxError on entry where a server cannot be started or reached, or a tool is missing.
    """

    def __init__(self, servers: Sequence[Server], call_timeout: float = CALL_TIMEOUT) -> None:
        self._servers = servers
        self._timeout = call_timeout
        self._stack = AsyncExitStack()
        self._clients: dict[str, Client] = {}
        self._schemas: dict[str, types.Tool] = {}
        self._aliases: dict[str, str] = {}
        self.described: list[dict[str, Any]] = []
        """Name, version and protocol era of every connected server."""

    async def __aenter__(self) -> Toolbox:
        try:
            for server in self._servers:
                await self._connect(server)
        except BaseException:
            await self._stack.aclose()
            raise
        missing = [name for name in FIVE_TOOLS if name not in self._clients]
        if missing:
            await self._stack.aclose()
            raise ToolboxError(f"no server offers {', '.join(missing)}: add one with --server")
        return self

    async def __aexit__(self, *exc: Any) -> None:
        with suppress(OSError, anyio.BrokenResourceError, anyio.ClosedResourceError):
            await self._stack.aclose()  # a server that died cannot be closed in order

    async def _connect(self, server: Server) -> None:
        target: Any = server.url or StdioServerParameters(
            command=server.command[0], args=list(server.command[1:]), env=server.env, cwd=server.cwd
        )
        try:
            connecting = Client(target, read_timeout_seconds=max(CONNECT_TIMEOUT, self._timeout))
            client = await self._stack.enter_async_context(connecting)
            tools = (await client.list_tools()).tools
        except (OSError, MCPError, TimeoutError, ValueError, ExceptionGroup) as error:
            cure = "check the URL and that the server runs" if server.url else "check that the command starts by hand"
            raise ToolboxError(f"tool server {server.label!r} cannot be reached: {cure}") from error
        info = client.server_info
        name, version = (info.name, info.version) if info else (server.label, "")
        self.described.append({"name": name, "version": version, "era": client.protocol_version})
        for tool in tools:
            if tool.name in self._clients:
                raise ToolboxError(f"two servers offer {tool.name}: leave one out")
            self._clients[tool.name] = client
            self._schemas[tool.name] = tool
            if problem := _fact(tool.meta, META_BACKEND, "problem"):
                raise ToolboxError(f"{tool.name}: {problem}", "setup")

    def signatures(self) -> list[dict[str, Any]]:
        """The five tools as the model sees them: function signatures with image numbers."""
        return [_signature(self._schemas[name]) for name in FIVE_TOOLS]

    async def open_photo(self, path: str) -> ImageRef:
        """Image 1: the task's photo as the tools see it. Raises ToolboxError where it cannot be used."""
        png = await self._read(f"photo://{quote(path, safe='')}")
        return _image_ref(1, path, png)

    async def call(self, call: ToolCall, task: Task, images: Sequence[ImageRef]) -> Observation:
        """Carry out one call of the policy.

        A refusal by the tool (or a call that names no tool or no image) comes back as an Observation with
        ``error``; ToolboxError is raised where the server died, broke the protocol or exceeded the time limit.
        """
        tool = self._schemas.get(call.name)
        if tool is None or call.name not in FIVE_TOOLS:
            return _refused(f"there is no tool {call.name!r}: use one of {', '.join(FIVE_TOOLS)}", {})
        bound, problem = self._bind(tool, call.arguments, task, images)
        if problem:
            return _refused(problem, bound)
        started = time.perf_counter()
        result = await self._call_tool(call.name, bound)
        seconds = time.perf_counter() - started
        text = "\n".join(block.text for block in result.content if isinstance(block, types.TextContent))
        if result.is_error:
            message = text.removeprefix(f"Error executing tool {call.name}: ") or f"{call.name} failed: see its log"
            kind = str(_fact(result.meta, META_FAILURE, "kind") or "")
            cost = float(_fact(result.meta, META_FAILURE, "cost_usd") or 0.0)
            if kind and kind not in MENDABLE:
                raise ToolboxError(f"{call.name}: {message}", kind, cost)
            return _refused(message, bound, seconds, kind or "Refused", cost)
        payload = result.structured_content or _json(call.name, text)
        self._learn_handle(bound, payload, images)
        image = mask = None
        if call.name == "image_gen":
            image = await self._fetch(payload, "image", len(images) + 1)
        if call.name == "mask_gen" and payload.get("mask"):
            mask = await self._fetch(payload, "mask", 0)
        shown = {key: value for key, value in payload.items() if key not in _HIDDEN_FACTS}
        if image is not None:
            shown = {"image_index": image.index, **shown}
        cost = float(payload.get("cost_usd") or 0.0)
        return Observation(payload, shown, bound, seconds, cost_usd=cost, image=image, mask=mask)

    def _bind(
        self, tool: types.Tool, arguments: dict[str, Any], task: Task, images: Sequence[ImageRef]
    ) -> tuple[dict[str, Any], str]:
        """The MCP arguments of a model's call, and what is wrong with it ("" where nothing is)."""
        properties = tool.input_schema.get("properties", {})
        visible = _visible(tool)
        unknown = [name for name in arguments if name not in visible]
        if unknown:
            return {}, f"{tool.name} takes no argument {unknown[0]!r}: it takes {', '.join(visible)}"
        bound: dict[str, Any] = dict(arguments)
        for name in (name for name in visible if name.endswith("image") and name in arguments):
            number = arguments[name]
            if not isinstance(number, int) or isinstance(number, bool) or not 1 <= number <= len(images):
                return {}, f"{name} must be an image number from 1 to {len(images)}, not {json.dumps(number)[:40]}"
            bound[name] = self.handle_of(images[number - 1])
        if ORIGINAL in properties:
            bound[ORIGINAL] = self.handle_of(images[0])
        options = {"seed": task.seed, "region": task.region, "threshold": task.threshold}
        wishes = {name: wish for name, wish in _wishes(tool.name, task).items() if wish}
        if lost := [name for name in wishes if name not in properties]:
            raise ToolboxError(
                f"this server's {tool.name} takes no {lost[0]}: leave that option out, or use the built-in one"
            )
        options |= wishes
        bound |= {name: value for name, value in options.items() if name in properties and value != ""}
        return bound, ""

    def handle_of(self, image: ImageRef) -> str:
        """The server's handle of an image; for the original its path until a tool has named its handle."""
        return self._aliases.get(image.handle, image.handle)

    def _learn_handle(self, bound: dict[str, Any], payload: dict[str, Any], images: Sequence[ImageRef]) -> None:
        """Use the handle that a server gave the original from now on, instead of its path."""
        original = images[0].handle
        for name, value in bound.items():
            handle = payload.get(name)
            if value == original and isinstance(handle, str) and handle != original:
                self._aliases[original] = handle

    async def _fetch(self, payload: dict[str, Any], key: str, index: int) -> ImageRef:
        handle = payload.get(key)
        if not isinstance(handle, str):
            raise ToolboxError(f"the tool's result names no {key}: is this an anomaly-agent server?")
        return _image_ref(index, handle, await self._read(f"image://{handle}"))

    async def _read(self, uri: str) -> bytes:
        async with self._in_time("image_gen"):
            contents = (await self._clients["image_gen"].read_resource(uri)).contents
        blob = contents[0] if contents else None
        if not isinstance(blob, types.BlobResourceContents):
            raise ToolboxError("the server returned no image bytes: is this an anomaly-agent server?")
        return base64.b64decode(blob.blob)

    async def _call_tool(self, name: str, arguments: dict[str, Any]) -> types.CallToolResult:
        async with self._in_time(name):
            return await self._clients[name].call_tool(name, arguments)

    @asynccontextmanager
    async def _in_time(self, name: str) -> AsyncIterator[None]:
        """Bound a request by the time limit; whatever breaks it becomes a ToolboxError."""
        try:
            with anyio.fail_after(self._timeout):
                yield
        except TimeoutError as error:
            raise ToolboxError(f"{name} took over {self._timeout:g} s: raise --call-timeout") from error
        except (OSError, anyio.ClosedResourceError, anyio.BrokenResourceError) as error:
            raise ToolboxError(DIED.format(name)) from error
        except MCPError as error:
            if error.code == types.CONNECTION_CLOSED:
                raise ToolboxError(DIED.format(name)) from error
            raise ToolboxError(error.message) from error


def _wishes(tool: str, task: Task) -> dict[str, Any]:
    """What the user may ask of a tool beyond seed, region and threshold; empty and 0 mean no wish."""
    if tool == "image_gen":
        return {"example_image": task.example_image, "example_mask": task.example_mask, "count": task.count}
    return {"margin": task.margin} if tool == "mask_gen" else {}


def _visible(tool: types.Tool) -> list[str]:
    """Arguments that are the model's: the required ones but the original photo."""
    return [name for name in tool.input_schema.get("required", []) if name != ORIGINAL]


def _signature(tool: types.Tool) -> dict[str, Any]:
    properties = {}
    for name in _visible(tool):
        schema = tool.input_schema["properties"][name]
        if name.endswith("image"):
            described = str(schema.get("description", "")).split(":")[0]
            properties[name] = {"type": "integer", "minimum": 1, "description": f"number of {described}"}
        else:
            properties[name] = {key: schema[key] for key in ("type", "description") if key in schema}
    parameters = {"type": "object", "properties": properties, "required": list(properties)}
    description = " ".join((tool.description or "").split())
    return {"type": "function", "function": {"name": tool.name, "description": description, "parameters": parameters}}


def _fact(meta: Any, key: str, name: str) -> Any:
    """One fact of an ``_meta`` entry, None where a server does not give it."""
    entry = meta.get(key) if isinstance(meta, dict) else None
    return entry.get(name) if isinstance(entry, dict) else None


def _refused(
    message: str, bound: dict[str, Any], seconds: float = 0.0, kind: str = "Refused", cost_usd: float = 0.0
) -> Observation:
    told = {"error": message}
    return Observation(told, told, bound, seconds, error=message, kind=kind, cost_usd=cost_usd)


def _json(tool: str, text: str) -> dict[str, Any]:
    try:
        payload = json.loads(text)
    except ValueError as error:
        raise ToolboxError(f"{tool} returned no JSON: is this an anomaly-agent server?") from error
    if not isinstance(payload, dict):
        raise ToolboxError(f"{tool} returned no JSON object: is this an anomaly-agent server?")
    return payload


def _image_ref(index: int, handle: str, png: bytes) -> ImageRef:
    if png[:8] != b"\x89PNG\r\n\x1a\n":
        raise ToolboxError("the server returned something that is not a PNG: is this an anomaly-agent server?")
    width, height = struct.unpack(">II", png[16:24])
    return ImageRef(index, handle, png, hashlib.sha256(png).hexdigest(), width, height)
