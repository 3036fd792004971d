"""The example of an edit: a photo that shows a real defect, and its mask."""

from __future__ import annotations

from mcp_servers.image_gen.local import Example, ExampleError
from mcp_servers.image_gen.marks import marked
from mcp_servers.store import Store


def read_example(image: str, mask: str, store: Store) -> Example | None:
    """The example that two image references name, None where both are empty.

    Bright pixels of the mask are the defect (see `marked`). Raises ExampleError where one of the two is missing, or
    where no defect can be taken from them; ImageError where one cannot be read.
    """
    if not image.strip() and not mask.strip():
        return None
    if not mask.strip():
        raise ExampleError("example_image needs example_mask: give the mask of its defect (bright pixels = defect)")
    if not image.strip():
        raise ExampleError("example_mask needs example_image: give the photo whose defect it marks")
    _, photo = store.resolve(image)
    _, drawn = store.resolve(mask)
    return Example(photo.view(), marked(drawn, "example_mask"))
