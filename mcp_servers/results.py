"""What tools return: facts as text, a preview to look at, a link to the full image; and how large that may be."""

from __future__ import annotations

import base64
import json
from typing import Any

import cv2
import numpy as np
from mcp_types import CallToolResult, ContentBlock, ImageContent, ResourceLink, TextContent

from mcp_servers.backends import META_FAILURE
from mcp_servers.errors import BackendError, ToolInputError
from mcp_servers.images import jpeg_preview
from mcp_servers.limits import Limits

SMALLEST_PREVIEW = 96
"""Longer side in pixels under which a preview shows nothing and is left out."""


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


def failure(error: BackendError) -> CallToolResult:
    """The result of a call whose backend failed; ``_meta`` tells a program the kind and the cost."""
    facts = {"kind": error.kind.value, "cost_usd": error.cost_usd, "attempts": error.attempts}
    return CallToolResult(
        content=[TextContent(type="text", text=str(error))], is_error=True, _meta={META_FAILURE: facts}
    )


def facts_of(result: CallToolResult) -> dict[str, Any]:
    """The facts that a tool told, wherever it put them; empty for an error."""
    if result.is_error:
        return {}
    if result.structured_content is not None:
        return dict(result.structured_content)
    text = next((block.text for block in result.content if isinstance(block, TextContent)), "{}")
    try:
        facts = json.loads(text)
    except ValueError:
        return {}
    return facts if isinstance(facts, dict) else {}


def size_of(result: CallToolResult) -> int:
    """Bytes of a result as it travels."""
    return len(result.model_dump_json(by_alias=True, exclude_none=True).encode())


def bounded(result: CallToolResult, limits: Limits) -> CallToolResult:
    """The result with its previews scaled down, or left out, as far as the limits ask.

    Raises ToolInputError where the text alone is larger than the limit.
    """
    pictures = [block for block in result.content if isinstance(block, ImageContent)]
    if pictures and not limits.inline_images:
        result = _with_pictures(result, {id(block): None for block in pictures})
        pictures = []
    size = size_of(result)
    if size <= limits.result_bytes:
        return result
    shown = sum(len(block.data) for block in pictures)
    if size - shown > limits.result_bytes:
        raise ToolInputError(
            f"the result has {size // 1000} kB, the limit is {limits.result_bytes // 1000}: ask for less, or start the "
            "server with a larger --result-kb"
        )
    left = (limits.result_bytes - (size - shown)) // max(1, len(pictures))
    return _with_pictures(result, {id(block): _shrunk(block, left) for block in pictures})


def _with_pictures(result: CallToolResult, changed: dict[int, ImageContent | None]) -> CallToolResult:
    blocks = [changed.get(id(block), block) for block in result.content]
    return result.model_copy(update={"content": [block for block in blocks if block is not None]})


def _shrunk(block: ImageContent, most: int) -> ImageContent | None:
    """The picture scaled down until its base64 has at most ``most`` characters; None where nothing would be left."""
    encoded = np.frombuffer(base64.b64decode(block.data), np.uint8)
    pixels = cv2.imdecode(encoded, cv2.IMREAD_COLOR)
    if pixels is None:
        return None
    rgb = np.asarray(pixels[:, :, ::-1], np.uint8)
    side = max(rgb.shape[:2])
    while side >= SMALLEST_PREVIEW:
        data = base64.b64encode(jpeg_preview(rgb, side)).decode()
        if len(data) <= most:
            return ImageContent(type="image", data=data, mime_type="image/jpeg")
        side = int(side * 0.8)
    return None
