"""How a function becomes an MCP tool: strict arguments, one-line errors, and the server's limits on every call."""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ParamSpec

import anyio
from mcp.server.mcpserver.exceptions import ToolError
from mcp.server.mcpserver.tools import Tool
from mcp_types import CallToolResult, ToolAnnotations
from pydantic import PrivateAttr, ValidationError

from mcp_servers.backends import BackendFacts
from mcp_servers.calls import REPORTER, Reporter
from mcp_servers.errors import BackendError, FailureKind, ToolInputError
from mcp_servers.limits import Traffic
from mcp_servers.results import bounded, failure
from mcp_servers.threads import compute
from mcp_servers.viewer import Viewer

P = ParamSpec("P")

IMAGE_ARGUMENT = "an image handle (img_...), the path of a file in an allowed folder, or a data URI"


@dataclass(frozen=True, slots=True)
class Counter:
    """What a tool uses of the server that offers it: its traffic, and the viewer for hosts that can show one."""

    traffic: Traffic
    viewer: Viewer | None = None


class StrictTool(Tool):
    """A tool whose argument errors are one line each, and whose calls keep to the server's limits.

    Without a ``counter`` (a tool that belongs to no server) there are no limits.
    """

    _counter: Counter | None = PrivateAttr(default=None)

    def serve_from(self, counter: Counter) -> None:
        """Take over the limits of the server that offers the tool, once."""
        self._counter = counter
        if counter.viewer is not None and self.name in counter.viewer.tools:
            self.meta = (self.meta or {}) | counter.viewer.meta

    async def run(self, arguments: dict[str, Any], context: Any, convert_result: bool = False) -> Any:
        """Run the tool; raises ToolError that names the first wrong argument, or the limit that was met."""
        if self._counter is None:
            return await self._checked(arguments, context, convert_result)
        limits = self._counter.traffic.limits
        reporter = REPORTER.set(Reporter(context.report_progress, asyncio.get_running_loop()))
        try:
            with self._counter.traffic.admitted(self.name), anyio.fail_after(limits.call_seconds):
                result = await self._checked(arguments, context, convert_result)
                if isinstance(result, CallToolResult):
                    result = await anyio.to_thread.run_sync(bounded, result, limits)
                    if self._counter.viewer is not None:
                        result = await self._counter.viewer.attached(self.name, result, context, limits)
                return result
        except TimeoutError:
            cure = "give a smaller photo, or start the server with a longer --call-timeout"
            message = f"{self.name} took over {limits.call_seconds:g} s and was given up: {cure}"
            return failure(BackendError(message, FailureKind.TIMEOUT))
        except ToolInputError as error:
            raise ToolError(str(error)) from error
        finally:
            REPORTER.reset(reporter)

    async def _checked(self, arguments: dict[str, Any], context: Any, convert_result: bool) -> Any:
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
    """Register a function as a strict tool; one that is not async computes, and runs in a computing thread.

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
            return failure(error)

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
