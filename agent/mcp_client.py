"""The transport that speaks MCP: starts or reaches the tool servers, and carries calls out in time.

A built-in server does its work on the CPU, so one process of it uses little more than one core. Where ``processes`` is
above 1, further processes of every server that is started here (stdio) join in as soon as several calls are under way;
they share the image store, so any of them can answer any call.
"""

from __future__ import annotations

import base64
import json
import logging
import os
import re
import shlex
import sys
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import anyio
import mcp_types as types
from anyio import to_thread
from mcp import Client
from mcp.client.stdio import StdioServerParameters
from mcp.shared.exceptions import MCPError

from agent.hosted import GONE, Hosted
from agent.protocol import ImageRef
from agent.transport import MENDABLE, Handles, ToolboxError, ToolInfo, ToolRequest, ToolResult, image_ref

CALL_TIMEOUT = 120.0
SERVICE_TIMEOUT = 600.0
"""Seconds for a call that may wait for a service, and ask it again."""
CONNECT_TIMEOUT = 60.0
"""Seconds until a server must have told its tools."""
FAILURES = (OSError, MCPError, TimeoutError, ValueError, ExceptionGroup)
"""What the start of a connection raises where there is no MCP server at the other end."""
DIED = "the server of {} died: run again; if it dies again, start it by hand to see why"
META_BACKEND = "anomaly-agent/backend"
META_FAILURE = "anomaly-agent/failure"
IMAGES = {"image_gen": "image", "mask_gen": "mask"}
"""The field of a tool's payload that names the image it made."""
BACKEND_ROLES = ("prompter", "editor", "judge", "knowledge", "masker")
"""The built-in server's options that choose the backend of prompt_gen, image_gen, quality_eval,
knowledge_retrieval and mask_gen."""
NETWORK = ("http_proxy", "https_proxy", "all_proxy", "no_proxy", "ssl_cert_file", "ssl_cert_dir")
KEYS = ("GEMINI_API_KEY", "GOOGLE_API_KEY", "OPENAI_API_KEY", "XAI_API_KEY")
UNEVEN = 2
"""Calls by which the process that knows a photo already may be busier than another before that one is asked."""

logger = logging.getLogger(__name__)


WITH_PASSWORD = re.compile(r"(https?://)[^/\s@]*@")
"""An address up to its host, with a name or password before that."""


@dataclass(frozen=True, slots=True)
class Server:
    """Where tools come from: a command to start (stdio) or the URL of a running server (streamable HTTP).

    ``identity``: what names it in a recording, also on another machine; "" for its command or URL.
    """

    command: Sequence[str] = ()
    url: str = ""
    env: dict[str, str] = field(default_factory=dict, repr=False)
    cwd: str | None = None
    identity: str = ""

    @property
    def label(self) -> str:
        """How messages name it: an address without the name and password that it may hold."""
        return WITH_PASSWORD.sub(r"\1", self.url or " ".join(self.command))


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
    chosen = [f"ANOMALY_AGENT_{role}{part}".upper() for role in BACKEND_ROLES for part in ("", "_model", "_base_url")]
    identity = json.dumps(["built-in", *backends, {name: env[name] for name in chosen if name in env}])
    return Server(command=(sys.executable, "-m", "mcp_servers", *arguments), env=env, identity=identity)


def server_of(text: str) -> Server:
    """A tool server by its URL, or by the command that starts it, which is given the whole environment."""
    if text.startswith(("http://", "https://")):
        return Server(url=text)
    return Server(command=shlex.split(text), env=dict(os.environ))


@dataclass(slots=True)
class _Process:
    """One connection to a server and how many calls it is answering; ``client`` is None until it stands."""

    client: Client | None = None
    hosted: Hosted[Client] | None = None
    busy: int = 0
    dead: bool = False

    def ready(self) -> Client | None:
        return None if self.dead else self.client or (self.hosted.value if self.hosted else None)


