"""What an editing prompt asks for: ``parse_prompt`` turns English into a ``DefectSpec``.

The prompt of this project has a fixed frame ("Using the provided image, change only PLACE to introduce
DEFECT. The defect is SIZE and SEVERITY. ... everything else stays ..."), but free text ("a tiny faint
scratch near the rim") is read as well. Words are looked up in ``lexicon.py``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

import numpy as np

from mcp_servers.errors import ToolInputError
from mcp_servers.image_gen.local import lexicon
from mcp_servers.knowledge.families import SEVERITIES, SIZES, Family
from mcp_servers.knowledge.words import family_of

STRENGTHS: tuple[float, ...] = (0.16, 0.34, 0.54, 0.78, 1.0)
"""Strength in (0, 1] of each word of the severity ladder."""

SIZE_RANGES: dict[Family, tuple[float, float]] = {
    Family.SCRATCH: (0.09, 0.75),
    Family.CRACK: (0.10, 0.80),
    Family.CUT: (0.11, 0.90),
    Family.HOLE: (0.036, 0.42),
    Family.DENT: (0.075, 0.60),
    Family.FOLD: (0.14, 1.00),
    Family.FRAY: (0.08, 0.75),
    Family.STAIN: (0.06, 0.75),
    Family.CONTAMINATION: (0.050, 0.45),
    Family.DISCOLORATION: (0.09, 1.00),
    Family.RUST: (0.06, 1.00),
    Family.BURN: (0.06, 0.60),
    Family.GLUE: (0.06, 0.55),
    Family.PRINT: (0.13, 0.50),
    Family.THREAD: (0.12, 0.70),
    Family.MISSING: (0.08, 0.55),
    Family.BROKEN_EDGE: (0.06, 0.62),
    Family.BEND: (0.10, 0.60),
    Family.MISPLACED: (0.10, 0.50),
    Family.SHORT: (0.085, 0.42),
    Family.OPEN: (0.055, 0.30),
}
"""Length of a tiny and of a very large defect, as a share of the part's extent (square root of its area)."""


class PromptNotUnderstood(ToolInputError):  # noqa: N818 - reads as a sentence where it is raised
    """No defect family can be read from the prompt; the message names the words that are understood."""


@dataclass(frozen=True, slots=True)
class Orientation:
    """Direction in which a defect runs: ``kind`` "angle" (``degrees`` counter-clockwise from horizontal),
    "diagonal" (either diagonal), "along" or "across" the surface's grain, "rim" (along the outline)."""

    kind: str
    degrees: float = 0.0


@dataclass(frozen=True, slots=True)
class DefectSpec:
    """What was read from a prompt.

    ``size`` and ``severity`` are ladder words; ``relative_size`` is the defect's length as a share of the part's
    extent, ``strength`` in (0, 1]. ``place`` holds keywords ("edge", "corner", "centre", "upper", "lower", "left",
    "right", "surface", "interior", "near_edge", "conductor", "end", "whole", "everywhere"). ``colours`` holds what
    the prompt offers ("red or blue"), of which ``in_one_colour`` picks; ``colour`` is sRGB 0-255 of the first, or
    None where the prompt names none. ``shapes`` holds words such as "hairline" or "jagged". ``rigid`` says that the
    prompt names a hard material, ``pliant`` one that drapes or tears. ``count`` is at least 1; ``clustered`` says
    that several defects sit close together.
    """

    family: Family
    size: str
    severity: str
    relative_size: float
    strength: float
    place: frozenset[str]
    orientation: Orientation | None
    colours: tuple[tuple[str, tuple[int, int, int]], ...]
    count: int
    clustered: bool
    shapes: frozenset[str]
    rigid: bool
    pliant: bool

    @property
    def colour(self) -> tuple[int, int, int] | None:
        """sRGB 0-255 of the defect."""
        return self.colours[0][1] if self.colours else None

    @property
    def colour_name(self) -> str:
        """The colour's words in the prompt, "" for none."""
        return self.colours[0][0] if self.colours else ""

    def in_one_colour(self, rng: np.random.Generator) -> DefectSpec:
        """The same defect in one of the colours that the prompt leaves open, each as likely."""
        return replace(self, colours=(self.colours[int(rng.integers(len(self.colours)))],)) if self.colours else self

    def summary(self) -> dict[str, str | int]:
        """What was understood, in a few plain words per aspect (for a tool's answer)."""
        words: dict[str, str | int] = {
            "family": self.family.value,
            "size": self.size,
            "severity": self.severity,
            "place": ", ".join(sorted(self.place)) or "anywhere on the part",
            "count": self.count,
        }
        if self.orientation is not None:
            turned = self.orientation.kind == "angle"
            words["orientation"] = f"{self.orientation.degrees:g} degrees" if turned else self.orientation.kind
        if self.colour_name:
            words["colour"] = self.colour_name
        if self.shapes:
            words["shape"] = ", ".join(sorted(self.shapes))
        return words


