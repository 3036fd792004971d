"""What a remote editor is: one request, one picture back. The pipeline around it (remote.py) is the same for all.

An editor is shown the photo at a size that it works at (geometry.py). What it hands back is not trusted: only the
defect that it shows is taken over (composite_back.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from mcp_servers.image_gen.geometry import Frame
from mcp_servers.vision.types import Image, Mask


@dataclass(frozen=True, slots=True)
class EditRequest:
    """What an editor is asked.

    ``photo``: (H, W, 3) uint8 at the editor's size; ``region``: (H, W) bool of the same size, where the defect may go,
    or None; ``example``: a picture (h, w, 3) uint8 of a real defect, only for editors that take one. ``prompt`` already
    says in words what the editor cannot be given otherwise.
    """

    photo: Image
    prompt: str
    seed: int
    region: Mask | None = None
    example: Image | None = None


@dataclass(frozen=True, slots=True)
class Edited:
    """What came back: the image file's bytes, the model that made it, its cost (None: unknown), the requests made."""

    image: bytes
    model: str
    cost_usd: float | None
    attempts: int


class Editor(Protocol):
    """One image editor behind an API."""

    model: str
    service: str
    """How messages name it."""
    takes_region: bool
    takes_example: bool
    takes_seed: bool

    def frame(self, width: int, height: int) -> Frame:
        """At which size a photo of ``width`` x ``height`` px is shown to the editor."""
        ...

    async def edit(self, request: EditRequest) -> Edited:
        """One edit. Raises BackendError."""
        ...
