"""The real tool suite as if some of it were paid for: ``python paid.py --allow DIR --calls FILE TOOL=OPTIONS...``.

Every call of a tool is one line in FILE, written when the call arrives, and so is every start of the server.
OPTIONS, comma-separated: ``price:0.04`` (US dollars a call, told in the tool's ``_meta`` and charged),
``price:unknown``, ``version:B``, ``wait:2.5`` (seconds that a call takes without using the CPU), ``until:FILE`` (waits
until the file exists), ``held:FILE`` (the first call waits so), ``together:32`` (no call is answered before so many
have arrived), ``refuse:1`` (declines the first call, which costs all the same), ``limit:1`` (the first call fails for
too many requests), ``dies`` (the server ends at the first call), ``strict`` (a judge that is never content),
``instant`` (answers without looking: for measuring everything but the tools). Counts are those of one process.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
from mcp.server.mcpserver.tools import Tool
from mcp_types import CallToolResult, TextContent
from pydantic import BaseModel

from mcp_servers.backends import META_BACKEND, META_FAILURE, BackendChoice, ToolSpec
from mcp_servers.serving import build_server, store_from
from mcp_servers.store import Store
from mcp_servers.suite import SPECS


def paid(spec: ToolSpec, options: dict[str, str], calls: Path) -> ToolSpec:
    """The same tool with a price, a version and manners of its own."""
    price = options.get("price", "0")
    seen = {"refuse": int(options.get("refuse", 0)), "limit": int(options.get("limit", 0))}

    def build(store: Store, choice: BackendChoice) -> list[Tool]:
        tools = spec.build(store, choice)
        for tool in tools:
            facts = dict((tool.meta or {})[META_BACKEND])
            facts |= {"max_cost_usd": None if price == "unknown" else float(price)}
            facts |= {"version": options.get("version", facts["version"]), "model": "fake-1"}
            tool.meta = {META_BACKEND: facts}
            tool.fn = charged(tool.fn, store)
        return tools

    arrived, whole = 0, anyio.Event()

    async def wait() -> None:
        """As long as the options say."""
        nonlocal arrived
        arrived += 1
        gates = [options[name] for name in ("until", "held") if name in options and (name == "until" or arrived == 1)]
        if arrived >= int(options.get("together", 0)):
            whole.set()
        await whole.wait()
        await anyio.sleep(float(options.get("wait", 0)))
        while not all(Path(gate).exists() for gate in gates):
            await anyio.sleep(0.01)

    def charged(call: Callable[..., Any], store: Store) -> Callable[..., Any]:
        async def run(**arguments: Any) -> Any:
            with open(calls, "a", encoding="utf-8") as stream:
                stream.write(f"{spec.name}\n")
            await wait()
            if "dies" in options:
                os._exit(7)
            for kind, said in (("refuse", "refused"), ("limit", "rate_limited")):
                if seen[kind]:
                    seen[kind] -= 1
                    return failure(said, 0.0 if price == "unknown" else float(price))
            if "instant" in options:
                return instant(spec.name, arguments, store)
            return with_cost(await call(**arguments), 0.0 if price == "unknown" else float(price), "strict" in options)

        return run

    return replace(spec, build=build)


def instant(tool: str, arguments: dict[str, Any], store: Store) -> CallToolResult:
    """The least that an agent goes on with: the photo itself as the edited image and as the mask."""
    handle = store.resolve(arguments.get("target_image") or arguments.get("anomaly_image") or arguments["image"])[0]
    facts: dict[str, Any] = {"backend": "instant", "model": "", "cost_usd": 0.0, "seconds": 0.0, "note": ""}
    facts |= {name: value for name, value in arguments.items() if isinstance(value, str | float)}
    judged = {"score": 9.0, "location_score": 5.0, "quality_score": 4.0, "review": "", "passed": True}
    facts |= {
        "prompt_gen": {"prompt": "Using the provided image, change it.", "family": "scratch", "known": True},
        "image_gen": {"image": handle, "target_image": handle},
        "quality_eval": judged | {"measurements": {}, "disagreement": 0.0},
        "mask_gen": {"found": True, "mask": handle, "area_fraction": 0.01, "boxes": [], "confidence": 1.0},
    }[tool]
    text = [TextContent(type="text", text=json.dumps(facts))]
    structured = facts if tool in ("prompt_gen", "quality_eval") else None
    return CallToolResult(content=text, structured_content=structured)


def failure(kind: str, cost: float) -> CallToolResult:
    text = TextContent(type="text", text=f"the service said: {kind}")
    return CallToolResult(content=[text], is_error=True, _meta={META_FAILURE: {"kind": kind, "cost_usd": cost}})


def with_cost(result: Any, cost: float, strict: bool) -> Any:
    if isinstance(result, BaseModel) and not isinstance(result, CallToolResult):
        facts = result.model_dump(mode="json") | {"cost_usd": cost}
        if strict:
            facts |= {"passed": False, "score": 5.0, "review": "Make the defect more pronounced: it is faint."}
        return CallToolResult(content=[TextContent(type="text", text=json.dumps(facts))], structured_content=facts)
    facts = json.loads(result.content[0].text) | {"cost_usd": cost}
    result.content[0] = TextContent(type="text", text=json.dumps(facts))
    return result


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--allow", action="append", default=[])
    parser.add_argument("--calls", required=True)
    parser.add_argument("tools", nargs="*")
    options = parser.parse_args()
    given = {
        tool: dict(part.partition(":")[::2] for part in text.split(","))
        for tool, text in (argument.split("=", 1) for argument in options.tools)
    }
    with open(options.calls, "a", encoding="utf-8") as stream:
        stream.write("started\n")
    specs = [paid(spec, given.get(spec.name, {}), Path(options.calls)) for spec in SPECS]
    build_server("paid", store_from(options.allow, dict(os.environ)), specs, "").run("stdio")


if __name__ == "__main__":
    main()
