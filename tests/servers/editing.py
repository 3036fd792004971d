"""Calling image_gen over MCP on a scripted editor, for the tests of editors."""

from __future__ import annotations

import json
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import anyio
import numpy as np
from mcp import Client

from mcp_servers.backends import META_FAILURE, BackendChoice
from mcp_servers.image_gen.server import SPEC
from mcp_servers.serving import build_server
from mcp_servers.store import Store

from .fake_editors import FakeEditor, grpc_editor, http_editor

PROMPT = "Using the provided image, change only the surface of the plate to introduce a scratch. Keep all else."
WORKFLOW = Path(__file__).resolve().parent.parent.parent / "examples" / "comfyui_qwen_image_edit.json"
BACKENDS = ("gemini", "openai", "xai", "comfyui")
KEY = "sk-very-secret-0123456789"


def serve(backend: str, *script: str) -> AbstractContextManager[FakeEditor]:
    return grpc_editor(*script) if backend == "xai" else http_editor(*script)


def choice_of(backend: str, editor: FakeEditor, **options: Any) -> BackendChoice:
    model = {"openai": "gpt-image-1.5", "comfyui": str(WORKFLOW)}.get(backend, "")
    url = f"{editor.url}/v1" if backend == "openai" else editor.url
    given = {"model": model, "base_url": url, "api_key": KEY, "attempts": 3, "timeout": 60.0} | options
    return BackendChoice(backend, **given)


def call(store: Store, choice: BackendChoice, target: str, **arguments: Any) -> Any:
    async def main() -> Any:
        server = build_server("edit", store, [SPEC], "", choices={"editor": choice})
        async with Client(server) as client:
            return await client.call_tool("image_gen", {"prompt": PROMPT, "target_image": target, **arguments})

    result = anyio.run(main)
    assert KEY not in str(result)
    return result


def facts(result: Any) -> dict[str, Any]:
    assert not result.is_error, result.content[0].text
    return dict(json.loads(result.content[0].text))


def failure(result: Any) -> dict[str, Any]:
    assert result.is_error
    assert "\n" not in result.content[0].text
    return dict(result.meta[META_FAILURE]) | {"text": result.content[0].text}


def pixels(store: Store, made: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    return store.get(made["target_image"]).pixels, store.get(made["image"]).pixels
