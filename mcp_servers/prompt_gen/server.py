"""prompt_gen over MCP: the editing prompt for one photo, item and anomaly type."""

from __future__ import annotations

from typing import Annotated

from mcp.server.mcpserver.tools import Tool
from pydantic import BaseModel, Field

from mcp_servers.backends import BackendChoice, BackendFacts, ToolSpec
from mcp_servers.fingerprint import local_version
from mcp_servers.prompt_gen.local import generate_prompt
from mcp_servers.serving import IMAGE_ARGUMENT, make_tool
from mcp_servers.store import Store

INSTRUCTIONS = "Writes the editing prompt that puts one realistic defect on the part in a photo."


class Prompt(BaseModel):
    """What prompt_gen returns."""

    prompt: str = Field(description="the editing prompt, one paragraph; pass it to image_gen")
    item_name: str
    anomaly_type: str
    family: str = Field(description="the kind of damage, e.g. scratch, crack, hole, stain")
    known: bool = Field(description="false where item or type is not in the knowledge base")
    note: str = Field(description="what the prompt was derived from")
    image: str = Field(description="handle of the photo, for the next calls")
    backend: str


_BACKEND = BackendFacts(version=local_version("prompt_gen"))


def tools(store: Store, choice: BackendChoice) -> list[Tool]:
    """The prompt_gen tool over ``store``."""

    def prompt_gen(
        image: Annotated[str, Field(description="photo of a good part: " + IMAGE_ARGUMENT)],
        item_name: Annotated[str, Field(description='what the photo shows, e.g. "bottle"', max_length=200)],
        anomaly_type: Annotated[str, Field(description='the defect wanted, e.g. "scratch"', max_length=200)],
    ) -> Prompt:
        """Write one editing prompt that introduces the named defect at a physically plausible place of the part.

        Call it once, first. Later prompts are refinements of this one, made from quality_eval's review.
        """
        handle, photo = store.resolve(image)
        made = generate_prompt(photo.view(), item_name, anomaly_type)
        return Prompt(**made.model_dump(), image=handle, backend="local")

    return [make_tool(prompt_gen, title="Write an editing prompt", read_only=True, structured=True, backend=_BACKEND)]


SPEC = ToolSpec("prompt_gen", role="prompter", backends=("local",), build=tools)
