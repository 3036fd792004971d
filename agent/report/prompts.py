"""Word-level differences between two editing prompts."""

from __future__ import annotations

import difflib
import re
from typing import Literal, TypeAlias

Change: TypeAlias = Literal["same", "added", "removed"]

_LONGEST = 3000
"""Words beyond which two prompts are shown one after the other: comparing takes time that grows with the square."""


def word_changes(before: str, after: str) -> list[tuple[Change, str]]:
    """Split two texts into runs of kept, removed and added words.

    The runs that are not "removed" join to ``after``, those that are not "added" to ``before`` (except for the
    white space, which follows ``after`` in kept runs).
    """
    old, new = _words(before), _words(after)
    if len(old) + len(new) > _LONGEST:
        return [("removed", before), ("added", after)]
    matcher = difflib.SequenceMatcher(a=[w.strip() for w in old], b=[w.strip() for w in new], autojunk=False)
    changes: list[tuple[Change, str]] = []
    for tag, a0, a1, b0, b1 in matcher.get_opcodes():
        if tag == "equal":
            changes.append(("same", "".join(new[b0:b1])))
            continue
        if a1 > a0:
            changes.append(("removed", "".join(old[a0:a1])))
        if b1 > b0:
            changes.append(("added", "".join(new[b0:b1])))
    return changes


def _words(text: str) -> list[str]:
    """Words and marks, each with the white space that follows it."""
    return re.findall(r"^\s+|\w+\s*|[^\w\s]\s*", text)
