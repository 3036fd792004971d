"""The knowledge base: words to families, the pages, their catalogue and the retrieval over them."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcp_servers.errors import ToolInputError
from mcp_servers.knowledge import catalogue
from mcp_servers.knowledge.catalogue import UnknownAnomalyType, passages_for, profile_for
from mcp_servers.knowledge.families import SEVERITIES, SIZES, Family
from mcp_servers.knowledge.page_format import Entry, Page, PageError, parse_page
from mcp_servers.knowledge.words import family_of
from mcp_servers.knowledge_retrieval.local import retrieve

MVTEC = {
    "bottle": "broken_large broken_small contamination",
    "cable": "bent_wire cable_swap combined cut_inner_insulation cut_outer_insulation missing_cable missing_wire "
    "poke_insulation",
    "capsule": "crack faulty_imprint poke scratch squeeze",
    "carpet": "color cut hole metal_contamination thread",
    "grid": "bent broken glue metal_contamination thread",
    "hazelnut": "crack cut hole print",
    "leather": "color cut fold glue poke",
    "metal_nut": "bent color flip scratch",
    "pill": "color combined contamination crack faulty_imprint pill_type scratch",
    "screw": "manipulated_front scratch_head scratch_neck thread_side thread_top",
    "tile": "crack glue_strip gray_stroke oil rough",
    "toothbrush": "defective",
    "transistor": "bent_lead cut_lead damaged_case misplaced",
    "wood": "color combined hole liquid scratch",
    "zipper": "broken_teeth combined fabric_border fabric_interior rough split_teeth squeezed_teeth",
}
MVTEC_PAIRS = [(item, name) for item, names in MVTEC.items() for name in names.split()]

VISA = {
    "candle": "chunk of wax missing,damaged corner of packaging,different colour spot,extra wax in candle,"
    "foreign particals on candle,other,wax melded out of the candle,weird candle wick",
    "capsules": "bubble,discolor,leak,misshape,scratch",
    "cashew": "burnt,corner or edge breakage,different colour spot,middle breakage,other,same colour spot,small holes,"
    "small scratches,stuck together",
    "chewinggum": "chunk of gum missing,corner missing,other,scratches,similar colour spot,small cracks",
    "fryum": "burnt,corner or edge breakage,different colour spot,fryum stuck together,middle breakage,other,"
    "similar colour spot,small scratches",
    "macaroni1": "chip around edge and corner,different colour spot,middle breakage,other,similar colour spot,"
    "small cracks,small scratches",
    "macaroni2": "breakage down the middle,color spot similar to the object,different color spot,other,"
    "small chip around edge,small cracks,small scratches",
    "pcb1": "bent,melt,missing,scratch",
    "pcb2": "bent,melt,missing,scratch",
    "pcb3": "bent,melt,missing,scratch",
    "pcb4": "burnt,damage,dirt,extra,missing,scratch,wrong place",
    "pipe_fryum": "burnt,corner and edge breakage,different colour spot,middle breakage,other,similar colour spot,"
    "small cracks,small scratches,stuck together",
}
VISA_PAIRS = [(item, name) for item, names in VISA.items() for name in names.split(",")]

SECTIONS = [(page, entry) for page in catalogue.pages() for entry in page.entries]

PLAIN_WORDS = {
    "hairline crack": Family.CRACK,
    "hairline scratch": Family.SCRATCH,
    "gouge": Family.SCRATCH,
    "scuff marks": Family.SCRATCH,
    "pit": Family.HOLE,
    "pinhole": Family.HOLE,
    "oil": Family.STAIN,
    "smudge": Family.STAIN,
    "fingerprint": Family.STAIN,
    "hair": Family.THREAD,
    "fibre": Family.THREAD,
    "loose thread": Family.THREAD,
    "chipped": Family.BROKEN_EDGE,
    "mousebite": Family.BROKEN_EDGE,
    "mouse_bites": Family.BROKEN_EDGE,
    "mould": Family.CONTAMINATION,
    "metal shavings": Family.CONTAMINATION,
    "oxidised": Family.RUST,
    "corrosion": Family.RUST,
    "bent": Family.BEND,
    "flipped": Family.MISPLACED,
    "upside down": Family.MISPLACED,
    "solder bridge": Family.SHORT,
    "spurious copper": Family.SHORT,
    "short": Family.SHORT,
    "open": Family.OPEN,
    "open-circuit": Family.OPEN,
    "Wrinkles": Family.FOLD,
    "FRAYED": Family.FRAY,
    "scorch mark": Family.BURN,
    "adhesive residue": Family.GLUE,
    "misprint": Family.PRINT,
    "chunk of wax missing": Family.MISSING,
    "corner missing": Family.BROKEN_EDGE,
    "discolouration": Family.DISCOLORATION,
    "tear": Family.CUT,
    "squeezed": Family.DENT,
    "sink marks": Family.DENT,
    "short shot": Family.MISSING,
    "peeling paint": Family.BROKEN_EDGE,
    "lifted pad": Family.BEND,
    "orange peel": Family.FRAY,
}
SENTENCES = {
    "Add no scratches, only a dent.": Family.DENT,
    "A surface without cracks but with a stain": Family.STAIN,
    "do not add stains; a crack": Family.CRACK,
    "Introduce a scratch without changing the colour": Family.SCRATCH,
    "don't add rust but introduce a cut": Family.CUT,
    "a scratch-free face with a dent": Family.DENT,
    "instead of a scratch, a dent": Family.DENT,
    "no scratches": None,
    "without cracks, stains or holes": None,
    "do not add stains": None,
    "a photo of a printed circuit board": None,
    "change only the screw thread to introduce a scratch": Family.SCRATCH,
    "change only the rim of the hole to introduce rust": Family.RUST,
    "a short scratch": Family.SCRATCH,
    "a broken edge full of dirt": Family.BROKEN_EDGE,
    "": None,
    "a perfectly good bottle": None,
}


def test_the_mvtec_list_holds_fifteen_objects_and_seventy_three_types() -> None:
    assert (len(MVTEC), len(MVTEC_PAIRS)) == (15, 73)


@pytest.mark.parametrize(("item", "name"), MVTEC_PAIRS + VISA_PAIRS)
def test_every_public_type_is_known_and_leads_with_its_own_passage(item: str, name: str) -> None:
    profile = profile_for(item, name)
    assert profile.known
    assert profile.item == item
    assert passages_for(item, name)[0].source == f"{profile.source}#{name}"


def test_no_two_passages_are_identical() -> None:
    texts = [entry.text for _, entry in SECTIONS]
    assert len(set(texts)) == len(texts)


@pytest.mark.parametrize(("page", "entry"), SECTIONS, ids=lambda part: part.name)
def test_every_section_is_of_readable_length_and_its_noun_reads_as_its_family(page: Page, entry: Entry) -> None:
    assert 40 <= len(entry.text.split()) <= 90
    assert family_of(entry.noun) is entry.family
    assert not re.search(rf"\b({'|'.join((*SIZES, *SEVERITIES))})\b", f"{entry.noun} {entry.place}")
    assert entry.place.split()[0] not in {"on", "in", "at", "near", "over", "along"}


def test_the_page_on_any_surface_covers_every_family() -> None:
    assert {entry.family for entry in catalogue.general_page("surface").entries} == set(Family)


@pytest.mark.parametrize(
    ("item", "name", "source"),
    [
        ("Metal Nut", "Scratches", "metal_nut.md"),
        ("metal-nuts", "SCRATCH", "metal_nut.md"),
        ("capsules", "scratch", "capsules.md"),
        ("capsule", "scratch", "capsule.md"),
        ("Chewing Gum", "corner_missing", "chewinggum.md"),
        ("PCB 4", "wrong-place", "pcb4.md"),
        ("bottle", "large broken", "bottle.md"),
        ("tile", "grey stroke", "tile.md"),
        ("fryum", "different color spot", "fryum.md"),
    ],
)
def test_names_are_matched_whatever_their_case_separators_number_and_spelling(
    item: str, name: str, source: str
) -> None:
    profile = profile_for(item, name)
    assert (profile.known, profile.source) == (True, source)


def test_an_unknown_item_is_derived_from_the_material_in_its_name_and_says_so() -> None:
    profile = profile_for("wine glass", "hairline crack")
    assert not profile.known
    assert (profile.family, profile.source, profile.noun) == (Family.CRACK, "general_glass.md", "a hairline crack")
    assert "wine glass" in profile.place


def test_an_unknown_item_without_a_material_falls_back_to_any_surface() -> None:
    assert profile_for("gizmo", "tiny hole") == profile_for("gizmo", "tiny hole")
    profile = profile_for("gizmo", "tiny hole")
    assert (profile.known, profile.source, profile.size, profile.noun) == (
        False,
        "general_surface.md",
        "tiny",
        "a round hole",
    )


def test_an_unknown_type_on_a_known_item_takes_the_place_of_its_relative() -> None:
    profile = profile_for("metal_nut", "gouge")
    assert (profile.known, profile.family) == (False, Family.SCRATCH)
    assert profile.place == profile_for("metal_nut", "scratch").place


@pytest.mark.parametrize("item", ["bottle", "gizmo"])
def test_a_type_that_names_no_family_is_refused_with_the_names_that_would_do(item: str) -> None:
    with pytest.raises(UnknownAnomalyType) as error:
        profile_for(item, "xyzzy")
    message = str(error.value)
    assert "\n" not in message
    assert "xyzzy" in message
    assert ("broken_small" if item == "bottle" else "scratch") in message


@pytest.mark.parametrize("name", ["", "   ", "__", "x" * 201, "a" * 1_000_000, "scratch\n# heading", "\ud800"])
def test_names_that_cannot_be_looked_up_are_refused(name: str) -> None:
    with pytest.raises(ToolInputError, match="anomaly_type"):
        profile_for("bottle", name)
    with pytest.raises(ToolInputError, match="item_name"):
        retrieve(name, "scratch")


@pytest.mark.parametrize(("text", "family"), (PLAIN_WORDS | SENTENCES).items())
def test_words_and_sentences_name_their_family(text: str, family: Family | None) -> None:
    assert family_of(text) is family


@pytest.mark.parametrize("family", Family)
def test_every_family_reads_as_itself(family: Family) -> None:
    assert family_of(family.value) is family


@given(st.text())
def test_any_text_can_be_read(text: str) -> None:
    assert family_of(text) in (None, *Family)


def test_a_megabyte_of_negations_names_no_family() -> None:
    assert family_of("no free " * 125_000) is None


GOOD = "# item\nmaterial: metal\nphoto: A photo.\n\n## type\nfamily: hole\nnoun: a hole\nplace: the face\n"
LADDERS = "size: small\nseverity: mild\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"x\.md:1: the page is empty"),
        ("hello", r"x\.md:1: the first line"),
        (GOOD + LADDERS, r"x\.md:5: 'type' has no prose"),
        (GOOD + "\nprose", r"x\.md:5: 'size' is missing"),
        (GOOD.replace("hole\nnoun", "wormhole\nnoun") + LADDERS + "\nprose", r"x\.md:5: unknown family 'wormhole'"),
        (GOOD + "size: big\nseverity: mild\n\nprose", r"x\.md:5: unknown size 'big'"),
        (GOOD + "size: small\nsize: small\n", r"x\.md:10: 'size' is given twice"),
        (GOOD + LADDERS + "photo: no\n\nprose", r"x\.md:5: 'photo' is not a field here"),
        ("# item\nmaterial: metal\nphoto: A photo.\n", r"x\.md:1: a page needs at least one"),
        ("# item\nmaterial: metal\nphoto: A photo.\n\nprose\n", r"x\.md:1: prose belongs below"),
    ],
)
def test_a_mistake_in_a_page_is_an_error_that_names_file_and_line(text: str, message: str) -> None:
    with pytest.raises(PageError, match=message):
        parse_page("x.md", text)


def test_importing_loads_nothing() -> None:
    code = "from mcp_servers.knowledge import catalogue\nassert catalogue.pages.cache_info().currsize == 0\n"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(("item", "name"), MVTEC_PAIRS)
def test_retrieval_begins_with_the_exact_section_and_ranks_the_others_below(item: str, name: str) -> None:
    found = retrieve(item, name)
    assert found.known
    assert found.passages[0].source == f"{item}.md#{name}"
    scores = [passage.score for passage in found.passages]
    assert len(scores) == 4
    assert scores == sorted(scores, reverse=True)
    assert scores[0] == 1 > scores[1]
    assert len({passage.source for passage in found.passages}) == 4


def test_retrieval_on_an_unknown_item_gives_general_passages_and_says_so() -> None:
    found = retrieve("wine glass", "crack")
    assert not found.known
    assert "wine glass" in found.note
    assert found.passages[0].source == "general_glass.md#crack"


def test_retrieval_of_an_unknown_type_names_the_known_ones() -> None:
    found = retrieve("bottle", "hairline crack")
    assert not found.known
    assert "broken_small" in found.note
    assert found.passages[0].source == "general_glass.md#crack"


def test_retrieval_that_finds_nothing_is_empty_and_says_so() -> None:
    found = retrieve("gizmo", "xyzzy")
    assert (found.known, found.passages) == (False, [])
    assert found.note.startswith("nothing in the knowledge base fits")


@pytest.mark.parametrize("limit", [0, -1, 21])
def test_a_limit_out_of_range_is_refused(limit: int) -> None:
    with pytest.raises(ToolInputError, match="limit"):
        retrieve("bottle", "contamination", limit=limit)


HOSTILE = st.sampled_from(['"', "'", '""', "*", "NEAR(", "AND", "OR", "NOT", "^", "item:", "-", "{", ")", "\x00", "a"])


@settings(deadline=None)
@given(st.one_of(st.text(max_size=250), st.lists(HOSTILE, max_size=60).map(" ".join)))
def test_no_query_text_can_break_the_search(text: str) -> None:
    for item, name in ((text, "scratch"), ("bottle", text), (text, text)):
        try:
            found = retrieve(item, name)
        except ToolInputError:
            continue  # refused with a message of its own: empty, unreadable or too long
        assert found.model_dump_json()
        assert all(0 < passage.score <= 1 for passage in found.passages)


def test_retrieval_is_deterministic() -> None:
    assert retrieve("zipper", "rough", limit=9) == retrieve("zipper", "rough", limit=9)
