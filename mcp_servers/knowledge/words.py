"""Words to families: reads a defect type ("mouse bites") or a whole editing prompt and names its family.

Two tables. `STRONG` holds words that name a defect wherever they stand; `WEAK` holds words that are also
ordinary English ("a short scratch", "the screw thread") and count only where no strong word does. A `*` at
the end of a keyword stands for any ending. `NEUTRAL` lists phrases to step over ("printed circuit board").
Longer keywords win over shorter ones at the same place; after that the earliest wins.
`catalogue.py` uses it for types that have no page, the renderer uses it to read a prompt.
"""

from __future__ import annotations

import re
from functools import cache

from mcp_servers.knowledge.families import Family

STRONG: dict[Family, str] = {
    Family.SCRATCH: (
        "scratch*, hairline scratch*, scuff*, gouge*, gouging, scrape*, scraping, abrasion*, abraded, score mark*, "
        "scoring, tool mark*, chatter mark*, drag mark*, wear mark*, drag line*, wear track*"
    ),
    Family.CRACK: (
        "crack*, hairline crack*, fissure*, fractur*, crazing, crazed, middle breakage, breakage down the middle, "
        "broken in two, broken in half, snapped"
    ),
    Family.CUT: (
        "cut, cuts, slit, slits, slash*, incision*, gash*, tear, tears, torn, ripped, lacerat*, knife mark*, "
        "cut lead*, cut wire*"
    ),
    Family.HOLE: (
        "hole*, frayed hole*, pinhole*, pit, pits, pitted, pitting, poke*, poking, punctur*, perforat*, pierc*, "
        "pock*, blowhole*, blow hole*, void, voids, porosity, pore, pores, crater*, bubble*, air pocket*, "
        "wormhole*, woodworm*"
    ),
    Family.DENT: (
        "dent, dents, sink mark*, dented, denting, ding, dings, dinged, squeez*, squash*, crush*, impression*, "
        "indent*, deform*, bump, bumps, bumped, bulg*, misshap*, mis shap*, blister*, dimple*, buckl*, swollen, "
        "swelling, compress*, pressed in, flattened, manipulated front, thread side, thread top, damaged thread*, "
        "stripped thread*, crossed thread*, burr, burrs, hammer mark*"
    ),
    Family.FOLD: "fold, folds, folded, folding, wrinkl*, creas*, pleat*, crumpl*, crinkl*, pucker*",
    Family.FRAY: (
        "fray*, orange peel*, fuzz*, fluffy, fluffed, unravel*, loose weave, pilling, worn fabric, roughened, "
        "rough patch*"
    ),
    Family.STAIN: (
        "stain*, smudg*, smear*, fingerprint*, finger print*, finger mark*, oil, oily, oil mark*, oil stain*, "
        "grease*, greasy, liquid*, spill*, drip*, droplet*, water mark*, watermark*, wet patch*, leak*, splash*, "
        "gray stroke*, grey stroke*, pencil mark*, pen mark*, marker stroke*, ink, ink mark*, ink blot*, coffee, "
        "tide mark*"
    ),
    Family.CONTAMINATION: (
        "contaminat*, metal contamination, dirt*, dust*, debris, foreign*, particle*, partical*, speck*, swarf, "
        "metal chip*, metal shaving*, shavings, crumbs, soil, soiled, soiling, soot*, mould, mouldy, mold, moldy, "
        "mildew*, fungus, impurit*, slag, sludge*, residue*, grime*, grimy, spatter*, insect*, "
        "stuck together, extra wax, inclusion*"
    ),
    Family.DISCOLORATION: (
        "discolo*, color spot*, colour spot*, different color*, different colour*, wrong color*, wrong colour*, "
        "color stain*, colour stain*, faded, fading, yellowed, yellowing, bleach*, tarnish*, heat tint*, blotch*, "
        "color change*, colour change*, bruis*, haze, hazy, mottl*, shading"
    ),
    Family.RUST: "rust*, corro*, oxid*, patina, verdigris",
    Family.BURN: (
        "burn, burns, burned, burnt, burning, burn mark*, scorch*, charred, charring, singe*, melt, melts, melted, "
        "melting, melded, molten, overheat*"
    ),
    Family.GLUE: (
        "glue*, smear of glue, smear of * glue, gluing, adhesive*, resin*, epoxy, sealant*, glue strip*, "
        "glue residue*, adhesive residue*, tape residue*"
    ),
    Family.PRINT: (
        "misprint*, mis print*, imprint*, faulty imprint*, faulty print*, printed mark*, printed letter*, "
        "smudged print*, smeared print*, print defect*, lettering, logo, stamped mark*, ink stamp*, fake print*"
    ),
    Family.THREAD: (
        "loose thread*, loose fibre*, loose fiber*, stray thread*, hair, hairs, fibre*, fiber*, lint, yarn*, "
        "filament*, string, strings"
    ),
    Family.MISSING: (
        "missing*, exposed, bare spot*, short shot*, insufficient solder*, missing chunk*, chunk of * missing, absent, "
        "absence, lacking, lacks, left out, omitted, broken tooth, broken teeth"
    ),
    Family.BROKEN_EDGE: (
        "chip, chips, peeling*, peeled, flaking, flaked, delaminat*, chipped, chipping, chip around edge*, "
        "broken edge*, broken_edge, edge break*, corner break*, corner or edge breakage, corner and edge breakage, "
        "broken corner*, corner missing, missing corner*, chunk, chunks, damaged corner*, edge damage*, "
        "damaged edge*, spall*, notch*, broken off, snapped off, bite, bites, mouse bite*, mousebite*, "
        "jagged break*, broken rim, broken glass, shatter*"
    ),
    Family.BEND: (
        "bent, bend, lifted pad*, lifted lead*, bends, bending, warp*, bowed, twist*, kink*, curl*, splayed, "
        "crooked, weird wick*, weird candle wick*, bent lead*, bent wire*, bent pin*"
    ),
    Family.MISPLACED: (
        "misplac*, mis plac*, flip, flips, flipped, upside down, shifted, rotated, swap*, wrong place*, "
        "wrong position*, wrong way*, wrong type*, wrong part*, wrong component*, pill type*, displac*, reversed, "
        "inverted, tilted, skewed, misalign*, mis align*, off centre, off center, tombston*, split teeth, "
        "back to front, not seated"
    ),
    Family.SHORT: (
        "solder bridg*, short circuit*, shorted, bridged, bridging, spurious copper, extra copper, excess copper, "
        "stray copper, spur, spurs, whisker*, excess solder"
    ),
    Family.OPEN: (
        "open circuit*, broken trace*, broken track*, cut trace*, interrupted trace*, trace gap*, broken wire*, "
        "broken strand*, open gap*, missing trace*, broken conductor*, open joint*, open solder*"
    ),
}

