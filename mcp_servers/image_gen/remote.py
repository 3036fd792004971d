"""One call of image_gen carried out by a remote editor: in its frame, in its words, and back onto the original photo.

Whatever the editor did to the rest of the picture is undone (composite_back.py), so the tool's promise holds for every
backend: the photo's own size and depth, and every pixel outside the defect identical.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import cv2
import numpy as np
from mcp_types import CallToolResult

from mcp_servers.calls import tell
from mcp_servers.errors import BackendError, ToolInputError
from mcp_servers.image_gen.composite_back import Isolated, isolate
from mcp_servers.image_gen.editor import Edited, Editor, EditRequest
from mcp_servers.image_gen.example import read_example
from mcp_servers.image_gen.geometry import Frame
from mcp_servers.image_gen.pictures import around, pixels_of
from mcp_servers.image_gen.region import read_region
from mcp_servers.image_gen.told import told
from mcp_servers.image_gen.wish import Wish
from mcp_servers.images import Photo
from mcp_servers.serving import image_result
from mcp_servers.store import Store
from mcp_servers.threads import compute
from mcp_servers.vision.types import Mask

COARSE = 1.5
"""From this many photo pixels to one of the editor's, the note says so."""
LOPSIDED = 0.05
"""Difference in proportions from which a returned picture was cropped or squeezed, and the note says so."""


@dataclass(frozen=True, slots=True)
class Order:
    """A call ready for the editor: the photo with its handle, the region (H, W) in it, and the request itself."""

    target: str
    photo: Photo
    region: Mask | None
    frame: Frame
    request: EditRequest


async def edit_remotely(store: Store, wish: Wish, editor: Editor, backend: str) -> CallToolResult:
    """Have the defect drawn and lay it over the photo. Raises ToolInputError and BackendError."""
    started = time.perf_counter()
    order = await compute(prepare, store, wish, editor, backend)
    await tell(1, 3, f"waiting for {editor.service}")
    edited = await editor.edit(order.request)
    await tell(2, 3, "laying the defect over the photo")
    try:
        result, isolated, notes = await compute(take_over, order, edited, editor)
    except BackendError as error:
        cost = edited.cost_usd or 0.0
        raise BackendError(str(error), error.kind, cost_usd=cost, attempts=edited.attempts) from error
    handle = await compute(store.put, result)
    if edited.cost_usd is None:
        notes.append(f"the price of {edited.model} is not known: name it in a file for ANOMALY_AGENT_PRICES")
    facts = {
        "image": handle,
        "target_image": order.target,
        "size": [result.width, result.height],
        "backend": backend,
        "model": edited.model,
        "seed": wish.seed,
        "told": order.request.prompt,
        "changed": {
            "box": list(cv2.boundingRect((isolated.alpha > 0).astype(np.uint8))),
            "area_fraction": round(float((isolated.alpha > 0).mean()), 6),
        },
        "integrity": "composite",
        "notes": notes,
        "cost_usd": None if edited.cost_usd is None else round(edited.cost_usd, 6),
        "attempts": edited.attempts,
        "seconds": round(time.perf_counter() - started, 3),
    }
    return image_result(facts, result.preview(), handle, "Synthesized anomaly image")


def prepare(store: Store, wish: Wish, editor: Editor, backend: str) -> Order:
    """Read what the call names and put it into the editor's frame and words. Raises ToolInputError."""
    target, photo = store.resolve(wish.target_image)
    region = read_region(wish.region, photo, store)
    example = read_example(wish.example_image, wish.example_mask, store)
    if not wish.prompt.strip():
        raise ToolInputError("the prompt is empty: say what to change, as prompt_gen does")
    if example is not None and not editor.takes_example:
        raise ToolInputError(f"the editor {backend} takes no example: leave example_image out, or use another editor")
    frame = editor.frame(photo.width, photo.height)
    seen = frame.enter_mask(region) if region is not None else None
    if seen is not None and not seen.any():
        raise ToolInputError(f"the region is too small for the editor {backend}: give a larger one")
    prompt = told(
        wish.prompt,
        count=wish.count,
        size=wish.size,
        severity=wish.severity,
        region=seen,
        example=example is not None,
    )
    request = EditRequest(
        photo=frame.enter(photo.view()),
        prompt=prompt,
        seed=wish.seed,
        region=seen if editor.takes_region else None,
        example=around(example.rgb, example.mask) if example is not None else None,
    )
    return Order(target, photo, region, frame, request)


def take_over(order: Order, edited: Edited, editor: Editor) -> tuple[Photo, Isolated, list[str]]:
    """The photo with the returned picture's defect in it, and what its user should know. Raises BackendError."""
    returned = pixels_of(edited.image, editor.service)
    isolated = isolate(order.photo.view(), order.frame.leave(returned), order.region)
    notes = list(isolated.notes)
    sent = order.frame.size
    squeezed = returned.shape[1] / returned.shape[0] * sent[1] / sent[0]
    if abs(squeezed - 1) > LOPSIDED:
        notes.append(f"the editor was sent {sent[0]}x{sent[1]} and returned {returned.shape[1]}x{returned.shape[0]}")
    coarser = order.frame.padded[0] / returned.shape[1]
    if coarser > COARSE:
        notes.append(f"the editor's picture is {coarser:.1f} times coarser than the photo: the defect is less sharp")
    if order.request.seed and not editor.takes_seed:
        notes.append("this editor takes no seed: the same call may give another picture")
    return order.photo.composite(isolated.rgb, isolated.alpha), isolated, notes