def parse_prompt(
    prompt: str, *, count: int = 0, size: str = "", severity: str = "", otherwise: Family | None = None
) -> DefectSpec:
    """Read an editing prompt.

    count, size, severity: used instead of what the prompt says, where given. otherwise: the family where none is
    named. Raises PromptNotUnderstood where no defect family is named.
    """
    text = _open_part(prompt)
    place_phrase, defect_phrase = _split(text)
    family = family_of(defect_phrase) or family_of(text) or otherwise
    if family is None:
        words = ", ".join(f.value.replace("_", " ") for f in Family)
        raise PromptNotUnderstood(f"no defect named in the prompt; say one of: {words}")
    said_size, said_severity = _ladders(text)
    size, severity = size or said_size, severity or said_severity
    low, high = SIZE_RANGES[family]
    shapes = frozenset(word for word, stems in lexicon.SHAPES.items() if re.search(stems, defect_phrase))
    if "pitted" in shapes and family is Family.HOLE:
        low, high = 2 * low, 1.8 * high  # a whole patch of pits
    share = SIZES.index(size) / (len(SIZES) - 1)
    said_count, clustered = (1, False) if "pitted" in shapes else _count(defect_phrase)
    return DefectSpec(
        family=family,
        size=size,
        severity=severity,
        relative_size=float(low * (high / low) ** share),
        strength=STRENGTHS[SEVERITIES.index(severity)],
        place=_place(place_phrase, defect_phrase),
        orientation=_orientation(defect_phrase),
        colours=_colours(_without_place(defect_phrase), lexicon.MATERIAL_WORDS.get(family, ())),
        count=count or said_count,
        clustered=clustered,
        shapes=shapes,
        rigid=bool(re.search(lexicon.RIGID, text)) and not re.search(lexicon.PLIANT, text),
        pliant=bool(re.search(lexicon.PLIANT, text)),
    )


def _open_part(prompt: str) -> str:
    """The prompt in lower case up to the clause that lists what must not change."""
    text = " ".join(prompt.lower().replace("’", "'").replace("_", " ").split())
    return re.split(lexicon.CLOSING, text, maxsplit=1)[0]


def _split(text: str) -> tuple[str, str]:
    """Place phrase and defect phrase; a prompt without the frame is all defect phrase.

    Behind the frame come sentences on material and light, whose words say nothing about the defect itself.
    """
    framed = re.search(
        r"change only (?P<place>.+?) (?:to|so as to|by|and) (?:introduc\w+|add\w*|show\w*|creat\w+|includ\w+|"
        r"mak\w+|plac\w+|giv\w+|hav\w+|insert\w*|depict\w*|appl\w+) (?P<defect>.+)",
        text,
    )
    if framed is None:
        return "", text
    sentences = re.split(r"(?<=[.;!]) +", framed["defect"])
    about = [s for n, s in enumerate(sentences) if n == 0 or re.match(lexicon.ABOUT_THE_DEFECT, s)]
    return framed["place"], " ".join(about)


def _ladders(text: str) -> tuple[str, str]:
    """Size and severity word; the fixed sentence "The defect is SIZE and SEVERITY" decides where it exists."""
    fixed = re.search(r"\bdefect is ([^.]*)", text)
    size = severity = None
    if fixed is not None:
        size, severity = _first(lexicon.SIZE_WORDS, fixed[1]), _first(lexicon.SEVERITY_WORDS, fixed[1])
    size = size or _first(lexicon.SIZE_WORDS, text) or "medium-sized"
    return size, severity or _first(lexicon.SEVERITY_WORDS, text) or "moderate"


