"""One call of image_gen carried out by the local renderer."""

from __future__ import annotations

import time

from mcp_types import CallToolResult

from mcp_servers.image_gen.example import read_example
from mcp_servers.image_gen.local import MODEL, render
from mcp_servers.image_gen.region import read_region
from mcp_servers.image_gen.wish import Wish
from mcp_servers.serving import image_result
from mcp_servers.store import Store


def edit_locally(store: Store, wish: Wish) -> CallToolResult:
    """Render the defect. Raises ToolInputError."""
    started = time.perf_counter()
    target, photo = store.resolve(wish.target_image)
    example = read_example(wish.example_image, wish.example_mask, store)
    rendering = render(
        photo.view(),
        wish.prompt,
        wish.seed,
        read_region(wish.region, photo, store),
        example=example,
        count=wish.count,
        size=wish.size,
        severity=wish.severity,
    )
    edited = photo.composite(rendering.rgb, rendering.alpha)
    handle = store.put(edited)
    facts = {
        "image": handle,
        "target_image": target,
        "size": [edited.width, edited.height],
        "backend": "local",
        "model": MODEL,
        "seed": wish.seed,
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
