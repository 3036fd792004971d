"""Defect families: the small vocabulary that knowledge, prompts, renderer and judge share.

A *family* is a way in which a surface or a part can be damaged; the defect types of public datasets
("broken_large", "squeeze", "metal_contamination") are names that map to a family with parameters.
The words on the two ladders are ordinary English on purpose: they appear in editing prompts as they are,
so any image editor understands them, and any policy can move a prompt one step along a ladder.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Family(StrEnum):
    """One way in which a part can be defective; the values are the words used in prompts."""

    SCRATCH = "scratch"
    CRACK = "crack"
    CUT = "cut"
    HOLE = "hole"
    DENT = "dent"
    FOLD = "fold"
    FRAY = "fray"
    STAIN = "stain"
    CONTAMINATION = "contamination"
    DISCOLORATION = "discoloration"
    RUST = "rust"
    BURN = "burn"
    GLUE = "glue"
    PRINT = "print"
    THREAD = "thread"
    MISSING = "missing"
    BROKEN_EDGE = "broken_edge"
    BEND = "bend"
    MISPLACED = "misplaced"
    SHORT = "short"
    OPEN = "open"


SIZES: tuple[str, ...] = ("tiny", "small", "medium-sized", "large", "very large")
"""Size ladder: extent of the defect relative to the part, small to large."""

SEVERITIES: tuple[str, ...] = ("faint", "mild", "moderate", "pronounced", "severe")
"""Severity ladder: contrast, depth or strength of the defect, weak to strong."""


@dataclass(frozen=True, slots=True)
class DefectProfile:
    """What the knowledge base knows about one anomaly type on one item, as parameters.

    ``size`` and ``severity`` are words of the ladders above; ``place`` is a plain phrase ("on the rim of the
    bottle"), ``noun`` names the defect in a prompt ("a hairline crack"), ``colour`` is a plain colour word or
    several ("red, blue or black"), "" where the defect has none of its own. ``known`` is False where item or type
    is not in the knowledge base and the profile was derived from the general pages; ``source`` names the page it
    came from.
    """

    item: str
    anomaly_type: str
    family: Family
    noun: str
    place: str
    size: str
    severity: str
    colour: str
    known: bool
    source: str