WEAK: dict[Family, str] = {
    Family.SCRATCH: "groove*, scored, worn, wear, streak*, nick, nicks, nicked",
    Family.CRACK: "split, splits, splitting, hairline",
    Family.CUT: "rip, rips, severed",
    Family.DENT: "uneven surface, dimpled",
    Family.FRAY: "rough, roughness, tufts, nap",
    Family.STAIN: "spot, spots, mark, marks, paint, wet, drop, drops",
    Family.CONTAMINATION: "extra, grain, grains, flash, scale, rolled in scale, deposit*",
    Family.DISCOLORATION: (
        "color, colors, colour, colours, coloured, colored, uneven, pale patch*, dark patch*, shade, patch, patches"
    ),
    Family.BURN: "char, smoke",
    Family.PRINT: "print, prints, printed, printing, stamp*",
    Family.THREAD: "thread, threads, strand, strands",
    Family.BROKEN_EDGE: "broken, break, breaks, breakage",
    Family.MISPLACED: "offset, loose",
    Family.SHORT: "short, shorts, copper, bridge",
    Family.OPEN: "open, opens, gap, gaps, interrupted",
}

NEUTRAL = (
    "printed circuit*, print resolution, in print, chocolate chip*, micro chip*, microchip*, ic chip*, "
    "chip package*, chipboard*, hairbrush*, cutting board*, wrinkle free, crack filler*, glue gun, oil filter*, "
    "oil pan*, dust cover*, rust proof*, ink jet*, inkjet*, string instrument*, fibre optic*, fiber optic*, "
    "carbon fibre*, carbon fiber*, fibreboard*, fiberboard*, mold line*, mould line*, short edge*, short side*, "
    "short end*, open mouth, open end*, grain direction, wood grain, colour balance, color balance"
)

