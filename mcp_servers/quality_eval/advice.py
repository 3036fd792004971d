"""The advice that a review may hold, in the words that policies understand, and joining reviews by it.

A policy without a model acts on these phrases alone; a review may explain each of them and say more.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

ADVICE: tuple[str, ...] = (
    "Introduce a visible defect",
    "Make the defect more pronounced",
    "Make the defect less pronounced",
    "Make the defect larger",
    "Make the defect smaller",
    "Move the defect onto the part",
    "Move the defect away from the outline",
    "Place the defect on the edge of the part",
    "Blend the border of the defect into the surrounding texture",
    "Keep the surface texture visible inside the defect",
    "Match the sharpness of the photo",
    "Match the grain of the photo",
    "Give the defect an elongated shape",
    "Give the defect a compact shape",
    "Make the defect darker than the surface",
    "Show light and shade only",
    "Give the defect the brown or orange of rust",
    "Give the defect no colour",
    "Leave everything outside the defect unchanged",
)

OPPOSITES: tuple[frozenset[str], ...] = (
    frozenset({"Make the defect more pronounced", "Make the defect less pronounced"}),
    frozenset({"Make the defect larger", "Make the defect smaller"}),
    frozenset({"Introduce a visible defect", "Make the defect less pronounced"}),
    frozenset({"Move the defect away from the outline", "Place the defect on the edge of the part"}),
    frozenset({"Give the defect an elongated shape", "Give the defect a compact shape"}),
    frozenset({"Give the defect the brown or orange of rust", "Give the defect no colour"}),
)
"""Advice that cannot be followed at once."""


def advice_in(text: str) -> list[str]:
    """The advice that a text holds, in its order there."""
    lowered = text.lower()
    found = [(lowered.find(phrase.lower()), phrase) for phrase in ADVICE if phrase.lower() in lowered]
    return [phrase for _, phrase in sorted(found)]


def contradiction(advice: Sequence[str]) -> str:
    """Two pieces of advice that exclude each other, in words; "" where all can be followed."""
    pair = next((pair for pair in OPPOSITES if pair <= set(advice)), None)
    return " and ".join(repr(phrase) for phrase in sorted(pair)) if pair else ""


def written(advice: Sequence[str], remarks: str) -> str:
    """A review: the advice as sentences, then the remarks, without sentences that hold advice of their own."""
    own = [sentence for sentence in sentences(remarks) if not advice_in(sentence)]
    return " ".join([*(f"{phrase}." for phrase in dict.fromkeys(advice)), *own])


def joined(reviews: Sequence[str]) -> str:
    """Several reviews as one, the most important first; a later one does not repeat or contradict an earlier one."""
    kept: list[str] = []
    given: list[str] = []
    for review in reviews:
        for sentence in sentences(review):
            advice = advice_in(sentence)
            known = [phrase for phrase in advice if phrase in given or contradiction([*given, phrase])]
            if not known and sentence not in kept:
                kept.append(sentence)
                given += advice
    return " ".join(kept)


def sentences(text: str) -> list[str]:
    """The sentences of a text."""
    return [part for part in re.split(r"(?<=[.!?])\s+", text.strip()) if part]
