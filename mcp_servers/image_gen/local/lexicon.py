"""Words that the renderer reads in a prompt: ladders, places, directions, colours, shapes, counts.

Keys are the canonical words; values are regular expressions over lower-case text.
"""

from __future__ import annotations

from mcp_servers.knowledge.families import Family

CLOSING = (
    r"[,.;]?\s*(?:everything else|all else|all other|the rest of|the remaining|nothing else|"
    r"(?:please )?keep (?:everything|all|the)|leave (?:everything|all|the)|do not (?:change|alter|modify)|"
    r"without (?:changing|altering|affecting)|preserve (?:everything|all|the)|maintain (?:everything|all|the))\b"
)

ABOUT_THE_DEFECT = r"(?:the|this|that) defect\b|its?\b|make (?:it|the defect)\b|(?:place|put|position|move)\b"
"""How a later sentence begins that says more about the defect."""

SIZE_WORDS: dict[str, str] = {
    "very large": r"\b(?:very|extremely) (?:large|big|long|wide)\b|\b(?:huge|enormous|massive|extensive)\b",
    "tiny": r"\b(?:tiny|minute|minuscule|microscopic|very small|pin-?prick|pin-?point)\b",
    "small": r"\b(?:small|short|little|compact)\b",
    "medium-sized": r"\bmedium(?:-sized)?\b|\bmid-?sized\b",
    "large": r"\b(?:large|big|long|sizeable|sizable|broad)\b",
}

SEVERITY_WORDS: dict[str, str] = {
    "faint": r"\b(?:faint|barely visible|subtle|very light|very slight|hardly visible)\b",
    "mild": r"\b(?:mild|slight|shallow|gentle|weak)\b",
    "moderate": r"\b(?:moderate|medium severity|noticeable|visible)\b",
    "pronounced": r"\b(?:pronounced|clear|clearly visible|strong|deep|prominent|distinct|marked)\b",
    "severe": r"\b(?:severe|extreme|heavy|very deep|very strong|drastic)\b",
}

PLACES: dict[str, str] = {
    "near_edge": r"\b(?:near|close to|next to|beside)\b[^,.]{0,20}\b(?:edges?|rims?|borders?|outline)\b",
    "edge": r"\b(?:edges?|rims?|borders?|outline|lip|perimeter|contour|margins?|brim)\b",
    "corner": r"\bcorners?\b",
    "centre": r"\b(?:cent(?:re|er|ral)|middle)\b",
    "upper": r"\b(?:upper|uppermost)\b(?! surface| face)|\btop\b(?! surface| face| side)(?<!ridge top)",
    "lower": r"\b(?:lower|lowermost)\b|\bbottom\b(?! surface| face| side)",
    "left": r"\b(?:left|left-hand)\b",
    "right": r"\b(?:right|right-hand)\b",
    "conductor": r"\b(?:pads?|traces?|conductors?|copper planes?)\b",
    "whole": r"\b(?:whole|entire|full) (?:width|length|height|part)\b|\bright (?:through|across)\b|\bedge to edge\b",
    "everywhere": (
        r"\b(?:whole|entire|full|complete)\b (?:[\w-]+ ){0,2}(?:surface|face|plate|body|shell|skin|part|piece)\b|"
        r"\ball over\b|\beverywhere\b"
    ),
    "end": r"\b(?:tips?|ends?|head)\b",
    "interior": r"\b(?:interior|inside|inner)\b(?! (?:edge|rim|border))",
    "surface": r"\b(?:surface|face|body|wall)\b",
}

PLACE_CLAUSE = (
    r"\b(?:on|at|in|near|close to|next to|from|along|around|across|towards?|inside|within) "
    r"(?:the|its|one|an?) (?:(?!(?:introduc|with|that|which|of a)\b)[\w'-]+ ?){1,6}"
)

ORIENTATIONS: tuple[tuple[str, tuple[str, float]], ...] = (
    (r"\bacross the (?:\w+ )?(?:grain|fib|weave|brush|lay)|\bperpendicular\b|\bagainst the grain\b", ("across", 0.0)),
    (r"\b(?:along|with|parallel to|following) the (?:\w+ )?(?:grain|fib|weave|brush|lay)", ("along", 0.0)),
    (r"\b(?:along|following|around) the (?:\w+ )?(?:edge|rim|border|outline|lip|contour)", ("rim", 0.0)),
    (r"\bdiagonal", ("diagonal", 0.0)),
    (r"\bhorizontal", ("angle", 0.0)),
    (r"\bvertical", ("angle", 90.0)),
)

COLOURS: dict[str, tuple[int, int, int]] = {
    "black": (22, 21, 22),
    "charcoal": (52, 52, 55),
    "grey": (125, 125, 125),
    "silver": (186, 188, 190),
    "white": (240, 240, 236),
    "cream": (238, 226, 192),
    "ivory": (240, 232, 208),
    "beige": (210, 188, 150),
    "tan": (190, 150, 105),
    "amber": (205, 135, 30),
    "straw yellow": (205, 180, 110),
    "yellow": (225, 195, 45),
    "gold": (200, 160, 55),
    "ochre": (185, 125, 45),
    "orange": (220, 115, 30),
    "rust": (140, 70, 30),
    "copper": (175, 100, 60),
    "brown": (105, 66, 38),
    "maroon": (98, 24, 30),
    "red": (190, 32, 36),
    "crimson": (170, 20, 50),
    "pink": (230, 140, 160),
    "magenta": (190, 30, 120),
    "purple": (105, 45, 125),
    "violet": (110, 70, 160),
    "blue": (35, 70, 165),
    "navy": (20, 32, 82),
    "cyan": (40, 165, 190),
    "turquoise": (50, 170, 160),
    "teal": (20, 110, 110),
    "green": (45, 120, 55),
    "olive": (105, 105, 45),
    "dark": (38, 34, 32),
    "light": (225, 222, 214),
    "pale": (225, 220, 205),
}
"""sRGB 0-255 of plain colour words, as pigments look on a part (not as pure primaries)."""