_NEGATORS = frozenset(
    {"no", "not", "never", "without", "avoid", "exclude", "dont", "neither", "nor", "cannot", "free of"}
)
_ASK = frozenset({"introduce", "add", "create", "draw", "put", "render", "simulate", "insert", "give"})
_TURN = frozenset({"but", "except", "instead", "however", "only"})
_TOKEN = re.compile(r"free of|instead of|rather than|[a-z]+|[.;:!?\n]")


def family_of(text: str) -> Family | None:
    """The family that a defect type or an editing prompt names, or None where no known word occurs.

    In a sentence, words after the request verb ("introduce", "add", ...) count before the ones that describe
    the place; negated words ("no scratches", "without cracks", "scratch-free") never count. Any text is
    accepted; only its first 8,000 characters are read.
    """
    plain = _plain(text)
    negated, ask = _read_grammar(plain)
    for strong in (True, False):
        found = [
            (match.start(), family)
            for match, family in _matches(plain, strong=strong)
            if family is not None and not any(start <= match.start() < end for start, end in negated)
        ]
        after = [family for start, family in found if start > ask]
        if after:
            return after[0]
        if found and (strong or ask < 0):
            return found[0][1]
    return None


def _plain(text: str) -> str:
    """Lower case; underscores, hyphens and runs of blanks become one space; apostrophes go."""
    lowered = text[:8_000].lower().replace("'", "").replace("’", "")
    return re.sub(r"[ \t\r_\-/]+", " ", lowered)


def _matches(plain: str, *, strong: bool) -> list[tuple[re.Match[str], Family | None]]:
    """Every keyword in reading order with its family (None: a neutral phrase)."""
    pattern, families = _compiled(strong)
    return [(match, families[(match.lastindex or 1) - 1]) for match in pattern.finditer(plain)]


@cache
def _compiled(strong: bool) -> tuple[re.Pattern[str], list[Family | None]]:
    """One alternation of all keywords of a table, longest first, and the family of each group."""
    table = STRONG if strong else WEAK
    words: list[tuple[str, Family | None]]
    words = [(word.strip(), family) for family, line in table.items() for word in line.split(",")]
    words += [(word.strip(), None) for word in NEUTRAL.split(",")]
    words.sort(key=lambda entry: (-len(entry[0]), entry[0]))
    groups = "|".join(f"({_keyword_pattern(word)})" for word, _ in words)
    return re.compile(rf"\b(?:{groups})\b"), [family for _, family in words]


def _keyword_pattern(word: str) -> str:
    """A keyword as a pattern: a final star is any ending, a star between words is one to three words."""
    escaped = re.escape(word.replace("_", " ")).replace(r"\ ", " ")
    return escaped.replace(r" \* ", r" (?:\w+ ){1,3}").replace(r"\*", r"\w*")


def _read_grammar(plain: str) -> tuple[list[tuple[int, int]], int]:
    """Spans under a negation, and where the first request that is not negated stands (-1 without one)."""
    negated: list[tuple[int, int]] = []
    ask = start = -1
    ends_at_comma = False
    previous = ""
    for match in _TOKEN.finditer(plain):
        token, at = match.group(), match.start()
        if start >= 0 and ends_at_comma and "," in plain[start:at]:
            negated.append((start, at))
            start = -1
        is_request = token in _ASK and previous not in _NEGATORS
        if start >= 0 and (token in ".;:!?\n" or token in _TURN or is_request):
            negated.append((start, at))
            start = -1
        if is_request and ask < 0:
            ask = at
        if token in _NEGATORS or token in {"instead of", "rather than"}:
            start = at if start < 0 else start
            ends_at_comma = token in {"instead of", "rather than"}
        elif token == "free" and previous:
            negated.append((plain.rfind(previous, 0, at), at))
        previous = token
    if start >= 0:
        negated.append((start, len(plain)))
    return negated, ask
