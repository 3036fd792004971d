"""mask_gen over MCP: the pixel mask of what differs between a photo and its defective version."""

from __future__ import annotations

import time
from typing import Annotated

import numpy as np
from mcp.server.mcpserver.tools import Tool
from mcp_types import CallToolResult
from pydantic import Field

from mcp_servers.backends import BackendChoice, ToolSpec
from mcp_servers.images import Photo, jpeg_preview
from mcp_servers.mask_gen.local import widened
from mcp_servers.mask_gen.maskers import BACKENDS, masker_for
from mcp_servers.mask_gen.overlay import draw_overlay
from mcp_servers.serving import IMAGE_ARGUMENT, image_result, make_tool, text_result
from mcp_servers.store import Store, same_scale_views

INSTRUCTIONS = "Finds the pixel mask of the defect by comparing the synthesized image with its original."
MAX_BOXES = 32


def tools(store: Store, choice: BackendChoice) -> list[Tool]:
    """The mask_gen tool over ``store``."""
    masker = masker_for(choice)

    def mask_gen(
        anomaly_image: Annotated[str, Field(description="the image with the defect: " + IMAGE_ARGUMENT)],
        normal_image: Annotated[str, Field(description="the original photo it was made from")],
        margin: Annotated[
            int, Field(description="pixels by which the mask is grown, as people label; 0 = exact", ge=0, le=200)
        ] = 0,
    ) -> CallToolResult:
        """Find the defect's pixel mask by comparing the two images; may find nothing, and then says so.

        Returns the mask's handle, an overlay preview, the area and boxes (x, y, width, height) of what changed, before
        any margin, and a confidence from 0 to 1. Call it once, on the image that passed.
        """
        started = time.perf_counter()
        anomaly_handle, anomaly = store.resolve(anomaly_image)
        normal_handle, normal = store.resolve(normal_image)
        normal_view, anomaly_view = same_scale_views(normal, anomaly)
        result = masker.find(normal_view, anomaly_view)
        facts = {
            "found": result.found,
            "mask": None,
            "area_fraction": round(result.area_fraction, 6),
            "boxes": [list(box) for box in result.boxes[:MAX_BOXES]],
            "regions": len(result.boxes),
            "confidence": round(result.confidence, 3),
            "method": result.method,
            "margin": margin,
            "note": result.note,
            "anomaly_image": anomaly_handle,
            "normal_image": normal_handle,
            "backend": masker.backend.name,
            "model": masker.backend.model,
            "cost_usd": 0.0,
        }
        if result.agreement is not None:
            facts["agreement"] = round(result.agreement, 3)
        if not result.found:
            return text_result(facts | {"seconds": round(time.perf_counter() - started, 3)})
        label = widened(result.mask, margin)
        mask = store.put(Photo(np.where(label, 255, 0).astype(np.uint8)))
        preview = jpeg_preview(draw_overlay(anomaly_view, label))
        facts |= {"mask": mask, "seconds": round(time.perf_counter() - started, 3)}
        return image_result(facts, preview, mask, "Defect mask")

    title = "Find the defect's mask"
    return [make_tool(mask_gen, title=title, read_only=False, structured=False, backend=masker.backend)]


SPEC = ToolSpec("mask_gen", role="masker", backends=BACKENDS, build=tools)
