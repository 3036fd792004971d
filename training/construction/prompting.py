"""Editing prompts of constructed trajectories: the real defect as it is, and simpler wishes that fall short of it.

All keep the frame in which prompt_gen writes ("Using the provided image, change only PLACE to introduce DEFECT. The
defect is SIZE and SEVERITY in strength. ... Everything else ...").
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from agent.policies.planner import SIDES
from agent.policies.refine import SEVERITIES, SIZES, insert, move, step
from training.construction.mark import SLIM, Mark

_FRAME = re.compile(
    r"Using the provided image, change only (?P<place>.+?) to introduce (?P<defect>.+?)\. "
    rf"The defect is (?P<size>{'|'.join(SIZES)}) and (?P<severity>{'|'.join(SEVERITIES)})\b[^.]*\. (?P<rest>.+)\Z",
    re.DOTALL,
)
REST = "Everything else stays exactly as it is."
SOFT = "Its border blends softly into the surrounding texture, fading out."
THIN, ROUND = "The defect is long and thin.", "The defect is round and compact."
_ELSEWHERE = re.compile(r"\b(?:whole|half|corner|end|cent(?:re|er)|middle|from one edge)\b")
"""Words of prompt_gen's place that say where on the part, and so cannot stand beside the real place."""
_TINTS = re.compile(r"\b(?:dark|pale|bright|reddish brown) ")


@dataclass(frozen=True, slots=True)
class Framed:
    """A prompt of prompt_gen in its pieces; ``rest`` begins with how the defect meets the material."""

    place: str
    defect: str
    size: str
    severity: str
    rest: str


@dataclass(frozen=True, slots=True)
class Wish:
    """An editing prompt, and in a word what is wrong with it on purpose.

    ``flaw``: "" (nothing), "weak", "strong", "place", "soft" (border), "wide" (extent), "shape" or "bare".
    """

    prompt: str
    flaw: str


def framed(prompt: str) -> Framed:
    """Take a prompt apart. Raises ValueError where it is not written in the frame."""
    match = _FRAME.match(prompt)
    if match is None:
        raise ValueError(f"the prompt is not in the frame that prompt_gen's local backend writes: {prompt[:80]!r}")
    return Framed(**match.groupdict())


def framed_or_none(prompt: str) -> Framed | None:
    """The prompt's pieces; None for one that names neither size nor strength."""
    try:
        return framed(prompt)
    except ValueError:
        return None


def real_prompt(base: str, mark: Mark, item: str) -> str:
    """The prompt that describes the real defect: its place, size, direction, colour and form.

    base: prompt_gen's prompt for the photo, whose words on material and light are kept.
    """
    frame = framed(base)
    return (
        f"Using the provided image, change only {place_of(frame, mark, item)} to introduce {_defect(frame, mark)}. "
        f"The defect is {mark.size} and {mark.severity} in strength. {form(mark)} {frame.rest}"
    )


def place_of(frame: Framed, mark: Mark, item: str) -> str:
    """PLACE of the real defect, in prompt_gen's words for the surface where they do not contradict it."""
    name = item.replace("_", " ")
    if mark.across == "over most of it":
        return f"the whole surface of the {name}"
    spot = f"{mark.where} edge" if mark.at_outline and mark.where != "central" else f"{mark.where} part"
    if _ELSEWHERE.search(frame.place) or mark.at_outline:
        return f"the {spot} of the {name}"
    return f"{frame.place} in the {spot} of the {name}"


def form(mark: Mark) -> str:
    """One sentence on extent, shape and tone."""
    reach = f"reaches {mark.across}" if mark.across else f"spans about {_share(mark.length)}"
    many = f"It consists of {_number(mark.pieces)} separate marks, the largest of which" if mark.pieces > 1 else "It"
    shape = "as a narrow line" if mark.slim < 0.12 else "long and narrow" if mark.slim < 0.3 else "compact in shape"
    tone = f"{mark.tone} than the surface around it" if mark.tone[0] != "a" else "about as light as the surface"
    return f"{many} {reach}, {shape}, {tone}."


