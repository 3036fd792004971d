"""From measurements to factors: each possible problem gets a factor in (0, 1], smooth in what was measured.

The location score is 5 times the product of the location factors, the quality score 5 times the product of the others.
A factor of `FAIR` means acceptable, 1 as good as can be measured, so that scores still rise where nothing is wrong.
Nothing here is fitted to a renderer: the limits were set on real defects against deliberately broken edits.
"""

from __future__ import annotations

import re

from mcp_servers.knowledge.families import SIZES, DefectProfile, Family
from mcp_servers.quality_eval.local.factors import Finding, grade, pct, ramp, typical

REMOVES_OR_MOVES = {Family.MISSING, Family.BEND, Family.MISPLACED, Family.BROKEN_EDGE}
"""Families that may reach beyond the part's outline: parts leave their place or their outline."""
AT_THE_EDGE = {Family.BROKEN_EDGE}
LINES = {Family.SCRATCH, Family.CRACK, Family.CUT, Family.THREAD}
DAMAGE = {Family.HOLE, Family.CUT, Family.CRACK, Family.BROKEN_EDGE, Family.MISSING, Family.CONTAMINATION}
"""Families that replace the surface, so that its own texture cannot run on through them."""
COLOUR_ONLY = {Family.STAIN, Family.DISCOLORATION}
"""Families through which the surface's texture shows, neither coarser nor finer than around."""
RELIEF = {Family.DENT, Family.FOLD, Family.BEND}
"""Families that change the surface's shape only: light and shade, no colour of their own."""
STAYS = {
    *{Family.SCRATCH, Family.DENT, Family.STAIN, Family.DISCOLORATION, Family.RUST, Family.BURN, Family.GLUE},
    *{Family.PRINT, Family.THREAD, Family.CONTAMINATION},
}
"""Families that take nothing of the part away."""
COMPACT = {Family.HOLE, Family.DENT, Family.STAIN, Family.BURN, Family.DISCOLORATION, Family.RUST}
"""Families that are patches: a thin line is not one of them."""
SPREADING = {Family.RUST, Family.DISCOLORATION, Family.MISPLACED, Family.MISSING, Family.BEND, Family.FOLD}
"""Families that may rightly cover much of the part."""
OWN_MATERIAL = {Family.SHORT, Family.OPEN, Family.MISSING, Family.MISPLACED, Family.BROKEN_EDGE, Family.HOLE}
"""Families that show another of the part's materials, the ground behind it or its dark inside, whatever its texture."""
VISIBILITY = {"faint": 0.45, "mild": 0.7}
"""Severity that was asked for -> share of the usual contrast and difference that is enough."""
AREAS: dict[bool, tuple[float, ...]] = {True: (0.2, 0.3, 0.4, 0.6, 1.0), False: (0.15, 0.2, 0.2, 0.25, 0.3)}
"""Share of the part that a defect of each size of `SIZES` may cover; True for `SPREADING` families."""
LENGTHS: dict[bool, tuple[float, float]] = {True: (0.09, 0.75), False: (0.04, 0.5)}
"""Length of a tiny and of a very large defect in part extents, for lines and for everything else."""
EDGE_WORDS = re.compile(r"\b(?:edge|rim|border|outline|corner|margin)s?\b")
FACE_WORDS = re.compile(r"\b(?:surface|face|side|near|wall|end|teeth|trace|tape|bore|insulation|component|pin)s?\b")
CENTRE_WORDS = re.compile(r"\b(?:centre|center|middle)\b")
"""Words of a page's place that ask for the outline, that allow the face beside it, and that ask for the middle."""


def judge_location(m: dict[str, float], profile: DefectProfile | None) -> list[Finding]:
    """Criteria of place, from `measure_place`; ``profile`` None where the type is unknown."""
    family = profile.family if profile else None
    roams = family in REMOVES_OR_MOVES
    findings = []
    on_part = 1 - m["floating"] if roams else m["on_part"]
    if m["over_outline"] > 0.02 and m["floating"] < 0.5:
        advice = f"Move the defect away from the outline: {pct(m['over_outline'])} of it lies beyond the part."
    else:
        advice = f"Move the defect onto the part: {pct(1 - m['on_part'])} of it lies on the background."
    findings.append(Finding(grade(on_part, 0.45, 0.93, 1.0, 0.05), advice))
    gap = m["outline_distance"]
    place = profile.place if profile else ""
    if family in AT_THE_EDGE or (EDGE_WORDS.search(place) and not FACE_WORDS.search(place)):
        advice = f"Place the defect on the edge of the part: it is {pct(gap)} of the part's size away from it."
        findings.append(Finding(grade(gap, 0.15, 0.03, 0.0, 0.4 if family in AT_THE_EDGE else 0.75), advice))
    elif CENTRE_WORDS.search(place):
        advice = "Move the defect away from the outline: it belongs in the middle of the part."
        findings.append(Finding(grade(m["off_centre"], 1.0, 0.6, 0.3, 0.8), advice))
    return findings


