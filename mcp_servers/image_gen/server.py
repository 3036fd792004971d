"""image_gen over MCP: one edit of the original photo, as a new image handle."""

from __future__ import annotations

from typing import Annotated, Literal

from mcp.server.mcpserver.tools import Tool
from mcp_types import CallToolResult
from pydantic import Field

from mcp_servers.backends import BackendChoice, ToolSpec
from mcp_servers.image_gen.backends import NAMES, facts_and_editor
from mcp_servers.image_gen.local_edit import edit_locally
from mcp_servers.image_gen.remote import edit_remotely
from mcp_servers.image_gen.wish import Wish
from mcp_servers.serving import IMAGE_ARGUMENT, make_tool
from mcp_servers.store import Store
from mcp_servers.threads import compute

INSTRUCTIONS = "Edits a photo of a good part so that it shows one defect, as an editing prompt describes it."


def tools(store: Store, choice: BackendChoice) -> list[Tool]:
    """The image_gen tool over ``store``."""
    facts, editor = facts_and_editor(choice)

    async def image_gen(
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
        wish = Wish(prompt, target_image, seed, region, example_image, example_mask, count, size, severity)
        if editor is None:
            return await compute(edit_locally, store, wish)
        return await edit_remotely(store, wish, editor, choice.name)

    return [make_tool(image_gen, title="Edit the photo", read_only=False, structured=False, backend=facts)]


SPEC = ToolSpec("image_gen", role="editor", backends=NAMES, build=tools)
