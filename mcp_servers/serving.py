"""The MCP surface that the five tools share: strict registration, errors, image results, and the command line.

A tool module offers a ``ToolSpec``; the same specs make one server each or all five together. Sync tool functions
compute and run in a few worker threads (threads.py); those that wait for a service are async, and any number may wait.
"""

from __future__ import annotations

import argparse
import base64
import functools
import inspect
import ipaddress
import json
import logging
import os
import socket
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal, ParamSpec

from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.exceptions import ResourceError, ResourceNotFoundError, ToolError
from mcp.server.mcpserver.resources.templates import ResourceSecurity
from mcp.server.mcpserver.tools import Tool
from mcp.server.transport_security import TransportSecuritySettings
from mcp_types import CallToolResult, ContentBlock, ImageContent, ResourceLink, TextContent, ToolAnnotations
from pydantic import ValidationError

from mcp_servers.backends import META_FAILURE, BackendChoice, BackendFacts, Choices, ToolSpec, add_options, read_choices
from mcp_servers.errors import BackendError, FailureKind, ToolInputError
from mcp_servers.images import ImageError
from mcp_servers.store import Store, default_home
from mcp_servers.threads import compute, thread_count

P = ParamSpec("P")

IMAGE_ARGUMENT = "an image handle (img_...), the path of a file in an allowed folder, or a data URI"
MAX_BODY = 96 * 2**20

logger = logging.getLogger("mcp_servers")


def package_version() -> str:
    """The installed version, "0" when run from a plain checkout."""
    try:
        return version("anomaly-agent")
    except PackageNotFoundError:
        return "0"


class StrictTool(Tool):
    """A tool whose argument errors are one line each instead of a validator's report."""

    async def run(self, arguments: dict[str, Any], context: Any, convert_result: bool = False) -> Any:
        """Run the tool; raises ToolError that names the first wrong argument and what is expected."""
        try:
            return await super().run(arguments, context, convert_result)
        except ToolError as error:
            if isinstance(error.__cause__, ValidationError):
                raise ToolError(f"Error executing tool {self.name}: {self._explain(error.__cause__)}") from error
            raise

    def _explain(self, problem: ValidationError) -> str:
        first = problem.errors(include_url=False, include_context=False)[0]
        name = ".".join(str(part) for part in first["loc"])[:80]
        known = ", ".join(self.parameters["properties"])
        if first["type"] == "extra_forbidden":
            return f"there is no argument {name!r}; the arguments are {known}"
        if first["type"] == "missing":
            return f"the argument {name!r} is missing; the arguments are {known}"
        return f"the argument {name!r} is not usable: {first['msg']}"


def make_tool(
    function: Callable[P, Any],
    *,
    title: str,
    read_only: bool,
    structured: bool,
    backend: BackendFacts,
) -> Tool:
    """Register a function, sync or async, as a strict tool.

    Unknown arguments are refused instead of ignored. A ``ToolInputError`` becomes a ``ToolError`` whose one-line text
    reaches the client; a ``BackendError`` becomes an error result whose ``_meta`` tells its kind and cost.
    ``structured``: publish an outputSchema from the return annotation. ``backend`` goes into the tool's ``_meta``;
    where it has a problem, every call is answered with it.
    """

    @functools.wraps(function)
    async def guarded(*args: P.args, **kwargs: P.kwargs) -> Any:
        try:
            if backend.problem:
                raise BackendError(backend.problem, FailureKind.SETUP)
            if inspect.iscoroutinefunction(function):
                return await function(*args, **kwargs)
            return await compute(functools.partial(function, *args, **kwargs))
        except ToolInputError as error:
            raise ToolError(str(error)) from error
        except BackendError as error:
            return _failure(error)

    tool = StrictTool.from_function(
        guarded,
        title=title,
        description=inspect.cleandoc(function.__doc__ or ""),
        annotations=ToolAnnotations(
            read_only_hint=read_only, destructive_hint=False, idempotent_hint=True, open_world_hint=backend.open_world
        ),
        structured_output=structured,
        meta=backend.meta(),
    )
    # The SDK ignores misspelt argument names; a caller must hear of them.
    model = tool.fn_metadata.arg_model
    model.model_config["extra"] = "forbid"
    model.model_rebuild(force=True)
    tool.parameters["additionalProperties"] = False
    return tool


def _failure(error: BackendError) -> CallToolResult:
    facts = {"kind": error.kind.value, "cost_usd": error.cost_usd, "attempts": error.attempts}
    return CallToolResult(
        content=[TextContent(type="text", text=str(error))], is_error=True, _meta={META_FAILURE: facts}
    )


def image_result(facts: dict[str, Any], preview: bytes, handle: str, title: str) -> CallToolResult:
    """What image tools return: the facts as JSON text, a preview to look at, a link to the full image.

    There is deliberately no structuredContent: several hosts drop every other block when it is present.
    """
    blocks: list[ContentBlock] = [
        TextContent(type="text", text=json.dumps(facts, ensure_ascii=False)),
        ImageContent(type="image", data=base64.b64encode(preview).decode(), mime_type="image/jpeg"),
        ResourceLink(type="resource_link", uri=f"image://{handle}", name=handle, title=title, mime_type="image/png"),
    ]
    return CallToolResult(content=blocks)


