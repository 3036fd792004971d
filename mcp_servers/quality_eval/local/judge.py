"""From measurements to factors: each possible problem gets a factor in (0, 1], smooth in what was measured.

A factor of 1 means no problem; the location score is 5 times the product of the location factors, the quality
score 5 times the product of the others. Nothing here is fitted to a renderer: the limits were set on real
defects against deliberately broken edits.
"""

from __future__ import annotations

from dataclasses import dataclass

from mcp_servers.knowledge.families import SIZES, DefectProfile, Family

REMOVES_OR_MOVES = {Family.MISSING, Family.BEND, Family.MISPLACED, Family.BROKEN_EDGE}
"""Families that may reach beyond the part's outline: parts leave their place or their outline."""
AT_THE_EDGE = {Family.BROKEN_EDGE}
LINES = {Family.SCRATCH, Family.CRACK, Family.CUT, Family.THREAD}
COMPACT = {Family.HOLE, Family.DENT, Family.STAIN, Family.BURN, Family.DISCOLORATION, Family.RUST}
"""Families that are patches: a thin line is not one of them."""
SPREADING = {Family.RUST, Family.DISCOLORATION, Family.MISPLACED, Family.MISSING, Family.BEND, Family.FOLD}
"""Families that may rightly cover much of the part."""
OWN_MATERIAL = {Family.SHORT, Family.OPEN, Family.MISSING, Family.MISPLACED, Family.BROKEN_EDGE}
"""Families that show another of the part's own materials, or the ground behind it: its texture is not the ring's."""
VISIBILITY = {"faint": 0.45, "mild": 0.7}
"""Severity that was asked for -> share of the usual contrast and difference that is enough."""
AREAS: dict[bool, tuple[float, ...]] = {True: (0.2, 0.25, 0.3, 0.4, 1.0), False: (0.15, 0.2, 0.2, 0.25, 0.3)}
"""Share of the part that a defect of each size of `SIZES` may cover; True for `SPREADING` families."""
LENGTHS: dict[bool, tuple[float, float]] = {True: (0.09, 0.75), False: (0.04, 0.5)}
"""Length of a tiny and of a very large defect in part extents, for lines and for everything else."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One criterion: its factor in (0, 1], and the sentence that tells what to change."""

    factor: float
    advice: str


def ramp(value: float, bad: float, good: float, floor: float) -> float:
    """Smoothstep from ``floor`` (at or beyond ``bad``) to 1 (at or beyond ``good``); ``bad`` may exceed ``good``."""
    t = min(1.0, max(0.0, (value - bad) / (good - bad)))
    return floor + (1 - floor) * t * t * (3 - 2 * t)


def judge_location(m: dict[str, float], family: Family | None) -> list[Finding]:
    """Criteria of place, from `measure_place`; ``family`` None where the type is unknown."""
    roams = family in REMOVES_OR_MOVES
    findings = []
    on_part = 1 - m["floating"] if roams else m["on_part"]
    if m["over_outline"] > 0.02 and m["floating"] < 0.5:
        advice = f"Move the defect away from the outline: {pct(m['over_outline'])} of it lies beyond the part."
    else:
        advice = f"Move the defect onto the part: {pct(1 - m['on_part'])} of it lies on the background."
    findings.append(Finding(ramp(on_part, 0.45, 0.93, 0.05), advice))
    if family in AT_THE_EDGE:
        gap = m["outline_distance"]
        advice = f"Place the defect on the edge of the part: it is {pct(gap)} of the part's size away from it."
        findings.append(Finding(ramp(gap, 0.15, 0.02, 0.4), advice))
    return findings


def judge_quality(m: dict[str, float], profile: DefectProfile | None) -> list[Finding]:
    """Criteria of appearance, from `measure_look` and `measure_place`."""
    family = profile.family if profile else None
    return [*_strength(m, profile), *_size(m, profile), *_texture(m, family), *_shape(m, family), *_outside(m)]


def _strength(m: dict[str, float], profile: DefectProfile | None) -> list[Finding]:
    faint = f"Make the defect more pronounced: its contrast is {m['contrast']:.1f} times the surface's own variation, "
    faint += "2.5 is clearly visible."
    weak = f"Make the defect more pronounced: it differs from the good surface by {m['delta_e']:.1f} dE, 8 is clear."
    strong = f"Make the defect less pronounced: {m['delta_e']:.0f} dE is more than a mild defect shows."
    asked = profile.severity if profile else ""
    limit = 45.0 if asked in VISIBILITY else 90.0
    enough = VISIBILITY.get(asked, 1.0)
    return [
        Finding(ramp(m["contrast"], 0.7 * enough, 2.8 * enough, 0.15), faint),
        Finding(ramp(m["delta_e"], 1.5, 8.0 * enough, 0.3), weak),
        Finding(ramp(m["delta_e"], 2 * limit, limit, 0.6), strong),
    ]


