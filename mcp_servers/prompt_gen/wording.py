"""The sentences of which editing prompts are made: how each family of damage meets each material.

The renderer reads prompts word by word, so these sentences name no place, no size and no colour of their own;
those come from the profile. `local.py` puts them together.
"""

from __future__ import annotations

from mcp_servers.knowledge.families import Family

SKINS: dict[str, tuple[str, str]] = {
    "surface": ("the material", "the texture"),
    "metal": ("the metal", "the machining pattern"),
    "coated metal": ("the coating", "the soft reflection"),
    "glass": ("the glass", "the curved reflection"),
    "plastic": ("the plastic", "the moulded texture"),
    "rubber": ("the rubber", "the matt texture"),
    "leather": ("the leather", "the pattern of grain cells"),
    "textile": ("the fabric", "the weave"),
    "wood": ("the wood", "the pattern of growth lines"),
    "ceramic": ("the hard ceramic", "the texture of its face"),
    "food": ("the crust", "the porous texture"),
    "wax": ("the soft wax", "the translucent sheen"),
    "electronics": ("the lacquered board", "the pattern of traces and print"),
    "pharma": ("the smooth outer skin", "the soft sheen"),
    "paper": ("the sheet", "the printed pattern"),
}
"""Material to (what the defect acts on, the texture it interrupts or leaves visible)."""

INTERACTIONS: dict[Family, str] = {
    Family.SCRATCH: (
        "The scratch ploughs through {skin} and interrupts {texture}, with a glint on one flank, shade on the "
        "other, and tips that taper away naturally."
    ),
    Family.CRACK: (
        "The crack runs through {skin} along its weakest path and breaks {texture} as it passes, with crisp "
        "lips, natural depth in its opening, and a tip that closes to nothing."
    ),
    Family.CUT: (
        "The cut opens {skin} with two crisp lips and a shaded interior, severs {texture} cleanly, and closes "
        "to a point on both sides."
    ),
    Family.HOLE: (
        "The hole sinks into {skin}, with a crisp rim, a shaded interior and one lit wall, and {texture} "
        "stops short where the opening begins."
    ),
    Family.DENT: (
        "The dent presses {skin} out of shape while its colour stays true: {texture} bows through it, one "
        "wall is brighter and the opposite wall lies in shade."
    ),
    Family.FOLD: (
        "The fold raises {skin} into a soft ridge with a lit flank and a shaded flank, and {texture} carries "
        "on over the crest, slightly squeezed."
    ),
    Family.FRAY: (
        "The frayed area loosens {skin}, so {texture} breaks up into matt, disordered marks that fade out "
        "gradually into the intact surroundings."
    ),
    Family.STAIN: (
        "The stain wets {skin} as a translucent layer with a slightly deeper rim, spreads the way a liquid "
        "would, and {texture} remains visible through it."
    ),
    Family.CONTAMINATION: (
        "The contamination rests on {skin} with crisp outlines and short contact shadows that agree with the "
        "lighting, and it hides {texture} only where it lies."
    ),
    Family.DISCOLORATION: (
        "The discoloration lies within {skin} itself and fades out softly, while {texture}, relief and "
        "highlights run on through it."
    ),
    Family.RUST: (
        "The rust eats into {skin} as matt, granular growth, densest at its core with pinpoint specks ahead "
        "of it, and it dulls {texture}."
    ),
    Family.BURN: (
        "The burn chars what it touches, strongest at its core and easing outwards into a toasted halo over "
        "{skin}, with the gloss lost and {texture} faded where the heat was highest."
    ),
    Family.GLUE: (
        "The glue sits on {skin} as a raised, glossy, half-transparent film with rounded borders and one soft "
        "highlight, and {texture} shows dimly beneath it."
    ),
    Family.PRINT: (
        "The print fault follows the shape of {skin}, inked or pressed as sharply as genuine marks, and "
        "{texture} remains visible between its strokes."
    ),
    Family.THREAD: (
        "The thread lies over {skin} in loose loops of constant thickness, with a hint of twist and a soft "
        "contact shadow, and it covers {texture} along its way."
    ),
    Family.MISSING: (
        "Where the piece is missing, one sees what lies behind it with natural depth and shade, bounded by "
        "the true outline of the lost piece, and its neighbours stay intact."
    ),
    Family.BROKEN_EDGE: (
        "The broken edge opens the outline: {skin} ends in a sharp border, the fracture face is rougher with "
        "crisp facets, and what lies behind shows in the notch."
    ),
    Family.BEND: (
        "The bend starts at a definite point and keeps the length, thickness and finish of what it turns, and "
        "highlights and shadows follow its new course."
    ),
    Family.MISPLACED: (
        "The misplaced piece is whole and clean: its perspective, contact and shadow agree with its new "
        "attitude, and its material, finish and sharpness are those of the original."
    ),
    Family.SHORT: (
        "The metal of this short matches that of the conductors: crisp borders, the same tone and gloss, "
        "and a seamless join with whatever it touches."
    ),
    Family.OPEN: (
        "The open gap interrupts one line: two blunt ends face each other in line, and what lies beneath "
        "shows through in its usual tone, as crisp as its surroundings."
    ),
}
"""How a family meets a material; ``{skin}`` and ``{texture}`` are filled from SKINS."""

RELIEF = frozenset({
    Family.SCRATCH, Family.CRACK, Family.CUT, Family.HOLE, Family.DENT, Family.FOLD, Family.FRAY, Family.BROKEN_EDGE,
})  # fmt: skip
"""Families that are seen by glint and shade."""

NAMES: dict[Family, str] = {
    Family.FRAY: "frayed area",
    Family.PRINT: "print fault",
    Family.MISSING: "gap",
    Family.BROKEN_EDGE: "broken edge",
    Family.MISPLACED: "misplaced piece",
    Family.SHORT: "stray metal",
    Family.OPEN: "open gap",
}
"""What a family is called inside a sentence, where its value alone would not read as a noun."""

CLOSING = (
    "Everything else, including the background, lighting, geometry, framing and sharpness of the photo, "
    "stays exactly as it is."
)