def judge_quality(m: dict[str, float], profile: DefectProfile | None) -> list[Finding]:
    """Criteria of appearance, from `measure_look`, `measure_kind`, `measure_outside` and `measure_place`."""
    family = profile.family if profile else None
    return [
        *_strength(m, profile),
        *_size(m, profile),
        *_texture(m, family),
        *_border(m),
        *_kind(m, family),
        *_outside(m),
    ]


def _strength(m: dict[str, float], profile: DefectProfile | None) -> list[Finding]:
    faint = f"Make the defect more pronounced: its contrast is {m['contrast']:.1f} times the surface's own variation, "
    faint += "2.5 is clearly visible."
    weak = f"Make the defect more pronounced: it differs from the good surface by {m['delta_e']:.1f} dE, 8 is clear."
    strong = f"Make the defect less pronounced: {m['delta_e']:.0f} dE is more than a mild defect shows."
    asked = profile.severity if profile else ""
    limit = 45.0 if asked in VISIBILITY else 90.0
    enough = VISIBILITY.get(asked, 1.0)
    return [
        Finding(grade(m["contrast"], 0.6 * enough, 2.2 * enough, 6.0 * enough, 0.15), faint),
        Finding(grade(m["delta_e"], 1.1, 4.0 * enough, 20.0 * enough, 0.3), weak),
        Finding(ramp(m["delta_e"], 2 * limit, limit, 0.6), strong),
    ]


def _size(m: dict[str, float], profile: DefectProfile | None) -> list[Finding]:
    family = profile.family if profile else None
    low, high = LENGTHS[family in LINES]
    small_from, large_from, expected = low * 0.5, 2 * high, low
    if profile and profile.size in SIZES:
        expected = low * (high / low) ** (SIZES.index(profile.size) / (len(SIZES) - 1))
        small_from, large_from = expected * 0.5, max(2.5 * expected, 2 * high)
    length, area = m["length_share"], m["area_share"]
    smaller = f"Make the defect smaller: it covers {pct(area)} of the part and spans {pct(length)} of its size."
    larger = f"Make the defect larger: it spans {pct(length)} of the part's size, {pct(small_from)} is expected."
    size = SIZES.index(profile.size) if profile and profile.size in SIZES else len(SIZES) - 2
    widest = AREAS[family in SPREADING][size]
    return [
        Finding(grade(length, 0.2 * small_from, 0.9 * small_from, expected, 0.4), larger),
        Finding(ramp(length, 2.5 * large_from, large_from, 0.5), smaller),
        Finding(ramp(area, widest + 0.3, widest, 0.15), smaller),
    ]


def _texture(m: dict[str, float], family: Family | None) -> list[Finding]:
    flat = f"Keep the surface texture visible inside the defect: it is {m['texture']:.2f} times that around it."
    rough = f"Match the grain of the photo: the defect's texture is {m['texture']:.1f} times that around it."
    white = f"Match the grain of the photo: inside the defect it is {m['grain']:.1f} times as strong, like noise."
    motley = f"Match the grain of the photo: its colours are {m['colour_grain']:.1f} times as grainy as around it."
    clean = f"Match the grain of the photo: inside the defect it is only {m['grain']:.2f} times as strong."
    soft = f"Match the sharpness of the photo: the defect holds {pct(m['whiteness'])} of the usual fine detail."
    grain, whiteness = m["grain"], m["whiteness"]
    least = 0.85 if family in OWN_MATERIAL else 0.15
    blurred = max(ramp(whiteness, 0.1, 0.35, max(0.3, least)), ramp(grain, 0.3, 0.7, 0.0))
    blobs = (
        f"{m['coarseness']:.1f} times as coarse" if m["coarseness"] > 1 else f"{1 / m['coarseness']:.1f} times as fine"
    )
    coarse = f"Match the sharpness of the photo: the defect's pattern is {blobs} as around it."
    blotchy = ramp(m["coarseness"], 3.2, 2.0, 0.3)
    if family in COLOUR_ONLY:
        blotchy = ramp(max(m["coarseness"], 1 / m["coarseness"]), 2.8, 1.7, 0.4)
    return [
        Finding(blotchy * typical(m["coarseness"], 0.45, 0.7, 1.25, 1.8), coarse),
        Finding(
            ramp(m["texture"], 0.1, 0.45, least) * typical(m["texture"], 0.45, 0.9, 4.0, 9.0),
            flat if m["texture"] < 1 else rough,
        ),
        Finding(1 - 0.85 * noise(m), white),
        Finding(ramp(m["colour_grain"], 14.0, 6.0, 0.15), motley),
        Finding(
            ramp(grain, 0.1, 0.4, max(0.5, least)) * typical(grain, 0.5, 0.9, 3.5, 8.0), clean if grain < 1 else white
        ),
        Finding(blurred * typical(max(whiteness, 0.05), 0.45, 0.7, 1.25, 2.0), soft),
    ]


