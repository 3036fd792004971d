"""Real results of the tools, as a host that shows MCP Apps gets them: what the viewer's page is checked with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mcp import Client
from mcp.client.extension import advertise
from mcp.server.apps import APP_MIME_TYPE, EXTENSION_ID

from mcp_servers.results import facts_of
from mcp_servers.serving import build_server
from mcp_servers.store import Store
from mcp_servers.suite import SPECS


async def write_results(photo: Path, folder: Path) -> None:
    """Results of image_gen, quality_eval and mask_gen as a host with Apps gets them, as JSON files."""
    store = Store(home=folder / "store", allowed=[photo.parent])
    apps = advertise(EXTENSION_ID, {"mimeTypes": [APP_MIME_TYPE]})
    async with Client(build_server("suite", store, SPECS, ""), extensions=[apps]) as client:

        async def call(tool: str, arguments: dict[str, Any]) -> dict[str, Any]:
            result = await client.call_tool(tool, arguments)
            sent = result.model_dump(by_alias=True, exclude_none=True, mode="json")
            (folder / f"{tool}.json").write_text(json.dumps(sent))
            return facts_of(result)

        prompt = "Using the provided image, change only the flange to introduce one large, pronounced dark scratch."
        made = await call("image_gen", {"prompt": prompt, "target_image": photo.name, "seed": 4})
        pair = {"anomaly_image": made["image"], "normal_image": made["target_image"]}
        await call("quality_eval", {**pair, "item_name": "flange", "anomaly_type": "scratch"})
        await call("mask_gen", pair)