def _size(m: dict[str, float], profile: DefectProfile | None) -> list[Finding]:
    family = profile.family if profile else None
    low, high = LENGTHS[family in LINES]
    small_from, large_from = low * 0.5, 2 * high
    if profile and profile.size in SIZES:
        expected = low * (high / low) ** (SIZES.index(profile.size) / (len(SIZES) - 1))
        small_from, large_from = expected * 0.5, max(2.5 * expected, 2 * high)
    length, area = m["length_share"], m["area_share"]
    smaller = f"Make the defect smaller: it covers {pct(area)} of the part and spans {pct(length)} of its size."
    larger = f"Make the defect larger: it spans {pct(length)} of the part's size, {pct(small_from)} is expected."
    size = SIZES.index(profile.size) if profile and profile.size in SIZES else len(SIZES) - 2
    widest = AREAS[family in SPREADING][size]
    return [
        Finding(ramp(length, 0.2 * small_from, small_from, 0.3), larger),
        Finding(ramp(length, 2.5 * large_from, large_from, 0.5), smaller),
        Finding(ramp(area, widest + 0.3, widest, 0.15), smaller),
    ]


def _texture(m: dict[str, float], family: Family | None) -> list[Finding]:
    flat = (
        "Keep the surface texture visible inside the defect: "
        f"its texture is {m['texture']:.2f} times that of the surroundings."
    )
    white = f"Match the grain of the photo: inside the defect it is {m['grain']:.1f} times as strong, like noise."
    clean = f"Match the grain of the photo: inside the defect it is only {m['grain']:.2f} times as strong."
    soft = f"Match the sharpness of the photo: the defect holds {pct(m['whiteness'])} of the usual fine detail."
    grain, whiteness = m["grain"], m["whiteness"]
    as_around = min(ramp(m["correlation_around"] - m["correlation"], 0.25, 0.08, 0.0), ramp(grain, 12.0, 6.0, 0.0))
    noisy = max(ramp(m["correlation"], 0.05, 0.3, 0.15), as_around, ramp(grain, 2.5, 1.3, 0.0))
    least = 0.7 if family in OWN_MATERIAL else 0.15
    blurred = max(ramp(whiteness, 0.1, 0.35, max(0.3, least)), ramp(grain, 0.3, 0.7, 0.0))
    return [
        Finding(ramp(m["texture"], 0.1, 0.45, least), flat),
        Finding(noisy, white),
        Finding(ramp(grain, 0.1, 0.4, max(0.5, least)), clean),
        Finding(blurred, soft),
    ]


def _shape(m: dict[str, float], family: Family | None) -> list[Finding]:
    if m["boxiness"] > 0.3:
        border = "Blend the border of the defect into the surrounding texture: it is a straight-edged patch."
    else:
        border = "Blend the border of the defect into the surrounding texture: it is harder than any edge in the photo."
    findings = [
        Finding(ramp(m["boxiness"], 0.9, 0.1, 0.15), border),
        Finding(ramp(m["seam"], 0.7, 0.3, 0.5), border),
    ]
    if family in LINES:
        advice = f"Give the defect an elongated shape: its outline is only {m['elongation']:.1f} times a disc's."
        findings.append(Finding(ramp(m["elongation"], 1.1, 2.0, 0.45), advice))
        wide = 0.3 if family is Family.CRACK else 0.0  # a part may break into two along a wide crack
        advice = f"Give the defect an elongated shape: its width is {pct(m['thickness'])} of its length."
        findings.append(Finding(ramp(m["thickness"], 0.55 + wide, 0.3 + wide, 0.45), advice))
    if family in COMPACT:
        advice = f"Give the defect a compact shape: its width is only {pct(m['thickness'])} of its length."
        findings.append(Finding(ramp(m["thickness"], 0.08, 0.2, 0.35), advice))
    return findings


def _outside(m: dict[str, float]) -> list[Finding]:
    colour = f"Leave everything outside the defect unchanged: its colours moved by {m['recolour']:.1f} dE."
    moved = f"Leave everything outside the defect unchanged: the photo moved by {m['drift']:.1f}% of its size."
    return [
        Finding(ramp(m["recolour"], 14.0, 3.0, 0.2), colour),
        Finding(ramp(m["drift"], 5.0, 1.0, 0.5), moved),
    ]


def pct(share: float) -> str:
    """A share as a percentage, with a decimal where it is small."""
    value = 100 * max(0.0, share)
    return f"{value:.1f}%" if value < 10 else f"{value:.0f}%"
