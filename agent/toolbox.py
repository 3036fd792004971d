"""The policy's view of the tools: the paper's signatures, and calls by image number.

Each tool is described once, by its server. The model's signature is derived from the MCP schema: arguments
named ``…image`` become 1-based image numbers, ``normal_image`` is bound to image 1 and hidden, and optional
arguments (seed, region, threshold) are the user's: bound from the task and hidden too.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from agent.mcp_client import (
    BACKEND_ROLES,
    CALL_TIMEOUT,
    SERVICE_TIMEOUT,
    WITH_PASSWORD,
    McpTransport,
    Server,
    builtin_server,
    server_of,
)
from agent.protocol import FIVE_TOOLS, ImageRef, ToolCall
from agent.replay import RecordedTransport, Recording
from agent.task import Task
from agent.transport import MENDABLE, ToolboxError, ToolInfo, ToolRequest, ToolResult, Transport

__all__ = [
    "BACKEND_ROLES",
    "CALL_TIMEOUT",
    "MENDABLE",
    "SERVICE_TIMEOUT",
    "WITH_PASSWORD",
    "Observation",
    "Server",
    "Toolbox",
    "ToolboxError",
    "builtin_server",
    "server_of",
]

ORIGINAL = "normal_image"
_HIDDEN_FACTS = frozenset(
    {"image", "target_image", "anomaly_image", "normal_image", "mask", "measurements", "seconds", "cost_usd"}
)


@dataclass(frozen=True, slots=True)
class Observation:
    """What a call brought back.

    ``payload`` is the tool's JSON as it came, ``shown`` what the policy is told, ``image`` a new conversation
    image (image_gen), ``mask`` a mask (mask_gen). ``error`` is the tool's refusal in its own words, which the
    policy may act on; "" where the call succeeded. ``kind`` is the failure's class, ``cost_usd`` what the call cost
    now. ``cache_key`` names the result in a recording; where it was ``replayed``, ``recorded_cost_usd`` and
    ``recorded_seconds`` are what it took when it was made.
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
    cache_key: str = ""
    replayed: bool = False
    recorded_cost_usd: float | None = None
    recorded_seconds: float | None = None


