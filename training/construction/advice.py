"""Does the real defect answer a review? A trajectory must not go against the advice that its thoughts follow.

A review's advice on an attempt is compared with how the real defect differs from that attempt, in the picture and in
the words of the two prompts.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from agent.policies.refine import SEVERITIES, SIZES, refine, step
from training.construction.mark import Mark
from training.construction.prompting import framed, framed_or_none

_ANSWERED: dict[str, Callable[[Mark, Mark], bool]] = {
    "make the defect more pronounced": lambda attempt, real: real.contrast > 1.1 * attempt.contrast,
    "make the defect less pronounced": lambda attempt, real: real.contrast < attempt.contrast / 1.1,
    "make the defect larger": lambda attempt, real: real.length > 1.15 * attempt.length,
    "make the defect smaller": lambda attempt, real: real.area < attempt.area / 1.15,
    "make the defect darker": lambda attempt, real: real.lighter < attempt.lighter,
    "give the defect an elongated shape": lambda attempt, real: real.slim < attempt.slim,
    "give the defect a compact shape": lambda attempt, real: real.slim > attempt.slim,
    "place the defect on the edge of the part": lambda attempt, real: real.at_outline,
    "move the defect away from the outline:": lambda attempt, real: not real.at_outline or real.where != attempt.where,
    "give the defect no colour": lambda attempt, real: not real.colour,
}
"""Advice (its beginning, in lower case) to whether the real defect differs from the attempt in that sense."""
_STEPS = {
    "make the defect more pronounced": ("severity", 1),
    "make the defect less pronounced": ("severity", -1),
    "make the defect larger": ("size", 1),
    "make the defect smaller": ("size", -1),
}
_LOOKS = re.compile("keep the surface texture|match the|blend the border")
"""Advice on how the defect sits in the surface: it is taken over into the prompt as the planner does."""
_LADDERS = {"size": SIZES, "severity": SEVERITIES}


def answers(review: str, prompt: str, attempt: Mark | None, real: Mark) -> bool:
    """Whether a step from the ``attempt`` (None: nothing to be seen), made with ``prompt``, to the real defect is one
    that the review could have asked for."""
    lowered = review.lower()
    if attempt is not None and any(not true(attempt, real) for text, true in _ANSWERED.items() if text in lowered):
        return False
    before = framed_or_none(prompt)
    if before is None:
        return True
    for text, (ladder, by) in _STEPS.items():
        at = _LADDERS[ladder].index(getattr(before, ladder)) + by
        if text in lowered and not 0 <= at < len(_LADDERS[ladder]):
            return False
    return True


def reconciled(review: str, before: str, after: str) -> str:
    """The prompt ``after`` with its size and strength words moved beyond those of ``before`` where the review asks so,
    and with what it asks of texture, grain, sharpness and border.

    The words are relative: what was "moderate" and turned out too weak is asked for as "pronounced".
    """
    old = framed_or_none(before)
    if old is None:
        return after
    lowered = review.lower()
    for text, (ladder, by) in _STEPS.items():
        if text not in lowered:
            continue
        rungs = _LADDERS[ladder]
        wanted = min(max(rungs.index(getattr(old, ladder)) + by, 0), len(rungs) - 1)
        gap = wanted - rungs.index(getattr(framed(after), ladder))
        if gap * by > 0:
            after = step(after, **{ladder: gap}).prompt
    looks = " ".join(sentence for sentence in re.split(r"(?<=[.!?])\s+", review) if _LOOKS.match(sentence.lower()))
    return refine(after, looks, "").prompt


def responds(review: str, before: str, after: str, item: str) -> bool:
    """Whether the prompt ``after`` does something of what the review of ``before`` asks, and nothing against it."""
    advised = refine(before, review, item).prompt
    old, new, wanted = framed_or_none(before), framed_or_none(after), framed_or_none(advised)
    if advised == before or old is None or new is None or wanted is None:
        return True
    followed = [text in after for text in _sentences(advised) - _sentences(before)]
    for ladder, rungs in _LADDERS.items():
        was, now, asked = (rungs.index(getattr(frame, ladder)) for frame in (old, new, wanted))
        if (now - was) * (asked - was) < 0:
            return False
        followed.append((now - was) * (asked - was) > 0)
    followed.append(new.place == wanted.place != old.place)
    return any(followed)


def _sentences(prompt: str) -> set[str]:
    """Its sentences but those that hold place, size and strength."""
    return {text for text in re.split(r"(?<=\.) ", prompt) if not text.startswith(("Using", "The defect is"))}
