"""image_gen by Gemini's image models (``--editor gemini``): takes reference pictures, no mask."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mcp_servers.backends import BackendChoice
from mcp_servers.errors import BackendError, FailureKind
from mcp_servers.image_gen.costs import cost_of
from mcp_servers.image_gen.editor import Edited, EditRequest
from mcp_servers.image_gen.geometry import Frame, closest_size, size_of
from mcp_servers.image_gen.pictures import png_of
from mcp_servers.remote import ask, key_of
from mcp_servers.remote.access import service_of
from mcp_servers.remote.gemini import client, ended_with, raise_if_refused

if TYPE_CHECKING:
    from google.genai.types import GenerateContentResponse

MODEL = "gemini-3.1-flash-image"
RATIOS = ("1:1", "2:3", "3:2", "3:4", "4:3", "4:5", "5:4", "9:16", "16:9", "21:9")
"""Proportions that the API takes."""


class GeminiEditor:
    """Edits by ``generate_content`` with a picture and a prompt."""

    takes_region, takes_example, takes_seed = False, True, True

    def __init__(self, choice: BackendChoice) -> None:
        self.choice = choice
        self.model = choice.model or MODEL
        self.service = service_of("gemini", choice)

    def frame(self, width: int, height: int) -> Frame:
        return closest_size(width, height, [size_of(ratio) for ratio in RATIOS])

    async def edit(self, request: EditRequest) -> Edited:
        """One edit. Raises BackendError."""
        from google.genai import types

        pictures = [request.photo, *([request.example] if request.example is not None else [])]
        parts: list[Any] = [types.Part.from_bytes(data=png_of(picture), mime_type="image/png") for picture in pictures]
        size = (request.photo.shape[1], request.photo.shape[0])
        config = types.GenerateContentConfig(
            response_modalities=["IMAGE"],
            image_config=types.ImageConfig(aspect_ratio=ratio_of(size), image_size="1K"),
            seed=request.seed % 2**31,
        )
        async with client(self.choice) as gemini:

            async def send() -> tuple[bytes, float | None]:
                response = await gemini.models.generate_content(
                    model=self.model, contents=[*parts, request.prompt], config=config
                )
                return self.read(response)

            answered = await ask(send, self.service, self.choice, [key_of("gemini", self.choice)])
        image, cost = answered.value
        return Edited(image, self.model, cost, answered.attempts)

    def read(self, response: GenerateContentResponse) -> tuple[bytes, float | None]:
        """The picture and its cost. Raises BackendError where it was refused or there is none."""
        usage = response.usage_metadata
        used = usage.prompt_token_count if usage else None
        raise_if_refused(response, self.service, cost_of(self.model, used, None, images=0) or 0.0)
        for candidate in response.candidates or []:
            for part in (candidate.content.parts if candidate.content else None) or []:
                if part.inline_data and part.inline_data.data and not part.thought:
                    made = usage.candidates_token_count if usage else None
                    return part.inline_data.data, cost_of(self.model, used, made)
        text = f"{self.service} returned no picture ({ended_with(response)}): word the defect differently"
        raise BackendError(text, FailureKind.EMPTY, cost_usd=cost_of(self.model, used, None, images=0) or 0.0)


def ratio_of(size: tuple[int, int]) -> str:
    """The API's name for the proportions of a size that `GeminiEditor.frame` chose."""
    return min(RATIOS, key=lambda ratio: abs(size_of(ratio)[0] - size[0]) + abs(size_of(ratio)[1] - size[1]))