def simple_wishes(base: str, mark: Mark, item: str, anomaly_type: str, rng: np.random.Generator) -> list[Wish]:
    """First prompts that fall short, in an order drawn from ``rng``; prompt_gen's own prompt is among them."""
    name = item.replace("_", " ")
    kind = anomaly_type.replace("_", " ")
    others = [side for side in SIDES if side not in mark.where]
    elsewhere = f"the {others[int(rng.integers(len(others)))]} part of the {name}"
    bare = f"Using the provided image, change only the {name} to introduce {with_article(kind)} defect. {REST}"
    wishes = [
        Wish(base, ""),
        Wish(step(base, -1, -2).prompt, "weak"),
        Wish(step(base, -2, -3).prompt, "weak"),
        Wish(step(base, 1, 2).prompt, "strong"),
        Wish(step(base, 2, 3).prompt, "strong"),
        Wish(step(move(base, elsewhere).prompt, -1, -1).prompt, "place"),
        Wish(step(move(base, f"the outer edge of the {name}").prompt, 0, 1).prompt, "place"),
        Wish(step(base, -4, -4).prompt, "weak"),
        Wish(insert(base, SOFT), "soft"),
        Wish(insert(step(base, -1, -2).prompt, SOFT), "soft"),
        Wish(step(base, 3, -1).prompt, "wide"),
        Wish(insert(base, ROUND if mark.slim < SLIM else THIN), "shape"),
        Wish(insert(step(base, -1, -1).prompt, ROUND if mark.slim < SLIM else THIN), "shape"),
        Wish(bare, "bare"),
    ]
    unique = {wish.prompt: wish for wish in reversed(wishes)}
    ordered = list(unique.values())
    return [ordered[int(n)] for n in rng.permutation(len(ordered))]


def complex_wishes(first: str, refined: str, fact: str, rng: np.random.Generator) -> list[str]:
    """Second prompts, with a fact from the references: what the review asked for, wholly or in part.

    first, refined: the first prompt as it was and as its review would have it.
    """
    steps = [(0, 0), (0, -1), (-1, 0), (0, 1), (1, 0)]
    wishes = []
    for base in (refined, first):
        told = insert(base, fact) if fact else base
        wishes += [step(told, *by).prompt if any(by) else told for by in steps]
    order = [0, *(1 + int(n) for n in rng.permutation(len(wishes) - 1))]
    return [wish for wish in dict.fromkeys(wishes[n] for n in order) if wish != first]


def fact_of(knowledge: Mapping[str, Any]) -> str:
    """A sentence of the first passage of knowledge_retrieval's result that suits a prompt, "" where none does.

    Only the first two count: further down the pages tell what a fake looks like.
    """
    passages = knowledge.get("passages") or []
    text = str(passages[0].get("text", "")) if passages else ""
    sentences = re.split(r"(?<=[.!?])\s+", text.strip())[:2]
    return next((sentence for sentence in sentences if 20 <= len(sentence) <= 260), "")


def with_article(noun: str) -> str:
    """The noun with its indefinite article."""
    return f"{'an' if re.match('[aeio]|un(?!i)', noun) else 'a'} {noun}"


def _defect(frame: Framed, mark: Mark) -> str:
    """The noun, with the colour and the direction that the real defect has."""
    noun = re.sub(r", (?:running|[\w ,-]+ in colour).*\Z", "", frame.defect)
    if mark.tone in ("lighter", "much lighter") or mark.colour:
        noun = _TINTS.sub("", noun)
    noun = re.sub(r"\Aan? (.+)", lambda match: with_article(match[1]), noun, flags=re.DOTALL)
    colour = f", {mark.colour} in colour" if mark.colour and mark.colour not in noun else ""
    direction = f", running {mark.direction}" if mark.direction else ""
    return f"{noun}{colour}{direction}"


def _share(length: float) -> str:
    """A length in part widths, in words."""
    steps = ((0.03, "a fiftieth"), (0.07, "a twentieth"), (0.15, "a tenth"), (0.22, "a fifth"), (0.29, "a quarter"),
             (0.42, "a third"), (0.58, "half"), (0.71, "two thirds"), (0.87, "three quarters"))  # fmt: skip
    word = next((word for most, word in steps if length < most), "")
    return f"{word} of the part's width" if word else "the part's whole width"


def _number(count: int) -> str:
    words = ("no", "one", "two", "three", "four", "five", "six")
    return words[count] if count < len(words) else "many"
