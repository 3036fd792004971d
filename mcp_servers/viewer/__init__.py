"""The viewer in the chat: an MCP App that shows before and after, the mask and the scores next to a tool's result.

A host that negotiated the Apps extension gets the pictures in the result's ``_meta``, which it hands to the page and
not to the model; any other host gets the result as it is. The page is ``page.html``, without anything from elsewhere.
"""

from __future__ import annotations

import base64
from collections import OrderedDict
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any

import anyio.to_thread
import cv2
import numpy as np
from mcp.server.apps import Apps, client_supports_apps
from mcp_types import CallToolResult
from numpy.typing import NDArray

from mcp_servers.errors import ToolInputError
from mcp_servers.images import jpeg_preview
from mcp_servers.limits import Limits
from mcp_servers.results import facts_of, size_of
from mcp_servers.store import Store, same_scale_views

URI = "ui://anomaly-agent/viewer.html"
META_VIEW = "anomaly-agent/view"
"""Key of a result's ``_meta`` with what the page shows: before, after and mask as data URIs, size, verdict."""
VIEWED = ("image_gen", "quality_eval", "mask_gen")
SIDE = 640
"""Longer side in pixels of the pictures in the viewer, where the limit of a result leaves room."""
VERDICTS = 256
VERDICT = ("score", "location_score", "quality_score", "passed", "review")


@dataclass(slots=True)
class Viewer:
    """The viewer of one server. ``verdicts``: the latest scores by judged image, shown beside its mask."""

    store: Store
    tools: tuple[str, ...] = VIEWED
    verdicts: OrderedDict[str, dict[str, Any]] = field(default_factory=OrderedDict)

    @property
    def meta(self) -> dict[str, Any]:
        """What marks a tool as one with a viewer."""
        return {"ui": {"resourceUri": URI}}

    def register(self, apps: Apps) -> None:
        """Offer the page."""
        page = (files("mcp_servers.viewer") / "page.html").read_text("utf-8")
        description = "Before and after, the mask and the scores of a synthesized defect."
        apps.add_html_resource(URI, page, title="Defect viewer", description=description, prefers_border=True)

    async def attached(self, tool: str, result: CallToolResult, context: Any, limits: Limits) -> CallToolResult:
        """The result with the pictures of the viewer, where the tool has one and the host shows it."""
        facts = facts_of(result)
        if tool not in self.tools or not facts:
            return result
        after = facts.get("anomaly_image") or facts.get("image")
        if tool == "quality_eval" and isinstance(after, str):
            self.verdicts[after] = {key: facts[key] for key in VERDICT if key in facts}
            while len(self.verdicts) > VERDICTS:
                self.verdicts.popitem(last=False)
        if not client_supports_apps(context):
            return result
        room = limits.result_bytes - size_of(result) - 4096
        view = await anyio.to_thread.run_sync(self.view, facts, room)
        return result.model_copy(update={"meta": (result.meta or {}) | {META_VIEW: view}}) if view else result

    def view(self, facts: dict[str, Any], room: int) -> dict[str, Any]:
        """What the page shows of these facts, in at most ``room`` bytes; empty where nothing fits."""
        before_handle = facts.get("normal_image") or facts.get("target_image")
        after_handle = facts.get("anomaly_image") or facts.get("image")
        if not isinstance(before_handle, str) or not isinstance(after_handle, str):
            return {}
        try:
            before, after = same_scale_views(self.store.get(before_handle), self.store.get(after_handle))
            named = facts.get("mask")
            mask = self.store.get(named).view()[:, :, 0] if isinstance(named, str) else changed(before, after)
        except ToolInputError:  # removed from the store meanwhile, or two photos of different size
            return {}
        shown = {"size": [before.shape[1], before.shape[0]], "verdict": self.verdicts.get(after_handle)}
        side = min(SIDE, max(before.shape[:2]))
        while side >= 64:
            pictures = {
                "before": _data_uri(jpeg_preview(before, side), "jpeg"),
                "after": _data_uri(jpeg_preview(after, side), "jpeg"),
                "mask": _data_uri(_mask_png(mask, side), "png"),
            }
            if sum(map(len, pictures.values())) <= room:
                return shown | pictures
            side = int(side * 0.75)
        return {}


def changed(before: NDArray[np.uint8], after: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(H, W) uint8: 255 where two (H, W, 3) pictures differ at all."""
    return np.where((before != after).any(axis=2), 255, 0).astype(np.uint8)


def _mask_png(mask: NDArray[np.uint8], side: int) -> bytes:
    """The mask scaled to ``side``, white where any of its pixels is set, transparent elsewhere."""
    scale = min(1.0, side / max(mask.shape))
    size = (max(1, round(mask.shape[1] * scale)), max(1, round(mask.shape[0] * scale)))
    small = cv2.resize(mask, size, interpolation=cv2.INTER_AREA)
    alpha = np.where(small > 0, 255, 0).astype(np.uint8)
    ok, encoded = cv2.imencode(".png", np.dstack([np.full((*alpha.shape, 3), 255, np.uint8), alpha]))
    if not ok:
        raise RuntimeError("PNG encoding failed")
    return encoded.tobytes()


def _data_uri(data: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
