"""What the tests of model-backed tools share: replies, prices, and a call through MCP that must not leak its key."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import anyio
import cv2
import numpy as np
import pytest
from mcp import Client

from mcp_servers.backends import META_BACKEND, META_FAILURE, BackendChoice
from mcp_servers.images import Photo
from mcp_servers.prompt_gen.server import SPEC as PROMPTER
from mcp_servers.quality_eval.server import SPEC as JUDGE
from mcp_servers.serving import build_server
from mcp_servers.store import Store

from .fake_models import FakeModels, Response, gemini_says, openai_says

KEY = "sk-secret-1234567890"
PARTS = {
    "place": "The upper left part of the plate's face",
    "defect": "a thin bright scratch, running across the brushed grain",
    "size": "medium-sized",
    "severity": "pronounced",
    "surface": "The scratch cuts through the brushing, with a glint on one flank and shade on the other.",
}
VERDICT = {"remarks": "The line is too faint.", "advice": [], "location_score": 4.5, "quality_score": 3}
PROMPT = json.dumps(PARTS)
GOOD = json.dumps(VERDICT)
TASK = {"item_name": "plate", "anomaly_type": "scratch"}
SERVICES = ("openai", "gemini")
TOOLS = ("prompt_gen", "quality_eval")


def says(service: str, text: str | None, **more: Any) -> Response:
    return openai_says(text, **more) if service == "openai" else gemini_says(text, **more)


def reply_for(tool: str, **changes: Any) -> str:
    return json.dumps((PARTS if tool == "prompt_gen" else VERDICT) | changes)


def own_prices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The model "vlm" costs 1 USD a thousand tokens read and 2 USD a thousand written."""
    table = tmp_path / "prices.toml"
    table.write_text('["vlm"]\ninput_per_million = 1000\noutput_per_million = 2000\n')
    monkeypatch.setenv("ANOMALY_AGENT_PRICES", str(table))
    for name in ("OPENAI_API_KEY", "GEMINI_API_KEY", "GOOGLE_API_KEY"):
        monkeypatch.delenv(name, raising=False)


def edited_pair(store: Store, photo: np.ndarray) -> dict[str, str]:
    """Handles of a photo and of an edit of it."""
    edited = photo.copy()
    cv2.line(edited, (40, 40), (110, 80), (235, 238, 240), 2, cv2.LINE_AA)
    return {"anomaly_image": store.put(Photo(edited)), "normal_image": store.put(Photo(photo))}


def choice(service: str, fake: FakeModels, **more: Any) -> BackendChoice:
    base = f"{fake.url}/v1" if service.endswith("openai") else fake.url
    return BackendChoice(**({"name": service, "model": "vlm", "base_url": base, "api_key": KEY} | more))


def call(store: Store, tool: str, chosen: BackendChoice, arguments: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """The tool's result, and what the server says of its backend."""
    spec = PROMPTER if tool == "prompt_gen" else JUDGE

    async def main() -> tuple[Any, dict[str, Any]]:
        async with Client(build_server("models", store, [spec], "", choices={spec.role: chosen})) as client:
            (listed,) = (await client.list_tools()).tools
            assert listed.meta is not None
            return await client.call_tool(tool, arguments), listed.meta[META_BACKEND]

    result, facts = anyio.run(main)
    told = result.model_dump_json() + json.dumps(facts)
    assert KEY not in told
    return result, facts


def arguments(tool: str, pair: dict[str, str]) -> dict[str, Any]:
    return TASK | ({"image": pair["normal_image"]} if tool == "prompt_gen" else pair)


def failure(result: Any) -> dict[str, Any]:
    assert result.is_error, result.structured_content
    assert "\n" not in result.content[0].text
    assert "Traceback" not in result.content[0].text
    return dict(result.meta[META_FAILURE])
