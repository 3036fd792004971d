"""image_gen by OpenAI's image models, or by a server with the same API such as vLLM-Omni (``--editor openai``).

At OpenAI a region travels as a mask; other servers get it in words, and a seed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from mcp_servers.backends import BackendChoice
from mcp_servers.errors import BackendError, FailureKind
from mcp_servers.image_gen.costs import cost_of
from mcp_servers.image_gen.editor import Edited, EditRequest
from mcp_servers.image_gen.geometry import Frame, closest_size, free_size
from mcp_servers.image_gen.pictures import cutout_png, from_base64, png_of
from mcp_servers.remote import ask, key_of
from mcp_servers.remote.access import service_of
from mcp_servers.remote.errors import unreadable
from mcp_servers.remote.openai_client import client

if TYPE_CHECKING:
    from openai.types import ImagesResponse

MODEL = "gpt-image-1.5"
SIZES = ((1024, 1024), (1536, 1024), (1024, 1536))
"""What gpt-image-1 models take; later ones take any size in multiples of 16."""
FIXED_SIZES = ("gpt-image-1", "chatgpt-image")
FAITHFUL = ("gpt-image-1.5",)
"""Models with the option to keep the input's details (the later ones always do)."""


class OpenAIEditor:
    """Edits by ``images.edit``."""

    takes_example = True

    def __init__(self, choice: BackendChoice) -> None:
        self.choice = choice
        self.model = choice.model or MODEL
        self.service = service_of("openai", choice)
        self.vendor = is_vendor(choice.base_url)
        self.takes_region, self.takes_seed = self.vendor, not self.vendor

    def frame(self, width: int, height: int) -> Frame:
        if self.vendor and self.model.startswith(FIXED_SIZES):
            return closest_size(width, height, SIZES)
        return free_size(width, height)

    async def edit(self, request: EditRequest) -> Edited:
        """One edit. Raises BackendError."""
        files = [("photo.png", png_of(request.photo), "image/png")]
        if request.example is not None:
            files.append(("example.png", png_of(request.example), "image/png"))
        options = self.options(request)
        async with client(self.choice) as openai:

            async def send() -> tuple[bytes, float | None]:
                response = await openai.images.edit(
                    image=files if len(files) > 1 else files[0], model=self.model, prompt=request.prompt, **options
                )
                return self.read(response)

            answered = await ask(send, self.service, self.choice, [key_of("openai", self.choice)])
        image, cost = answered.value
        return Edited(image, self.model, cost, answered.attempts)

    def options(self, request: EditRequest) -> dict[str, Any]:
        """What is sent besides pictures and prompt."""
        options: dict[str, Any] = {"n": 1, "size": f"{request.photo.shape[1]}x{request.photo.shape[0]}"}
        if not self.vendor:
            return options | {"response_format": "b64_json", "extra_body": {"seed": request.seed % 2**31}}
        options |= {"quality": "high", "output_format": "png", "background": "opaque"}
        if self.model.startswith(FAITHFUL):
            options["input_fidelity"] = "high"
        if request.region is not None:
            options["mask"] = ("mask.png", cutout_png(request.region), "image/png")
        return options

    def read(self, response: ImagesResponse) -> tuple[bytes, float | None]:
        """The picture and its cost. Raises BackendError where there is none."""
        if not hasattr(response, "data"):
            raise unreadable(self.service).error()
        usage = response.usage
        into, out = (usage.input_tokens, usage.output_tokens) if usage else (None, None)
        cost = cost_of(self.model, into, out, base_url=self.choice.base_url)
        encoded = response.data[0].b64_json if response.data else None
        if not encoded:
            text = f"{self.service} returned no picture: word the defect differently"
            raise BackendError(text, FailureKind.EMPTY, cost_usd=cost if usage and cost else 0.0)
        return from_base64(encoded, self.service, cost), cost


def is_vendor(base_url: str) -> bool:
    """Whether an address is OpenAI's own (or OpenAI's models at Azure)."""
    host = urlsplit(base_url).hostname or ""
    return not base_url or host.endswith((".openai.com", ".azure.com"))
