"""Phrases of which thoughts are made: a mark described, a review understood, the step from one prompt to the next."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from evaluation.data import pick
from training.construction import words
from training.construction.mark import SLIM, Mark
from training.construction.prompting import framed_or_none, with_article

_TOUCHES = (
    "The surface texture", "The defect has", "Its border", "Only light", "Its colour", "No pixel", "The defect is long",
    "The defect is round", "The defect is plain",
)  # fmt: skip
"""How the sentences begin that refining adds to a prompt."""


def describe(mark: Mark) -> str:
    """A mark as a noun phrase."""
    shape = "patch" if mark.slim >= SLIM else "line" if mark.slim * mark.length < 0.03 else "band"
    if mark.area < 0.003 and mark.slim >= SLIM:
        shape = "spot"
    colour = mark.colour or ("dark" if mark.lighter < -2 else "light" if mark.lighter > 2 else "barely toned")
    how = {"faint": "faint, ", "mild": "soft, ", "moderate": "", "pronounced": "clear, ", "severe": "stark, "}[
        mark.severity
    ]
    many = mark.pieces > 1
    noun = f"{how}{colour} {shape}"
    head = (
        f"{'two' if mark.pieces == 2 else 'several'} {noun}{'es' if shape == 'patch' else 's'}"
        if many
        else with_article(noun)
    )
    edge = ", touching the outline" if mark.at_outline else ""
    if mark.across == "over most of it":
        return f"{head} over most of the part"
    run = f" running {mark.direction}" if mark.direction and not many else ""
    reach = f", reaching {mark.across}" if mark.across else ""
    return f"{head}{run} in the {mark.where} part{reach}{edge}"


def problems(review: str, rng: np.random.Generator | None = None) -> list[str]:
    """What a review objects to, in the words of the picture, most important first."""
    found: dict[int, tuple[str, ...]] = {}
    lowered = review.lower()
    for advice, ways in words.ADVICE.items():
        at = lowered.find(advice)
        if at >= 0:
            found.setdefault(at, ways)
    return [pick(found[at], rng) if rng is not None else found[at][0] for at in sorted(found)]


def changes(before: str, after: str, target: Mark | None, fact: str) -> list[str]:
    """What the second of two prompts asks otherwise, as verb phrases."""
    said = []
    old, new = framed_or_none(before), framed_or_none(after)
    if new and not old:
        said.append(f"name the extent and the strength ({new.size}, {new.severity})")
    if new and old:
        if old.severity != new.severity:
            said.append(f"change the strength from {old.severity} to {new.severity}")
        if old.size != new.size:
            said.append(f"make it {new.size} instead of {old.size}")
        if old.place != new.place:
            said.append(f"put it on {new.place}")
    if target is not None:
        form = [f"that it runs {target.direction}"] if target.direction else []
        form += [f"that it is {target.colour}"] if target.colour else []
        form += [f"that it is {target.tone} than the surface"] if target.tone[0] != "a" and not form else []
        said.append(f"state {' and '.join(form) or 'its extent and form'}")
    elif fact and fact in after and fact not in before:
        said.append("take that over in the wording")
    added = [text for text in re.split(r"(?<=\.) ", after) if text.startswith(_TOUCHES) and text not in before]
    if added:
        said.append(f'add "{added[0]}"')
    return said or ["repeat the wish in other words"]


def listed(items: Sequence[str]) -> str:
    """ "a, b and c"; needs one item at least."""
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"
