"""A program that uses the tools of a service over HTTP, with a bearer token.

    openssl rand -hex 32 > token && chmod 600 token
    python -m mcp_servers --http --host 0.0.0.0 --allow-host tools.example --token-file token --allow photos
    python examples/http_client.py http://tools.example:8000/mcp token photo.png bottle scratch out.png

The photo is sent along, so the service needs no access to this machine's files. Put a TLS proxy in front of the service
where the network between is not your own.
"""

from __future__ import annotations

import base64
import json
import sys
from pathlib import Path
from typing import Any

import anyio
import httpx2
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp_types import BlobResourceContents, TextContent


def facts(result: Any) -> dict[str, Any]:
    """The JSON of a tool's answer; image tools put it into their first text block."""
    if result.is_error:
        raise SystemExit(result.content[0].text)
    if result.structured_content:
        return dict(result.structured_content)
    return dict(json.loads(next(block.text for block in result.content if isinstance(block, TextContent))))


async def main(url: str, token_file: str, photo: str, item_name: str, anomaly_type: str, out: str) -> None:
    """Prompt, edit, and save the full-size image."""
    headers = {"Authorization": f"Bearer {Path(token_file).read_text().strip()}"}
    image = f"data:;base64,{base64.b64encode(Path(photo).read_bytes()).decode()}"
    async with (
        httpx2.AsyncClient(headers=headers, timeout=300) as web,
        Client(streamable_http_client(url, http_client=web, max_sse_event_size=None)) as client,  # images are large
    ):
        task = {"item_name": item_name, "anomaly_type": anomaly_type}
        prompt = facts(await client.call_tool("prompt_gen", {"image": image, **task}))
        edit = {"prompt": prompt["prompt"], "target_image": prompt["image"]}
        made = facts(await client.call_tool("image_gen", edit))
        content = (await client.read_resource(f"image://{made['image']}")).contents[0]
        if isinstance(content, BlobResourceContents):
            Path(out).write_bytes(base64.b64decode(content.blob))
    print(f"{out}: {made['size'][0]}x{made['size'][1]}, changed in {made['changed']['box']}")


if __name__ == "__main__":
    if len(sys.argv) != 7:
        raise SystemExit("usage: python examples/http_client.py URL TOKEN_FILE PHOTO ITEM ANOMALY OUT")
    anyio.run(main, *sys.argv[1:])