class Toolbox:
    """An async context manager over one or more servers that together offer the five tools.

    Many episodes may share one at the same time. ``recording``: where results are kept and taken from; ``processes``:
    how many of a started server may work side by side. Raises ToolboxError on entry where a server cannot be started
    or reached, or a tool is missing.
    """

    def __init__(
        self,
        servers: Sequence[Server],
        call_timeout: float = CALL_TIMEOUT,
        recording: Recording | None = None,
        processes: int = 1,
    ) -> None:
        live = McpTransport(servers, call_timeout, processes)
        asked = [server.identity or server.label for server in servers]
        self._transport: Transport = RecordedTransport(live, recording, asked) if recording else live

    @property
    def described(self) -> list[dict[str, Any]]:
        """Name, version and protocol era of every server."""
        return self._transport.described

    @property
    def tools(self) -> dict[str, ToolInfo]:
        """The five tools as their servers describe them."""
        return {name: self._transport.tools[name] for name in FIVE_TOOLS}

    async def __aenter__(self) -> Toolbox:
        await self._transport.__aenter__()
        missing = [name for name in FIVE_TOOLS if name not in self._transport.tools]
        if missing:
            await self._transport.__aexit__(None, None, None)
            raise ToolboxError(f"no server offers {', '.join(missing)}: add one with --server")
        return self

    async def __aexit__(self, *exc: Any) -> None:
        await self._transport.__aexit__(*exc)

    def signatures(self) -> list[dict[str, Any]]:
        """The five tools as the model sees them: function signatures with image numbers."""
        return [_signature(tool) for tool in self.tools.values()]

    def handle_of(self, image: ImageRef) -> str:
        """The server's handle of an image; for the original its path until a tool has named its handle."""
        return self._transport.handle_of(image)

    def backend(self, tool: str) -> dict[str, Any]:
        """What a tool's server tells of its backend (name, model, version); the server's own name and version else."""
        return dict(self._transport.tools[tool].backend)

    async def open_photo(self, path: str) -> ImageRef:
        """Image 1: the task's photo as the tools see it. Raises ToolboxError where it cannot be used."""
        return await self._transport.photo(path)

    async def max_cost_usd(self, call: ToolCall, task: Task, images: Sequence[ImageRef]) -> float | None:
        """The most that a call may cost in US dollars: None where it is unknown, 0 where nothing will be called."""
        request = self._bind(call, task, images)
        return 0.0 if isinstance(request, str) else await self._transport.max_cost_usd(request)

    async def call(self, call: ToolCall, task: Task, images: Sequence[ImageRef]) -> Observation:
        """Carry out one call of the policy.

        A refusal by the tool (or a call that names no tool or no image) comes back as an Observation with
        ``error``; ToolboxError is raised where the server died, broke the protocol or exceeded the time limit.
        """
        request = self._bind(call, task, images)
        if isinstance(request, str):
            return _observation(ToolResult({"error": request}, 0.0, error=request, kind="Refused"), images)
        return _observation(await self._transport.call(request), images)

    def _bind(self, call: ToolCall, task: Task, images: Sequence[ImageRef]) -> ToolRequest | str:
        """The request that a model's call stands for, or what is wrong with the call."""
        if call.name not in FIVE_TOOLS:
            return f"there is no tool {call.name!r}: use one of {', '.join(FIVE_TOOLS)}"
        tool = self._transport.tools[call.name]
        properties = tool.input_schema.get("properties", {})
        visible = _visible(tool)
        unknown = [name for name in call.arguments if name not in visible]
        if unknown:
            return f"{tool.name} takes no argument {unknown[0]!r}: it takes {', '.join(visible)}"
        bound: dict[str, Any] = dict(call.arguments)
        for name in (name for name in visible if name.endswith("image") and name in bound):
            number = bound[name]
            if not isinstance(number, int) or isinstance(number, bool) or not 1 <= number <= len(images):
                return f"{name} must be an image number from 1 to {len(images)}, not {json.dumps(number)[:40]}"
            bound[name] = images[number - 1]
        if ORIGINAL in properties:
            bound[ORIGINAL] = images[0]
        options = {"seed": task.seed, "region": task.region, "threshold": task.threshold}
        wishes = {name: wish for name, wish in _wishes(tool.name, task).items() if wish}
        if lost := [name for name in wishes if name not in properties]:
            raise ToolboxError(
                f"this server's {tool.name} takes no {lost[0]}: leave that option out, or use the built-in one"
            )
        options |= wishes
        bound |= {name: value for name, value in options.items() if name in properties and value != ""}
        return ToolRequest(tool.name, bound)


def _observation(result: ToolResult, images: Sequence[ImageRef]) -> Observation:
    """A result as the conversation takes it in: a new image gets the next number, what is the user's is hidden."""
    image = result.images.get("image")
    shown = result.payload if result.error else {k: v for k, v in result.payload.items() if k not in _HIDDEN_FACTS}
    if image is not None:
        image = replace(image, index=len(images) + 1)
        shown = {"image_index": image.index, **shown}
    return Observation(
        result.payload,
        shown,
        result.sent,
        result.seconds,
        result.error,
        result.kind,
        result.cost_usd,
        image,
        result.images.get("mask"),
        result.key,
        result.replayed,
        result.recorded_cost_usd,
        result.recorded_seconds,
    )


def _wishes(tool: str, task: Task) -> dict[str, Any]:
    """What the user may ask of a tool beyond seed, region and threshold; empty and 0 mean no wish."""
    if tool == "image_gen":
        return {"example_image": task.example_image, "example_mask": task.example_mask, "count": task.count}
    return {"margin": task.margin} if tool == "mask_gen" else {}


def _visible(tool: ToolInfo) -> list[str]:
    """Arguments that are the model's: the required ones but the original photo."""
    return [name for name in tool.input_schema.get("required", []) if name != ORIGINAL]


def _signature(tool: ToolInfo) -> dict[str, Any]:
    properties = {}
    for name in _visible(tool):
        schema = tool.input_schema["properties"][name]
        if name.endswith("image"):
            described = str(schema.get("description", "")).split(":")[0]
            properties[name] = {"type": "integer", "minimum": 1, "description": f"number of {described}"}
        else:
            properties[name] = {key: schema[key] for key in ("type", "description") if key in schema}
    parameters = {"type": "object", "properties": properties, "required": list(properties)}
    description = " ".join(tool.description.split())
    return {"type": "function", "function": {"name": tool.name, "description": description, "parameters": parameters}}
