"""What makes a log one that an episode wrote: its first and last line, its numbering, and the types of its fields.

Whoever reads a session relies on this: training would learn a conversation with a hole in it without a murmur.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

Check: TypeAlias = Callable[[Any], bool]

AFTER_THE_END = frozenset({"reward"})
"""Event types that may be added to a session that has ended."""
_SHA256 = re.compile(r"[0-9a-f]{64}")


def fault(events: Sequence[Mapping[str, Any]]) -> tuple[int, str] | None:
    """The first line (from 1) that no episode would have written there, and what is wrong; None where all is well.

    Lines are numbered without a gap (``seq`` from 0), the first and no other is ``session_start``, and nothing but
    rewards follows the one ``session_end``. Fields may be missing, not of another type.
    """
    ended = False
    for number, event in enumerate(events):
        kind, seq = event["type"], event.get("seq")
        if seq != number or isinstance(seq, bool):
            return number + 1, f"its seq is {_short(seq)}, not {number}: lines are missing, doubled or out of order"
        if (kind == "session_start") != (number == 0):
            return number + 1, f"a log has one session_start, its first line, and this is {_short(kind)}"
        if ended and kind not in AFTER_THE_END:
            return number + 1, f"only rewards follow session_end, and this is {_short(kind)}"
        ended = ended or kind == "session_end"
        for name, (fits, wanted) in _FIELDS.get(kind, {}).items():
            if event.get(name) is not None and not fits(event[name]):
                return number + 1, f'"{name}" of {kind} is not {wanted}'
    return None


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:39] + "…"


def _text(value: Any) -> bool:
    return isinstance(value, str)


def _yes_or_no(value: Any) -> bool:
    return isinstance(value, bool)


def _object(value: Any) -> bool:
    return isinstance(value, dict)


def _number(value: Any) -> bool:
    """A finite number; one of more digits than a float holds is none."""
    try:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:
        return False


def _count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(text, str) for text in value)


def _images(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(image, dict) and isinstance(image.get("sha256"), str) and bool(_SHA256.fullmatch(image["sha256"]))
        for image in value
    )


def _task(value: Any) -> bool:
    return isinstance(value, dict) and all(
        fits(value[name])
        for name, fits in {
            **dict.fromkeys(("image", "item_name", "anomaly_type", "region", "example_image", "example_mask"), _text),
            **dict.fromkeys(("seed", "threshold", "max_images", "max_turns", "count", "margin"), _number),
        }.items()
        if name in value
    )


_TEXT, _OBJECT, _NUMBER = (_text, "text"), (_object, "an object"), (_number, "a number")
_COUNT, _IMAGES = (_count, "a number from 0"), (_images, "a list of images with their SHA-256")
_FIELDS: Mapping[str, Mapping[str, tuple[Check, str]]] = {
    "session_start": {
        "session_id": _TEXT,
        "task": (_task, "an object with a task's texts and numbers"),
        "policy": _OBJECT,
        "protocol_hash": _TEXT,
        "constructed": _OBJECT,
    },
    "message": {"role": _TEXT, "content": _TEXT, "images": _IMAGES},
    "tool_call": {"tool": _TEXT, "arguments": _OBJECT},
    "tool_result": {
        "tool": _TEXT,
        "ok": (_yes_or_no, "true or false"),
        "payload": _OBJECT,
        "images": _IMAGES,
        "error": _TEXT,
        "seconds": _NUMBER,
        "cost_usd": _NUMBER,
    },
    "reward": {"component": _TEXT, "value": _NUMBER, "flags": (_texts, "a list of texts"), "excluded": _TEXT},
    "session_end": {
        "stop_reason": _TEXT,
        "answer": _OBJECT,
        "error": _TEXT,
        "turns": _COUNT,
        "repairs": _COUNT,
        "seconds": _NUMBER,
        "cost_usd": _NUMBER,
    },
}
"""Type of every field that readers rely on, by event type; the words say it to people."""