ANY_COLOUR = r"\b(?:any|some|varying|various) colou?rs?\b"
INKS = ("red", "crimson", "orange", "yellow", "green", "teal", "blue", "navy", "purple", "magenta", "black", "white")
"""What "any colour" leaves open."""

SPELLINGS: dict[str, str] = {
    "gray": "grey", "greyish": "grey", "grayish": "grey", "whitish": "white", "white-ish": "white",
    "milky": "white", "yellowish": "yellow", "brownish": "brown", "reddish": "red", "bluish": "blue",
    "greenish": "green", "blackish": "black", "blackened": "black", "pinkish": "pink", "orangey": "orange",
    "purplish": "purple", "golden": "gold", "rusty": "rust", "rust-coloured": "rust", "rust-colored": "rust",
    "silvery": "silver", "darkened": "dark", "darker": "dark", "lighter": "light", "bleached": "pale",
    "sooty": "black", "coppery": "copper",
}  # fmt: skip

TINTS: dict[str, str] = {
    "reddish": "red", "brownish": "brown", "yellowish": "yellow", "greenish": "green", "bluish": "blue",
    "greyish": "grey", "grayish": "grey", "orange": "orange", "pinkish": "pink", "purplish": "purple",
    "whitish": "white", "blackish": "black",
}  # fmt: skip

MATERIAL_WORDS: dict[Family, tuple[str, ...]] = {
    Family.RUST: ("rust", "rusty"),
    Family.SHORT: ("copper", "gold", "silver"),
    Family.OPEN: ("copper", "gold", "silver"),
}
"""Words that name the material of these defects and not a colour that was asked for."""

DARKER = ("dark", "deep", "darker")
LIGHTER = ("light", "pale", "bright", "lighter")

_NAMES = "|".join(sorted((*COLOURS, *SPELLINGS), key=len, reverse=True))
COLOUR_PATTERN = (
    rf"(?<![\w-])(?:(?P<modifier>{'|'.join((*DARKER, *LIGHTER))})[ -])?"
    rf"(?:(?P<tint>{'|'.join(TINTS)})[ -])?(?P<name>{_NAMES})(?:-colou?red)?(?![\w])"
)

SHAPES: dict[str, str] = {
    "hairline": r"\bhair-?line\b",
    "thin": r"\b(?:thin|fine|narrow|slender)\b",
    "wide": r"\b(?:wide|broad|thick|gaping)\b",
    "round": r"\b(?:round|rounded|circular|pin-?hole)\b",
    "jagged": r"\b(?:jagged|ragged|zig-?zag|rough-edged|splintered)\b",
    "branching": r"\b(?:branch\w*|forked|fork\w*|spider\w*|star-?shaped)\b",
    "curved": r"\b(?:curv\w+|arc\w*|bowed|crescent)\b",
    "straight": r"\b(?:straight|linear)\b",
    "irregular": r"\b(?:irregular\w*|uneven|amorphous)\b",
    "pitted": r"\b(?:pitting|pitted|porosity|porous|pock-?mark\w*)\b",
    "wrinkled": r"\b(?:wrinkl\w*|crinkl\w*|crumpl\w*|pucker\w*)\b",
    "island": r"\b(?:islands?|isolated|spurious)\b",
    "spur": r"\bspurs?\b",
    "scuffed": r"\b(?:scuff\w*|abra\w+|scrape\w*|worn|brush mark\w*)\b",
    "soft": (
        r"\bblends? softly\b|\bsoft(?:ly)? (?:borders?|edges?|outline|blended|fading)\b|\bfad(?:es|ing) out\b|"
        r"\bsame (?:grain|sharpness) as the photo\b"
    ),
    "elongated": r"\b(?:elongated|long and thin|oval|stretched|streak\w*)\b",
}

COUNTS: tuple[tuple[str, int], ...] = (
    (r"\b(?:a|one) (?:single|lone|sole)\b|\bsingle\b", 1),
    (r"\btwo\b|\ba pair of\b|\ba couple of\b", 2),
    (r"\bthree\b|\ba few\b", 3),
    (r"\bfour\b|\bseveral\b|\bmultiple\b", 4),
    (r"\bfive\b|\bmany\b|\bnumerous\b", 5),
    (r"\bsix\b|\bhalf a dozen\b", 6),
    (r"\bseven\b", 7),
    (r"\beight\b", 8),
    (r"\bnine\b", 9),
    (r"\bten\b", 10),
    (r"\beleven\b", 11),
    (r"\b(?:twelve|a dozen|dozens)\b", 12),
)
MOST = 12
"""Most defects on one picture."""

PLURALS = (
    r"\b(?:scratches|cracks|cuts|holes|pits|pinholes|dents|dings|stains|spots|specks|particles|threads|"
    r"burns|blotches|droplets|drops|pores|chips|splashes)\b"
)

DIGITS = r"(?<![\d.,#-])(\d{1,3}) (?!px|pixels?\b|mm\b|cm\b|%|deg)(?:[\w-]+ ){0,3}?" + PLURALS

RIGID = r"\b(?:metal\w*|steel|iron|alumin\w+|brass|plate|screw|tile|glass|ceramic|plastic|board|flange|bolt|gear)\b"
PLIANT = r"\b(?:leather|fabric|textile|cloth|film|foil|paper|carpet|rubber|weave|woven|knit\w*|cardboard|skin)\b"
"""Words for what keeps its shape and for what drapes; the second decide where both occur."""
