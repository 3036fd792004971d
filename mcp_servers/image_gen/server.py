"""image_gen over MCP: one edit of the original photo, as a new image handle."""

from __future__ import annotations

import time
from typing import Annotated

from mcp.server.mcpserver.tools import Tool
from mcp_types import CallToolResult
from pydantic import Field

from mcp_servers.image_gen.local import MODEL, render
from mcp_servers.image_gen.region import read_region
from mcp_servers.serving import IMAGE_ARGUMENT, image_result, make_tool
from mcp_servers.store import Store

INSTRUCTIONS = "Edits a photo of a good part so that it shows one defect, as an editing prompt describes it."


def tools(store: Store) -> list[Tool]:
    """The image_gen tool over ``store``."""

    def image_gen(
        prompt: Annotated[str, Field(description="what to change, as prompt_gen writes it", max_length=8000)],
        target_image: Annotated[str, Field(description="the original photo: " + IMAGE_ARGUMENT)],
        seed: Annotated[int, Field(description="another seed, another defect", ge=0, le=2**63 - 1)] = 0,
        region: Annotated[
            str,
            Field(description='where it may go: "x,y,width,height" in pixels, or a mask image (white = allowed)'),
        ] = "",
    ) -> CallToolResult:
        """Put one defect on the part in the photo, as the prompt describes it, and return the new image.

        Every edit starts from the original photo. The size stays the same, and every pixel outside the defect
        stays identical. Same photo, prompt and seed: same picture. To improve a result, change the prompt.
        """
        started = time.perf_counter()
        target, photo = store.resolve(target_image)
        rendering = render(photo.view(), prompt, seed, read_region(region, photo, store))
        edited = photo.composite(rendering.rgb, rendering.alpha)
        handle = store.put(edited)
        facts = {
            "image": handle,
            "target_image": target,
            "size": [edited.width, edited.height],
            "backend": "local",
            "model": MODEL,
            "seed": seed,
            "read_from_prompt": rendering.spec.summary(),
            "changed": {
                "box": list(rendering.box),
                "area_fraction": round(float((rendering.alpha > 0).mean()), 6),
            },
            "notes": rendering.notes,
            "cost_usd": 0.0,
            "seconds": round(time.perf_counter() - started, 3),
        }
        return image_result(facts, edited.preview(), handle, "Synthesized anomaly image")

    return [make_tool(image_gen, title="Edit the photo", read_only=False, structured=False)]
