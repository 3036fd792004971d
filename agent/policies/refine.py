"""Refine of Algorithm 1, without a model: rewrites an editing prompt as a review asks.

The review's imperative sentences are mapped to changes of the prompt's own words: one step along the size or
severity ladder, another place, or a sentence on how the defect sits in the surface. Everything stays ordinary
English, so that any image editor understands the result and a reader can see what changed and why.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

SIZES = ("tiny", "small", "medium-sized", "large", "very large")
SEVERITIES = ("faint", "mild", "moderate", "pronounced", "severe")

_STRENGTH = re.compile(
    rf"(?P<head>[Tt]he defect is )(?P<size>{'|'.join(SIZES)}) and (?P<severity>{'|'.join(SEVERITIES)})\b"
)
_PLACE = re.compile(
    r"(?P<head>\AUsing the provided image, change only )(?P<place>.+?)(?P<tail> to introduce )", re.DOTALL
)
_CLOSING = re.compile(r"(?=(?:Everything|Leave|Keep) [^.]*\.?\s*\Z)")


@dataclass(frozen=True, slots=True)
class Refinement:
    """A rewritten prompt and what was changed, in words; no changes where the review asked for none."""

    prompt: str
    changes: tuple[str, ...]


def step(prompt: str, size: int = 0, severity: int = 0) -> Refinement:
    """Move the prompt's size and severity words along their ladders (steps may be negative).

    Where the prompt does not hold the sentence "The defect is SIZE and SEVERITY" it is added.
    """
    match = _STRENGTH.search(prompt)
    if match is None:
        prompt = insert(prompt, "The defect is small and moderate.")
        match = _STRENGTH.search(prompt)
        assert match is not None
    changes = []
    words = []
    for name, ladder, by in (("size", SIZES, size), ("severity", SEVERITIES, severity)):
        at = ladder.index(match[name])
        to = min(max(at + by, 0), len(ladder) - 1)
        words.append(ladder[to])
        if to != at:
            changes.append(f"{ladder[at]} -> {ladder[to]}")
    new = f"{match['head']}{words[0]} and {words[1]}"
    return Refinement(prompt[: match.start()] + new + prompt[match.end() :], tuple(changes))


def move(prompt: str, place: str) -> Refinement:
    """Name another place in the prompt's first clause."""
    match = _PLACE.search(prompt)
    if match is None or match["place"] == place:
        return Refinement(prompt, ())
    moved = prompt[: match.start("place")] + place + prompt[match.end("place") :]
    return Refinement(moved, (f"{match['place']} -> {place}",))


def insert(prompt: str, sentence: str) -> str:
    """Add a sentence before the closing one (which says that everything else stays); once only."""
    if sentence in prompt:
        return prompt
    match = _CLOSING.search(prompt)
    if match is None:
        return f"{prompt.rstrip()} {sentence}"
    return f"{prompt[: match.start()].rstrip()} {sentence} {prompt[match.start() :]}"


def _say(sentence: str) -> Callable[[str, str], Refinement]:
    def change(prompt: str, item_name: str) -> Refinement:
        new = insert(prompt, sentence)
        return Refinement(new, (f'added "{sentence}"',) if new != prompt else ())

    return change


_ADVICE: tuple[tuple[str, Callable[[str, str], Refinement]], ...] = (
    ("introduce a visible defect", lambda p, _: step(p, size=1, severity=2)),
    ("make the defect more pronounced", lambda p, _: step(p, severity=1)),
    ("make the defect less pronounced", lambda p, _: step(p, severity=-1)),
    ("make the defect larger", lambda p, _: step(p, size=1)),
    ("make the defect smaller", lambda p, _: step(p, size=-1)),
    ("move the defect onto the part", lambda p, item: move(p, f"the middle of the {item}'s surface")),
    ("move the defect away from the outline", lambda p, item: move(p, f"the inner surface of the {item}")),
    ("place the defect on the edge of the part", lambda p, item: move(p, f"the outer edge of the {item}")),
    ("blend the border of the defect", _say("Its border blends softly into the surrounding texture.")),
    ("keep the surface texture visible", _say("The surface texture stays visible inside the defect.")),
    ("match the sharpness of the photo", _say("The defect has the same sharpness as the photo.")),
    ("match the grain of the photo", _say("The defect has the same grain as the photo.")),
    ("give the defect an elongated shape", _say("The defect is long and thin.")),
    ("give the defect a compact shape", _say("The defect is round and compact.")),
    ("make the defect darker", lambda p, _: step(p, severity=1)),
    ("show light and shade only", _say("Only light and shade change, never the material's own colour.")),
    ("give the defect the brown or orange of rust", _say("Its colour is the brown or orange of rust.")),
    ("give the defect no colour", _say("The defect is plain grey, as the photo is.")),
    ("leave everything outside the defect unchanged", _say("No pixel outside the defect changes.")),
)


def refine(prompt: str, review: str, item_name: str) -> Refinement:
    """Apply every piece of advice that the review holds, in the review's order."""
    lowered = review.lower()
    asked = [(lowered.find(advice), change) for advice, change in _ADVICE if advice in lowered]
    changes: list[str] = []
    for _, change in sorted(asked, key=lambda pair: pair[0]):
        refinement = change(prompt, item_name)
        prompt = refinement.prompt
        changes += refinement.changes
    return Refinement(prompt, tuple(changes))