class McpTransport:
    """The ``Transport`` over one or more live servers."""

    def __init__(self, servers: Sequence[Server], timeout: float = CALL_TIMEOUT, processes: int = 1) -> None:
        self._servers, self._timeout, self._processes = servers, timeout, processes
        self._stack = AsyncExitStack()
        self._pools: dict[str, list[_Process]] = {}
        self._handles = Handles()
        self.described: list[dict[str, Any]] = []
        self.tools: dict[str, ToolInfo] = {}

    async def __aenter__(self) -> McpTransport:
        try:
            for server in self._servers:
                await self._connect(server)
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(self, *exc: object) -> None:
        with suppress(*GONE):
            await self._stack.aclose()  # a server that died cannot be closed in order

    def _client(self, server: Server) -> Client:
        longer = min(max(300.0, self._timeout + 30), 86_400.0)  # the built-in server's own limit comes after this one
        env = {"ANOMALY_AGENT_CALL_TIMEOUT": f"{longer:g}"} | server.env
        if self._processes > 1:
            env = {"ANOMALY_AGENT_THREADS": str(max(1, (os.cpu_count() or 1) // self._processes))} | env
        target: Any = server.url or StdioServerParameters(
            command=server.command[0], args=list(server.command[1:]), env=env, cwd=server.cwd
        )
        return Client(target, read_timeout_seconds=max(CONNECT_TIMEOUT, self._timeout))

    async def _reach(self, server: Server) -> tuple[Client, list[types.Tool]]:
        """A client of the server, and the tools that it lists. Raises ToolboxError where it is not there in time."""
        by_hand = "check that the command starts by hand (what it said of itself stands above)"
        cure = "check the URL and that the server runs" if server.url else by_hand
        host = Hosted(lambda: self._client(server), FAILURES)
        group = await self._stack.enter_async_context(anyio.create_task_group())
        self._stack.callback(host.stop)
        group.start_soon(host.run)
        try:
            with anyio.fail_after(CONNECT_TIMEOUT):
                client = await host.get()
                return client, (await client.list_tools()).tools
        except TimeoutError as error:
            group.cancel_scope.cancel()
            why = f"says nothing within {CONNECT_TIMEOUT:g} s"
            raise ToolboxError(f"tool server {server.label!r} {why}: {cure}") from error
        except FAILURES as error:
            raise ToolboxError(f"tool server {server.label!r} cannot be reached: {cure}") from error

    async def _connect(self, server: Server) -> None:
        client, tools = await self._reach(server)
        info = client.server_info
        name, version = (info.name, info.version) if info else (server.label, "")
        self.described.append({"name": name, "version": version, "era": client.protocol_version})
        pool = [_Process(client)]
        if server.command and self._processes > 1:
            pool += await self._further(server, self._processes - 1)
        for tool in tools:
            if tool.name in self._pools:
                raise ToolboxError(f"two servers offer {tool.name}: leave one out")
            backend = _entry(tool.meta, META_BACKEND)
            if problem := backend.pop("problem", None):
                raise ToolboxError(f"{tool.name}: {problem}", "setup")
            known = backend or {"name": name, "model": "", "version": version, "max_cost_usd": None}
            self._pools[tool.name] = pool
            self.tools[tool.name] = ToolInfo(tool.name, tool.description or "", tool.input_schema, known)

    async def _further(self, server: Server, number: int) -> list[_Process]:
        """More processes of the same server, not started yet."""
        hosts = [Hosted(lambda: self._client(server), FAILURES) for _ in range(number)]
        group = await self._stack.enter_async_context(anyio.create_task_group())

        async def keep(host: Hosted[Client]) -> None:
            await host.run()
            if host.error:
                logger.warning("another process of the tool server could not be started: %s", host.error)

        for host in hosts:
            group.start_soon(keep, host)
            self._stack.callback(host.stop)
        return [_Process(hosted=host) for host in hosts]

    def handle_of(self, image: ImageRef) -> str:
        return self._handles.of(image)

    async def photo(self, path: str) -> ImageRef:
        async with self._process("image_gen", path) as client, self._in_time("image_gen"):
            return await self._read(client, f"photo://{quote(path, safe='')}", path, 1)

    async def max_cost_usd(self, request: ToolRequest) -> float | None:
        tool = self.tools.get(request.tool)
        return tool.max_cost_usd if tool else 0.0

    async def call(self, request: ToolRequest) -> ToolResult:
        name = request.tool
        sent = {key: await self._named(value) for key, value in request.arguments.items()}
        started = time.perf_counter()
        photo = next((v.sha256 for v in request.arguments.values() if isinstance(v, ImageRef) and v.index == 1), name)
        async with self._process(name, photo) as client, self._in_time(name):
            answer = await client.call_tool(name, sent)
            seconds = time.perf_counter() - started
            text = "\n".join(block.text for block in answer.content if isinstance(block, types.TextContent))
            logged = {key: _shortened(value) for key, value in sent.items()}
            if answer.is_error:
                return _refusal(name, text, _entry(answer.meta, META_FAILURE), seconds, logged)
            payload = answer.structured_content or _json(name, text)
            cost = float(payload.get("cost_usd") or 0.0)
            images = {}
            if (key := IMAGES.get(name)) and (name == "image_gen" or payload.get(key)):
                handle = payload.get(key)
                if not isinstance(handle, str):
                    raise ToolboxError(f"the tool's result names no {key}: is this an anomaly-agent server?")
                images[key] = await self._read(client, f"image://{handle}", handle, 0)
        result = ToolResult(payload, seconds, logged, cost_usd=cost, images=images)
        self._handles.learn(request, result)
        return result

    async def _named(self, value: Any) -> Any:
        """An argument as this server knows it: an image that it has not seen is sent along."""
        if not isinstance(value, ImageRef):
            return value
        if value in self._handles or value.index == 1:  # image 1 is the task's own path or data URI
            return self.handle_of(value)
        encoded = await to_thread.run_sync(base64.b64encode, value.png)
        return f"data:image/png;base64,{encoded.decode()}"

    async def _read(self, client: Client, uri: str, handle: str, index: int) -> ImageRef:
        contents = (await client.read_resource(uri)).contents
        blob = contents[0] if contents else None
        if not isinstance(blob, types.BlobResourceContents):
            raise ToolboxError("the server returned no image bytes: is this an anomaly-agent server?")
        return await to_thread.run_sync(lambda: image_ref(handle, base64.b64decode(blob.blob), index))

    @asynccontextmanager
    async def _process(self, tool: str, photo: str) -> AsyncIterator[Client]:
        """The process to ask: the one that has looked at this photo before, else the least busy one."""
        pool = self._pools[tool]
        standing = [process for process in pool if process.ready()]
        if not standing:
            raise ToolboxError(DIED.format(tool), "died")
        if sum(process.busy for process in standing) > len(standing):
            for process in pool:
                if process.hosted and not process.dead:
                    process.hosted.want()
        idle = min(standing, key=lambda process: process.busy)
        usual = standing[hash(photo) % len(standing)]
        chosen = usual if usual.busy <= idle.busy + UNEVEN else idle
        client = chosen.ready()
        assert client is not None
        chosen.busy += 1
        try:
            yield client
        except ToolboxError as error:
            chosen.dead = chosen.dead or error.kind == "died"
            raise
        finally:
            chosen.busy -= 1

    @asynccontextmanager
    async def _in_time(self, name: str) -> AsyncIterator[None]:
        """Bound a request by the time limit; whatever breaks it becomes a ToolboxError."""
        try:
            with anyio.fail_after(self._timeout):
                yield
        except TimeoutError as error:
            raise ToolboxError(
                f"{name} took over {self._timeout:g} s: raise --call-timeout", "timeout", None
            ) from error
        except (OSError, anyio.ClosedResourceError, anyio.BrokenResourceError) as error:
            raise ToolboxError(DIED.format(name), "died", None) from error
        except MCPError as error:
            if error.code == types.CONNECTION_CLOSED:
                raise ToolboxError(DIED.format(name), "died", None) from error
            raise ToolboxError(error.message, cost_usd=None) from error


def _refusal(name: str, text: str, failure: dict[str, Any], seconds: float, sent: dict[str, Any]) -> ToolResult:
    """A tool's refusal. Raises ToolboxError for a failure that no other call of the policy could mend."""
    message = text.removeprefix(f"Error executing tool {name}: ") or f"{name} failed: see its log"
    kind, cost = str(failure.get("kind") or ""), float(failure.get("cost_usd") or 0.0)
    if kind and kind not in MENDABLE:
        raise ToolboxError(f"{name}: {message}", kind, cost)
    told = {"error": message, "kind": kind} if kind else {"error": message}
    return ToolResult(told, seconds, sent, error=message, kind=kind or "Refused", cost_usd=cost)


def _entry(meta: Mapping[str, Any] | None, key: str) -> dict[str, Any]:
    """An ``_meta`` entry, empty where a server does not give it."""
    entry = meta.get(key) if meta else None
    return dict(entry) if isinstance(entry, dict) else {}


def _shortened(value: Any) -> Any:
    """An argument as the log keeps it: an image that was sent along is cut short."""
    return f"{value[:40]}..." if isinstance(value, str) and value.startswith("data:") else value


def _json(tool: str, text: str) -> dict[str, Any]:
    try:
        payload = json.loads(text)
    except ValueError as error:
        raise ToolboxError(f"{tool} returned no JSON: is this an anomaly-agent server?") from error
    if not isinstance(payload, dict):
        raise ToolboxError(f"{tool} returned no JSON object: is this an anomaly-agent server?")
    return payload