def _first(table: dict[str, str], text: str) -> str | None:
    """Key of the pattern that occurs first in the text (the longest of those that start together)."""
    found = [(m.start(), -len(m[0]), key) for key, pattern in table.items() if (m := re.search(pattern, text))]
    return min(found)[2] if found else None


def _place(place_phrase: str, defect_phrase: str) -> frozenset[str]:
    """Place keywords. In the defect phrase only what follows a preposition is a place."""
    found = {key for key, pattern in lexicon.PLACES.items() if re.search(pattern, place_phrase)}
    for phrase in re.findall(lexicon.PLACE_CLAUSE, defect_phrase):
        found |= {key for key, pattern in lexicon.PLACES.items() if re.search(pattern, phrase)}
    if "near_edge" in found or "interior" in found or {"edge", "surface"} <= found:
        found.discard("edge")
    return frozenset(found)


def _without_place(defect_phrase: str) -> str:
    return re.sub(lexicon.PLACE_CLAUSE, " ", defect_phrase)


def _orientation(text: str) -> Orientation | None:
    degrees = re.search(r"(-?\d+(?:\.\d+)?)\s*(?:°|deg)", text)
    if degrees:
        return Orientation("angle", float(degrees[1]) % 180.0)
    for pattern, orientation in lexicon.ORIENTATIONS:
        if re.search(pattern, text):
            return Orientation(*orientation)
    return None


def _colours(text: str, not_meant: tuple[str, ...]) -> tuple[tuple[str, tuple[int, int, int]], ...]:
    """Names and sRGB of the first colour that is named and of those that follow it after a comma or "or"."""
    if re.search(lexicon.ANY_COLOUR, text):
        return tuple((name, lexicon.COLOURS[name]) for name in lexicon.INKS)
    offered: list[tuple[str, tuple[int, int, int]]] = []
    end = 0
    for found in re.finditer(lexicon.COLOUR_PATTERN, text):
        if found[0] in not_meant:
            continue
        if offered and not re.fullmatch(r",? or |, ", text[end : found.start()]):
            break
        offered.append(_shade(found["modifier"] or "", found["tint"] or "", found["name"]))
        end = found.end()
    alternatives = " or " in text[:end].split(offered[0][0], 1)[-1] if offered else False
    return tuple(offered) if alternatives else tuple(offered[:1])


def _shade(modifier: str, tint: str, name: str) -> tuple[str, tuple[int, int, int]]:
    """A colour's words and its sRGB, "dark" and "light" and a tint applied."""
    rgb = [float(c) for c in lexicon.COLOURS[lexicon.SPELLINGS.get(name, name)]]
    if name.endswith("ish") and max(rgb) - min(rgb) > 20:  # a hint of the colour
        rgb = [0.5 * c + 0.5 * sum(rgb) / 3 for c in rgb]
    if tint:
        rgb = [0.65 * c + 0.35 * t for c, t in zip(rgb, lexicon.COLOURS[lexicon.TINTS[tint]], strict=True)]
    if modifier in lexicon.DARKER:
        rgb = [c * 0.55 for c in rgb]
    elif modifier in lexicon.LIGHTER:
        rgb = [c + (255 - c) * 0.45 for c in rgb]
    r, g, b = (round(c) for c in rgb)
    return " ".join(word for word in (modifier, tint, name) if word), (r, g, b)


def _count(text: str) -> tuple[int, bool]:
    """How many defects, and whether they sit together."""
    head = text.split(".")[0]
    clustered = re.search(r"\b(?:cluster|group|scatter)\w* of\b", head) is not None
    if clustered:
        return 6, True
    digits = re.search(lexicon.DIGITS, head)
    if digits:
        return min(max(int(digits[1]), 1), lexicon.MOST), False
    for pattern, number in lexicon.COUNTS:
        if re.search(pattern, head):
            return number, False
    return (3, False) if re.search(lexicon.PLURALS, head) else (1, False)
