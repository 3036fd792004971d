"""image_gen over MCP: one edit of the original photo, as a new image handle."""

from __future__ import annotations

import time
from typing import Annotated, Literal

from mcp.server.mcpserver.tools import Tool
from mcp_types import CallToolResult
from pydantic import Field

from mcp_servers.backends import BackendChoice, BackendFacts, ToolSpec
from mcp_servers.fingerprint import local_version
from mcp_servers.image_gen.example import read_example
from mcp_servers.image_gen.local import MODEL, render
from mcp_servers.image_gen.region import read_region
from mcp_servers.serving import IMAGE_ARGUMENT, image_result, make_tool
from mcp_servers.store import Store

INSTRUCTIONS = "Edits a photo of a good part so that it shows one defect, as an editing prompt describes it."

_BACKEND = BackendFacts(model=MODEL, version=local_version("image_gen"))


def tools(store: Store, choice: BackendChoice) -> list[Tool]:
    """The image_gen tool over ``store``."""

    def image_gen(
        prompt: Annotated[str, Field(description="what to change, as prompt_gen writes it", max_length=8000)],
        target_image: Annotated[str, Field(description="the original photo: " + IMAGE_ARGUMENT)],
        seed: Annotated[int, Field(description="another seed, another defect", ge=0, le=2**63 - 1)] = 0,
        region: Annotated[
            str,
            Field(description='where it may go: "x,y,width,height" in pixels, or a mask image (white = allowed)'),
        ] = "",
        example_image: Annotated[
            str, Field(description="a photo that shows a real defect, which is transplanted: " + IMAGE_ARGUMENT)
        ] = "",
        example_mask: Annotated[
            str, Field(description="the mask of the example's defect, as large as it (bright pixels = defect)")
        ] = "",
        count: Annotated[int, Field(description="how many defects, 0: as the prompt says", ge=0, le=12)] = 0,
        size: Annotated[
            Literal["", "tiny", "small", "medium-sized", "large", "very large"],
            Field(description="instead of the prompt's size word"),
        ] = "",
        severity: Annotated[
            Literal["", "faint", "mild", "moderate", "pronounced", "severe"],
            Field(description="instead of the prompt's severity word"),
        ] = "",
    ) -> CallToolResult:
        """Put a defect on the part in the photo, as the prompt describes it, and return the new image.

        With an example its real defect is transplanted; the prompt then says where, how large and how strong. Every
        edit starts from the original photo. The size stays the same, and every pixel outside the defect stays
        identical. Same photo, prompt and seed: same picture. To improve a result, change the prompt.
        """
        started = time.perf_counter()
        target, photo = store.resolve(target_image)
        example = read_example(example_image, example_mask, store)
        rendering = render(
            photo.view(),
            prompt,
            seed,
            read_region(region, photo, store),
            example=example,
            count=count,
            size=size,
            severity=severity,
        )
        edited = photo.composite(rendering.rgb, rendering.alpha)
        handle = store.put(edited)
        facts = {
            "image": handle,
            "target_image": target,
            "size": [edited.width, edited.height],
            "backend": "local",
            "model": MODEL,
            "seed": seed,
            "read_from_prompt": rendering.spec.summary() | ({"family": "as in the example"} if example else {}),
            "changed": {
                "box": list(rendering.box),
                "area_fraction": round(float((rendering.alpha > 0).mean()), 6),
            },
            "notes": rendering.notes,
            "cost_usd": 0.0,
            "seconds": round(time.perf_counter() - started, 3),
        }
        return image_result(facts, edited.preview(), handle, "Synthesized anomaly image")

    return [make_tool(image_gen, title="Edit the photo", read_only=False, structured=False, backend=_BACKEND)]


SPEC = ToolSpec("image_gen", role="editor", backends=("local",), build=tools)
