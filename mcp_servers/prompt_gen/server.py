"""prompt_gen over MCP: the editing prompt for one photo, item and anomaly type."""

from __future__ import annotations

import time
from typing import Annotated

from mcp.server.mcpserver.tools import Tool
from pydantic import BaseModel, Field

from mcp_servers.backends import BackendChoice, BackendFacts, ToolSpec
from mcp_servers.fingerprint import local_version
from mcp_servers.prompt_gen.local import generate_prompt
from mcp_servers.prompt_gen.model import PICTURES, write_prompt
from mcp_servers.serving import IMAGE_ARGUMENT, make_tool
from mcp_servers.store import Store
from mcp_servers.threads import compute
from mcp_servers.vlm import Answer, facts_of
from mcp_servers.vlm.choosing import notes_on_price

INSTRUCTIONS = "Writes the editing prompt that puts one realistic defect on the part in a photo."


class Prompt(BaseModel):
    """What prompt_gen returns."""

    prompt: str = Field(description="the editing prompt, one paragraph; pass it to image_gen")
    item_name: str
    anomaly_type: str
    family: str = Field(
        description="the kind of damage, e.g. scratch, crack, hole; defect where it is no built-in kind"
    )
    known: bool = Field(description="false where item or type is not in the knowledge base")
    note: str = Field(description="what the prompt was derived from")
    notes: list[str] = Field(default_factory=list, description="what its user should know")
    image: str = Field(description="handle of the photo, for the next calls")
    backend: str
    model: str = Field(description="the model that wrote it, empty for the built-in writer")
    cost_usd: float = Field(description="US dollars")
    seconds: float


def facts(choice: BackendChoice) -> BackendFacts:
    """What clients are told of the chosen backend."""
    if choice.name == "local":
        return BackendFacts(version=local_version("prompt_gen"))
    return facts_of("prompt_gen", "prompter", choice, PICTURES)


def tools(store: Store, choice: BackendChoice) -> list[Tool]:
    """The prompt_gen tool over ``store``."""
    backend = facts(choice)

    async def prompt_gen(
        image: Annotated[str, Field(description="photo of a good part: " + IMAGE_ARGUMENT)],
        item_name: Annotated[str, Field(description='what the photo shows, e.g. "bottle"', max_length=200)],
        anomaly_type: Annotated[str, Field(description='the defect wanted, e.g. "scratch"', max_length=200)],
    ) -> Prompt:
        """Write one editing prompt that introduces the named defect at a physically plausible place of the part.

        Call it once, first. Later prompts are refinements of this one, made from quality_eval's review.
        """
        started = time.perf_counter()
        handle, photo = await compute(store.resolve, image)
        if choice.name == "local":
            made = await compute(generate_prompt, photo.view(), item_name, anomaly_type)
            answer = Answer(made, 0.0, 0)
        else:
            answer = await write_prompt(photo.view(), item_name, anomaly_type, choice)
        return Prompt(
            **answer.value.model_dump(),
            notes=notes_on_price([choice]),
            image=handle,
            backend=choice.name,
            model=backend.model,
            cost_usd=answer.cost_usd,
            seconds=round(time.perf_counter() - started, 3),
        )

    return [make_tool(prompt_gen, title="Write an editing prompt", read_only=True, structured=True, backend=backend)]


SPEC = ToolSpec("prompt_gen", role="prompter", backends=("local", "gemini", "openai"), build=tools)
