"""The five tools chained by hand through any MCP client, passing handles only.

    python examples/chain_tools.py [PHOTO ITEM ANOMALY]

Without arguments it uses a photo that the project renders itself. Prints each tool's answer.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import anyio
from mcp import Client
from mcp.client.stdio import StdioServerParameters
from mcp_types import TextContent

from agent.demo import render_demo_photo


def facts(result: Any) -> dict[str, Any]:
    """The JSON of a tool's answer; image tools put it into their first text block."""
    if result.is_error:
        raise SystemExit(result.content[0].text)
    if result.structured_content:
        return dict(result.structured_content)
    return dict(json.loads(next(block.text for block in result.content if isinstance(block, TextContent))))


async def main(photo: Path, item_name: str, anomaly_type: str) -> None:
    """Prompt, edit, judge, look up, mask."""
    environment = {name: os.environ[name] for name in ("ANOMALY_AGENT_HOME",) if name in os.environ}
    command = ["-m", "mcp_servers", "--allow", str(photo.parent)]
    async with Client(StdioServerParameters(command=sys.executable, args=command, env=environment)) as client:
        task = {"item_name": item_name, "anomaly_type": anomaly_type}
        prompt = facts(await client.call_tool("prompt_gen", {"image": photo.name, **task}))
        edited = facts(
            await client.call_tool("image_gen", {"prompt": prompt["prompt"], "target_image": prompt["image"]})
        )
        pair = {"anomaly_image": edited["image"], "normal_image": prompt["image"]}
        verdict = facts(await client.call_tool("quality_eval", {**pair, **task}))
        knowledge = facts(await client.call_tool("knowledge_retrieval", task))
        mask = facts(await client.call_tool("mask_gen", pair))
    print(f"prompt_gen           {prompt['prompt']}")
    print(f"image_gen            {edited['image']} {edited['size']} {edited['read_from_prompt']}")
    print(f"quality_eval         {verdict['score']} of 10: {verdict['review']}")
    print(f"knowledge_retrieval  {knowledge['passages'][0]['text']}")
    print(f"mask_gen             {mask['mask']} {mask['note']}")


if __name__ == "__main__":
    if len(sys.argv) == 4:
        anyio.run(main, Path(sys.argv[1]).resolve(), sys.argv[2], sys.argv[3])
    elif len(sys.argv) == 1:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder).resolve() / "flange.png"
            render_demo_photo().save(path)
            anyio.run(main, path, "flange", "scratch")
    else:
        raise SystemExit("usage: python examples/chain_tools.py [PHOTO ITEM ANOMALY]")