def text_result(facts: dict[str, Any]) -> CallToolResult:
    """Facts as JSON text alone, for an image tool that has no image to show."""
    return CallToolResult(content=[TextContent(type="text", text=json.dumps(facts, ensure_ascii=False))])


def build_server(
    name: str,
    store: Store,
    specs: Sequence[ToolSpec],
    instructions: str,
    log_level: Literal["INFO", "WARNING"] = "WARNING",
    choices: Choices | None = None,
) -> MCPServer:
    """An MCP server with the given tools and the ``image://HANDLE`` resource (full-size PNG).

    ``choices``: backend by role, ``local`` for those that are absent.
    """
    chosen = choices or {}
    server: MCPServer = MCPServer(
        name,
        version=package_version(),
        instructions=instructions,
        tools=[tool for spec in specs for tool in spec.build(store, chosen.get(spec.role, BackendChoice()))],
        log_level=log_level,
    )

    @server.resource(
        "image://{handle}",
        name="image",
        title="Full-size image",
        description="The image behind a handle, as a lossless PNG.",
        mime_type="image/png",
    )
    def image(handle: str) -> bytes:
        try:
            return store.png(handle)
        except ImageError as error:
            raise ResourceNotFoundError(str(error)) from error

    @server.resource(
        "photo://{path}",
        name="photo",
        title="Photo as the tools see it",
        description="The photo at a URL-encoded path in an allowed folder: upright, without metadata, lossless PNG.",
        mime_type="image/png",
        security=ResourceSecurity(exempt_params={"path"}),  # the store's own rules decide which paths may be read
    )
    def photo(path: str) -> bytes:
        try:
            return store.png(store.resolve(path)[0])
        except ImageError as error:
            raise ResourceError(str(error)) from error

    return server


def store_from(allow: Sequence[str], environ: dict[str, str]) -> Store:
    """The store and the allowed folders from the command line and the environment.

    Without ``--allow`` and ``ANOMALY_AGENT_ALLOW`` the working folder is allowed (unless it is the root).
    Raises ToolInputError for a folder that does not exist.
    """
    named = list(allow) or [part for part in environ.get("ANOMALY_AGENT_ALLOW", "").split(os.pathsep) if part]
    folders = [Path(part).expanduser() for part in named]
    for folder in folders:
        if not folder.is_dir():
            raise ToolInputError(f"--allow {folder}: no such folder; name an existing one")
    if not folders and Path.cwd() != Path(Path.cwd().anchor):
        folders = [Path.cwd()]
    return Store(home=default_home(environ), allowed=folders)


def main(name: str, specs: Sequence[ToolSpec], instructions: str, argv: Sequence[str] | None = None) -> int:
    """Command line of every server: stdio by default, streamable HTTP with ``--http``."""
    parser = argparse.ArgumentParser(prog=f"python -m {name}", description=instructions)
    parser.add_argument("--allow", action="append", default=[], metavar="DIR", help="folder that paths may name")
    parser.add_argument("--http", action="store_true", help="serve streamable HTTP instead of stdio")
    parser.add_argument("--host", default="127.0.0.1", help="loopback address to serve HTTP on (default 127.0.0.1)")
    parser.add_argument("--port", type=int, default=8000, help="port to serve HTTP on (default 8000)")
    add_options(parser, specs)
    options = parser.parse_args(argv)
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    try:
        store = store_from(options.allow, dict(os.environ))
        choices = read_choices(options, specs, os.environ)
        thread_count()  # says now what is wrong with it
    except ToolInputError as error:
        parser.error(str(error))
    level: Literal["INFO", "WARNING"] = "INFO" if options.http else "WARNING"
    server_name = name.replace("_", "-").replace("mcp-servers.", "anomaly-")
    server = build_server(server_name, store, specs, instructions, level, choices)
    if not options.http:
        with suppress(KeyboardInterrupt):
            server.run("stdio")
        return 0
    if not _is_loopback(options.host):
        parser.error(f"--host {options.host}: only loopback addresses are served (there is no login)")
    if not 0 < options.port < 65536:
        parser.error(f"--port {options.port}: choose a port from 1 to 65535")
    if _is_taken(options.host, options.port):
        parser.error(f"port {options.port} is taken: choose another with --port, or stop what runs there")
    hosts = [f"{host}:{options.port}" for host in ("127.0.0.1", "localhost", "[::1]")]
    security = TransportSecuritySettings(allowed_hosts=hosts, allowed_origins=[f"http://{host}" for host in hosts])
    server.run(
        "streamable-http",
        host=options.host,
        port=options.port,
        max_request_body_size=MAX_BODY,
        transport_security=security,
    )
    return 0


def _is_taken(host: str, port: int) -> bool:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return True
    return False


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
