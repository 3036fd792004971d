"""The review: which figures speak most against a real defect, as advice that a policy can act on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mcp_servers.quality_eval.advice import contradiction
from mcp_servers.quality_eval.statistics.change import Change
from mcp_servers.quality_eval.statistics.regression import Head

WORTH_SAYING = -0.5
"""Log odds below which what speaks against the defect is named."""
CONVINCING = 2.2
"""Log odds (nine to one) above which a regression has nothing to ask for."""
MOST = 3
"""At most so many problems are named at once."""

ONTO = ("Move the defect onto the part", "much of it lies beyond the part's outline")
SHALLOW = ("Move the defect onto the part", "it lies where real ones seldom do")
LARGER = ("Make the defect larger", "it is smaller than real ones are")
SMALLER = ("Make the defect smaller", "it covers more of the part than real ones do")
STRONGER = ("Make the defect more pronounced", "it hardly stands out from its surroundings")
WEAKER = ("Make the defect less pronounced", "it stands out more than real ones do")
HUE = ("Give the defect no colour", "its hue is far from that of the surroundings")
GRAIN = ("Match the grain of the photo", "its finest variation is not that of the surroundings")
SHARP = ("Match the sharpness of the photo", "fine and coarse detail are not in the surroundings' proportion")
TEXTURE = ("Keep the surface texture visible inside the defect", "its texture is not as a surface's varies")
BORDER = ("Blend the border of the defect into the surrounding texture", "its outline looks cut out")
REST = ("Leave everything outside the defect unchanged", "the rest of the photo changed too")

MEANINGS: dict[str, tuple[tuple[str, str], tuple[str, str]]] = {
    "beyond": (ONTO, ONTO),
    "depth": (ONTO, SHALLOW),
    "log_area": (LARGER, SMALLER),
    "log_length": (LARGER, SMALLER),
    "log_peak": (STRONGER, WEAKER),
    "colour_distance": (STRONGER, WEAKER),
    "hue_distance": (STRONGER, HUE),
    "log_shape": (GRAIN, TEXTURE),
    "neighbours": (GRAIN, SHARP),
    "haar_noise": (TEXTURE, GRAIN),
    "unevenness": (TEXTURE, TEXTURE),
    "border_step": (SHARP, BORDER),
    "inner_step": (GRAIN, BORDER),
    "step_sharpness": (SHARP, BORDER),
    "raggedness": (BORDER, BORDER),
}
"""Figure -> what is to be changed where it is too low, and where it is too high."""


def unchanged(change: Change) -> str:
    """The review of an edit that left no region changed."""
    if change.repainted or change.moved:
        return "Introduce a visible defect. The photo took on other colours or another place, and nothing else changed."
    return "Introduce a visible defect. Both photos are the same."


def review_of(
    heads: Sequence[tuple[Head, Mapping[str, float]]], integrity: float, passed: bool, item_name: str, anomaly_type: str
) -> str:
    """The problems, worst first, at least one where it did not pass; or what is right.

    heads: each regression with its figures. integrity: 0 to 1, how much of the rest of the photo was kept.
    """
    against: dict[tuple[str, str], float] = {}
    for head, figures in heads:
        if head.log_odds(figures) > CONVINCING:
            continue
        for name, evidence in head.evidence(figures).items():
            meaning = MEANINGS[name][figures[name] > head.terms[name].centre]
            if evidence < 0:
                against[meaning] = against.get(meaning, 0.0) + evidence
    if integrity < 0.85:
        against[REST] = against.get(REST, 0.0) - 5 * (1 - integrity)
    named: list[tuple[str, str]] = []
    for problem in sorted(against, key=lambda one: against[one]):
        enough = against[problem] < WORTH_SAYING or (not passed and not named)
        if enough and len(named) < MOST and not contradiction([*(advice for advice, _ in named), problem[0]]):
            named.append(problem)
    if named:
        return " ".join(f"{advice}: {why}." for advice, why in named)
    return (
        f"The {anomaly_type} on the {item_name} has the statistics of real defects: texture, grain, border and colours "
        "agree with the surface around it, and it lies on the part."
    )
