"""The MCP surface that the five tools share: what a tool module needs to register, and a server of registered tools.

A tool module offers a ``ToolSpec``; the same specs make one server each or all five together. What surrounds a call is
in tool.py, calls.py and results.py; resources.py and prompts.py hold what is not a tool; cli.py and http.py run it.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

from mcp.server.apps import Apps
from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.tools import Tool

from mcp_servers.backends import BackendChoice, Choices, ToolSpec
from mcp_servers.errors import ToolInputError
from mcp_servers.limits import Limits, Traffic
from mcp_servers.paths import named_folders
from mcp_servers.prompts import add_prompts
from mcp_servers.resources import add_resources
from mcp_servers.results import image_result, text_result
from mcp_servers.stdio import AnsweringServer
from mcp_servers.store import Store, default_home
from mcp_servers.tool import IMAGE_ARGUMENT, Counter, StrictTool, make_tool
from mcp_servers.viewer import VIEWED, Viewer

__all__ = [
    "IMAGE_ARGUMENT",
    "build_server",
    "image_result",
    "make_tool",
    "package_version",
    "store_from",
    "text_result",
]


def package_version() -> str:
    """The installed version, "0" when run from a plain checkout."""
    try:
        return version("anomaly-agent")
    except PackageNotFoundError:
        return "0"


def build_server(
    name: str,
    store: Store,
    specs: Sequence[ToolSpec],
    instructions: str,
    log_level: Literal["INFO", "WARNING"] = "WARNING",
    choices: Choices | None = None,
    traffic: Traffic | None = None,
) -> MCPServer:
    """An MCP server with the given tools, their resources and prompts, and the viewer of their images.

    ``choices``: backend by role, ``local`` for those that are absent. ``traffic``: the server's limits and its count
    of calls, the usual limits where it is absent.
    """
    chosen = choices or {}
    tools: list[Tool] = [tool for spec in specs for tool in spec.build(store, chosen.get(spec.role, BackendChoice()))]
    apps = Apps()
    viewer = Viewer(store) if any(tool.name in VIEWED for tool in tools) else None
    if viewer is not None:
        viewer.register(apps)
    counted = traffic or Traffic(Limits())
    counter = Counter(counted, viewer)
    for tool in tools:
        if isinstance(tool, StrictTool):
            tool.serve_from(counter)
    server = AnsweringServer(
        name,
        version=package_version(),
        instructions=instructions,
        tools=tools,
        extensions=[apps] if viewer is not None else [],
        log_level=log_level,
    )
    add_resources(server, store, counted)
    add_prompts(server, {tool.name for tool in tools})
    return server


def store_from(allow: Sequence[str], environ: dict[str, str]) -> Store:
    """The store and the allowed folders from the command line and the environment.

    Without ``--allow`` and ``ANOMALY_AGENT_ALLOW`` the working folder is allowed (unless it is the root).
    Raises ToolInputError for a folder that does not exist.
    """
    folders = [Path(part).expanduser() for part in named_folders(allow, environ)]
    for folder in folders:
        if not folder.is_dir():
            raise ToolInputError(f"--allow {folder}: no such folder; name an existing one")
    if not folders and Path.cwd() != Path(Path.cwd().anchor):
        folders = [Path.cwd()]
    return Store(home=default_home(environ), allowed=folders)