def noise(m: dict[str, float]) -> float:
    """How surely the inside is computed noise, 0 to 1: all signs must be there.

    Neighbours that do not resemble each other, twice as much variation below 1 px as above, more of it than around,
    levels between black and white, and a defect wide enough to tell.
    """
    signs = (
        ramp(m["correlation"], 0.3, 0.1, 0.0),
        ramp(m["fineness"], 1.3, 1.8, 0.0),
        ramp(m["grain"], 1.3, 2.6, 0.0),
        ramp(m["clipped"], 0.7, 0.4, 0.0),
        ramp(m["resolved"], 0.15, 0.4, 0.0),
    )
    return min(signs)


def _border(m: dict[str, float]) -> list[Finding]:
    if m["boxiness"] > 0.3:
        border = "Blend the border of the defect into the surrounding texture: it is a straight-edged patch."
    else:
        border = "Blend the border of the defect into the surrounding texture: it is harder than any edge in the photo."
    return [
        Finding(ramp(m["boxiness"], 0.9, 0.1, 0.15), border),
        Finding(grade(m["seam"], 0.7, 0.3, -0.2, 0.5), border),
    ]


def _kind(m: dict[str, float], family: Family | None) -> list[Finding]:
    """What speaks against the kind that was asked for; kinds that measuring cannot tell apart are not judged."""
    findings = []
    if family in LINES:
        thin = min(m["thickness"], m["core_thickness"])
        wide = 0.2 if family is Family.CRACK else 0.0  # a part may break into two along a wide crack
        advice = f"Give the defect an elongated shape: its width is {pct(thin)} of its length."
        findings.append(Finding(grade(thin, 0.46 + wide, 0.26 + wide, 0.14 + wide, 0.28), advice))
    if family in COMPACT:
        advice = f"Give the defect a compact shape: its width is only {pct(m['core_thickness'])} of its length."
        findings.append(Finding(grade(m["core_thickness"], 0.09, 0.22, 0.35, 0.28), advice))
    if family in DAMAGE:
        advice = "Make the defect more pronounced: the surface's own texture runs on through it, as under a stain."
        findings.append(Finding(ramp(m["kept"], 0.85, 0.62, 0.35), advice))
    if family in RELIEF:
        advice = f"Show light and shade only: the defect has a colour of its own ({m['tint']:.0f} dE)."
        findings.append(Finding(ramp(m["tint"], 24.0, 10.0, 0.35), advice))
    if family is Family.RUST:
        advice = "Give the defect the brown or orange of rust: its colour is another."
        findings.append(Finding(ramp(m["warmth"] * min(1.0, m["tint"] / 10), -0.6, 0.0, 0.35), advice))
    if family is Family.BURN:
        advice = "Make the defect darker than the surface: burnt material is."
        findings.append(Finding(ramp(m["lightened"], 8.0, 1.0, 0.35), advice))
    if family in STAYS:
        advice = f"Move the defect away from the outline: {pct(m['lost'])} of it looks as if a piece were gone."
        findings.append(Finding(ramp(m["lost"], 0.8, 0.4, 0.35), advice))
    advice = f"Give the defect no colour: the photo has none, the defect {m['foreign']:.0f} dE."
    findings.append(Finding(ramp(m["foreign"], 12.0, 4.0, 0.2), advice))
    return findings


def _outside(m: dict[str, float]) -> list[Finding]:
    colour = f"Leave everything outside the defect unchanged: its colours moved by {m['recolour']:.1f} dE."
    other = f"Leave everything outside the defect unchanged: {pct(m['elsewhere'])} of the picture changed visibly."
    moved = f"Leave everything outside the defect unchanged: the photo moved by {m['drift']:.1f}% of its size."
    return [
        Finding(grade(m["recolour"], 17.0, 6.0, 1.0, 0.15), colour),
        Finding(ramp(m["elsewhere"], 0.15, 0.04, 0.2), other),
        Finding(grade(m["drift"], 5.0, 1.5, 0.3, 0.5), moved),
    ]
