"""image_gen by xAI's Grok Imagine (``--editor xai``): one picture and a prompt; no mask, no seed."""

from __future__ import annotations

from typing import Any

from mcp_servers.backends import BackendChoice
from mcp_servers.errors import BackendError, FailureKind
from mcp_servers.image_gen.costs import cost_of
from mcp_servers.image_gen.editor import Edited, EditRequest
from mcp_servers.image_gen.geometry import Frame, closest_size, size_of
from mcp_servers.image_gen.pictures import data_uri, from_base64
from mcp_servers.remote import ask, key_of
from mcp_servers.remote.access import service_of
from mcp_servers.remote.errors import unreadable
from mcp_servers.remote.xai import cancellable, client

MODEL = "grok-imagine-image"
RATIOS = ("1:1", "2:3", "3:2", "3:4", "4:3", "9:16", "16:9", "1:2", "2:1", "9:19.5", "19.5:9", "9:20", "20:9")
"""Proportions that the API takes."""


class XaiEditor:
    """Edits by ``image.sample`` with a picture to start from."""

    takes_region, takes_example, takes_seed = False, False, False

    def __init__(self, choice: BackendChoice) -> None:
        self.choice = choice
        self.model = choice.model or MODEL
        self.service = service_of("xai", choice)

    def frame(self, width: int, height: int) -> Frame:
        return closest_size(width, height, [size_of(ratio) for ratio in RATIOS])

    async def edit(self, request: EditRequest) -> Edited:
        """One edit. Raises BackendError."""
        picture, shape = data_uri(request.photo), request.photo.shape
        ratio: Any = min(RATIOS, key=lambda name: abs(size_of(name)[0] - shape[1]) + abs(size_of(name)[1] - shape[0]))
        async with client(self.choice) as xai:

            async def send() -> tuple[bytes, float | None]:
                try:
                    response = await cancellable(
                        xai.image.sample(
                            request.prompt,
                            model=self.model,
                            image_url=picture,
                            image_format="base64",
                            aspect_ratio=ratio,
                            resolution="1k",
                        )
                    )
                except IndexError as error:  # how the SDK says that there is no picture
                    text = f"{self.service} returned no picture: word the defect differently"
                    raise BackendError(text, FailureKind.EMPTY) from error
                return self.read(response)

            answered = await ask(send, self.service, self.choice, [key_of("xai", self.choice)])
        image, cost = answered.value
        return Edited(image, self.model, cost, answered.attempts)

    def read(self, response: Any) -> tuple[bytes, float | None]:
        """The picture and its cost. Raises BackendError where it was refused or cannot be read."""
        cost = response.cost_usd
        if cost is None:
            cost = cost_of(self.model, None, None)
        if not response.respect_moderation:
            text = f"{self.service} refused for policy reasons (moderation): word it more neutrally"
            raise BackendError(text, FailureKind.REFUSED, cost_usd=response.cost_usd or 0.0)
        try:
            encoded = response.base64
        except ValueError as error:
            raise unreadable(self.service).error(response.cost_usd or 0.0) from error
        return from_base64(encoded, self.service, cost), cost
