"""The words in which an editor is told what it cannot be given otherwise: region, count, size, severity, example."""

from __future__ import annotations

import numpy as np

from mcp_servers.vision.types import Mask

FRAMING = (
    "Return the same photograph at the same framing and size: do not move, crop, zoom, recolour or sharpen it, and "
    "add no text, border or marker."
)
EXAMPLE = (
    "The second picture only shows what such a defect looks like on another part: take its kind, texture and colour "
    "from there, and nothing else."
)
COUNTS = ("", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")


def told(prompt: str, *, count: int, size: str, severity: str, region: Mask | None, example: bool) -> str:
    """The prompt with everything that the user asked for besides, as the editor gets it.

    ``region``: (H, W) bool in the frame of the picture that the editor sees.
    """
    sentences = [prompt.strip()]
    asked = []
    if count:
        asked.append("there is exactly one defect" if count == 1 else f"there are exactly {COUNTS[count]} defects")
    if size:
        asked.append(f"{'each' if count > 1 else 'the defect'} is {size} against the part")
    if severity:
        asked.append(f"the damage looks {severity}")
    if asked:
        sentences.append(f"Whatever is said above, {', '.join(asked)}.")
    if region is not None:
        sentences.append(f"Keep the whole defect {where(region)}.")
    if example:
        sentences.append(EXAMPLE)
    return " ".join([*sentences, FRAMING])


def where(region: Mask) -> str:
    """Where in the picture a region (H, W) lies, such as "in the upper left part of the picture, between ..."."""
    height, width = region.shape
    ys, xs = np.flatnonzero(region.any(axis=1)), np.flatnonzero(region.any(axis=0))
    left, right = xs[0] / width, (xs[-1] + 1) / width
    top, bottom = ys[0] / height, (ys[-1] + 1) / height
    down = third((top + bottom) / 2, ("upper", "", "lower"))
    across = third((left + right) / 2, ("left", "", "right"))
    part = " ".join(word for word in (down, across) if word) or "middle"
    percent = [f"{100 * value:.0f}%" for value in (left, right, top, bottom)]
    return (
        f"in the {part} part of the picture, between {percent[0]} and {percent[1]} of its width from the left and "
        f"between {percent[2]} and {percent[3]} of its height from the top"
    )


def third(position: float, words: tuple[str, str, str]) -> str:
    """The word for a position (0-1) in the first, the middle or the last third."""
    return words[min(2, int(3 * position))]
