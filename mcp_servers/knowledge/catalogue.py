"""The knowledge base as a catalogue: what a defect type is on an item, and the passages that describe it.

Pages (`pages/*.md`, see `page_format.py`) are loaded once, on the first question. An item or type without a
page is answered from the general pages on its material, and marked `known=False`; a type whose words name no
family is refused, because a guess would end up as a wrong label in somebody's dataset.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from mcp_servers.errors import ToolInputError
from mcp_servers.knowledge.families import SIZES, DefectProfile, Family
from mcp_servers.knowledge.page_format import Entry, Page, PageError, parse_page
from mcp_servers.knowledge.words import family_of

FALLBACK_MATERIAL = "surface"
"""The general page that covers every family, for items whose material cannot be told from their name."""

MAX_NAME = 200
"""Longest item name or anomaly type that is looked up, in characters."""

_SPELLINGS = {"color": "colour", "gray": "grey", "mold": "mould", "fiber": "fibre", "discolor": "discolour"}
_NOUN = re.compile(
    r"scratch|crack|cut|hole|dent|fold|stain|spot|mark|burn|chip|thread|hair|bridge|pit|pinhole|gouge|smudge|"
    r"fingerprint|drip|wrinkle|crease|tear|slit|notch|puncture|scuff|splash|fracture|blister|bump|kink|gap"
)


class UnknownAnomalyType(ToolInputError):  # noqa: N818
    """The words of an anomaly type name no defect family; the one-line message names the cure."""


@dataclass(frozen=True, slots=True)
class Passage:
    """A piece of the knowledge base; ``source`` is "file.md#section", ``family`` is None for a photo's."""

    item: str
    title: str
    text: str
    source: str
    family: Family | None


@cache
def pages() -> tuple[Page, ...]:
    """All pages in order of file name. Raises PageError when one is malformed."""
    folder = files("mcp_servers.knowledge") / "pages"
    named = sorted((f.name, f.read_text("utf-8")) for f in folder.iterdir() if f.name.endswith(".md"))
    loaded = tuple(parse_page(name, text) for name, text in named)
    materials = {page.name for page in loaded if page.general}
    for page in loaded:
        if page.material not in materials:
            raise PageError(f"{page.file}:1: unknown material '{page.material}'; general pages: {sorted(materials)}")
    return loaded


def find_page(item_name: str) -> Page | None:
    """The page of an item by name or alias, tolerant of case, separators and plural; None without one."""
    exact, singular = _item_index()
    return exact.get(_plain(item_name)) or singular.get(_key(item_name))


def find_entry(page: Page, anomaly_type: str) -> Entry | None:
    """The section of a page for a type by name or alias, in any word order; None without one."""
    wanted = sorted(_key(anomaly_type).split())
    for entry in page.entries:
        if any(sorted(_key(name).split()) == wanted for name in (entry.name, *entry.aliases)):
            return entry
    return None


def material_of(item_name: str) -> str:
    """The material of an item: its page's, else told from the words of its name, else "surface"."""
    page = find_page(item_name)
    if page is not None:
        return page.material
    for word in reversed(_key(item_name).split()):
        if word in _material_words():
            return _material_words()[word]
    return FALLBACK_MATERIAL


def general_page(material: str) -> Page:
    """The general page on a material (a value of `material_of`). Raises KeyError for any other name."""
    return _general_pages()[material]


def general_entry(material: str, family: Family) -> tuple[Page, Entry]:
    """The general section for a family on a material; from the page on any surface where it has none."""
    for page in (general_page(material), general_page(FALLBACK_MATERIAL)):
        for entry in page.entries:
            if entry.family is family:
                return page, entry
    raise PageError(f"general_{FALLBACK_MATERIAL}.md:1: no section for the family '{family}'")


def profile_for(item_name: str, anomaly_type: str) -> DefectProfile:
    """What the knowledge base knows of a defect type on an item, as parameters for prompt and renderer.

    Raises ToolInputError as `check_name` does, and UnknownAnomalyType (a ToolInputError, so a ValueError) for a
    type that has no page and names no family.
    """
    check_name("item_name", item_name)
    check_name("anomaly_type", anomaly_type)
    page = find_page(item_name)
    entry = find_entry(page, anomaly_type) if page else None
    if page and entry:
        return _profile(item_name, anomaly_type, page, entry, known=True)
    family = family_of(anomaly_type)
    if family is None:
        raise UnknownAnomalyType(_not_understood(item_name, anomaly_type, page))
    similar = next((entry for entry in page.entries if entry.family is family), None) if page else None
    if page and similar:
        found = _profile(item_name, anomaly_type, page, similar, known=False)
    else:
        found = _profile(item_name, anomaly_type, *general_entry(material_of(item_name), family), known=False)
    return found


def check_name(argument: str, name: str) -> None:
    """Refuse a name that cannot be looked up: empty, over MAX_NAME characters, or not valid Unicode text.

    Raises ToolInputError (a ValueError) with a one-line message that begins with ``argument``.
    """
    if len(name) > MAX_NAME:
        raise ToolInputError(f"{argument} is {len(name)} characters long; use at most {MAX_NAME}")
    if not name.isprintable():
        raise ToolInputError(f"{argument} holds line breaks or control characters; write it on one line")
    if not _plain(name):
        raise ToolInputError(
            f"{argument} has no readable word; name it in a word or two, such as 'bottle' or 'scratch'"
        )


def passages_for(item_name: str, anomaly_type: str, limit: int = 5) -> list[Passage]:
    """The passages that describe a defect on an item, closest first: own section, photo, material, relatives.

    ``limit`` is at least 1. Raises like `profile_for`.
    """
    if limit < 1:
        raise ToolInputError(f"limit must be at least 1, not {limit}")
    profile = profile_for(item_name, anomaly_type)
    page = find_page(item_name)
    material_page, material_entry = general_entry(material_of(item_name), profile.family)
    found: list[Passage] = []
    if page:
        own = find_entry(page, anomaly_type)
        found += [entry_passage(page, own)] if own else []
        found += [entry_passage(page, entry) for entry in page.entries if entry.family is profile.family]
    found.insert(1, entry_passage(material_page, material_entry))
    if page:
        found.insert(1, photo_passage(page))
    found.append(photo_passage(material_page))
    return list(dict.fromkeys(found))[:limit]


def entry_passage(page: Page, entry: Entry) -> Passage:
    """One section as a passage."""
    return Passage(page.name, f"{page.name}: {entry.name}", entry.text, f"{page.file}#{entry.name}", entry.family)


def photo_passage(page: Page) -> Passage:
    """What a photo of a good part shows, as a passage."""
    return Passage(page.name, f"{page.name}: a good part", page.photo, f"{page.file}#photo", None)


def _profile(item_name: str, anomaly_type: str, page: Page, entry: Entry, *, known: bool) -> DefectProfile:
    noun = entry.noun if known else _noun_from(anomaly_type) or general_entry(page.material, entry.family)[1].noun
    return DefectProfile(
        item=page.name if not page.general else _plain(item_name),
        anomaly_type=anomaly_type,
        family=entry.family,
        noun=noun,
        place=entry.place if not page.general else entry.place.replace("the part", f"the {_plain(item_name)}"),
        size=entry.size if known else _size_in(anomaly_type) or entry.size,
        severity=entry.severity,
        colour=entry.colour,
        known=known,
        source=page.file,
    )


def _size_in(anomaly_type: str) -> str:
    """The word of the size ladder that a type begins with ("tiny hole"), or ""."""
    words = anomaly_type.lower().replace("_", " ").strip()
    return next((size for size in reversed(SIZES) if words.startswith(f"{size} ")), "")


def _noun_from(anomaly_type: str) -> str:
    """A type such as "hairline crack" as a noun phrase; "" where its last word is not a countable defect."""
    words = _plain(anomaly_type.lower().replace("_", " ").strip().removeprefix(_size_in(anomaly_type))).split()
    if not 2 <= len(words) <= 5 or not _NOUN.fullmatch(words[-1]) or not all(word.isascii() for word in words):
        return ""
    return f"{'an' if words[0][0] in 'aeiou' else 'a'} {' '.join(words)}"


def _not_understood(item_name: str, anomaly_type: str, page: Page | None) -> str:
    asked = f"anomaly type {_shown(anomaly_type)}"
    if page:
        types = ", ".join(entry.name for entry in page.entries)
        cure = f"use one of: {types}, or name a damage such as scratch, crack or stain"
        return f"{asked} names no defect that is known for {page.name}; {cure}"
    families = ", ".join(family.value for family in Family)
    return f"{asked} (item {_shown(item_name)}) names no defect family; use one of: {families}"


def _shown(name: str) -> str:
    return repr(name if len(name) <= 60 else name[:57] + "...")


def _plain(name: str) -> str:
    """Lower case words in British spelling, joined by single spaces; only letters and digits stay."""
    words = re.findall(r"\w+", name[: 4 * MAX_NAME].lower().replace("_", " "))
    return " ".join(_SPELLINGS.get(word, word) for word in words)


def _key(name: str) -> str:
    return " ".join(singular(word) for word in _plain(name).split())


def singular(word: str) -> str:
    """An English word in lower case without its plural ending."""
    if len(word) > 4 and word.endswith(("ches", "shes", "xes", "sses")):
        return word[:-2]
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us")) else word


@cache
def _item_index() -> tuple[dict[str, Page], dict[str, Page]]:
    """Item pages by plain name and by singular name; an item's own name beats an alias."""
    exact: dict[str, Page] = {}
    singular: dict[str, Page] = {}
    own = [(page.name, page) for page in pages() if not page.general]
    named = own + [(alias, page) for page in pages() if not page.general for alias in page.aliases]
    for name, page in named:
        exact.setdefault(_plain(name), page)
        singular.setdefault(_key(name), page)
        singular.setdefault(_key(name).replace(" ", ""), page)
    return exact, singular


@cache
def _general_pages() -> dict[str, Page]:
    return {page.name: page for page in pages() if page.general}


@cache
def _material_words() -> dict[str, str]:
    return {_key(word): page.name for page in pages() if page.general for word in (page.name, *page.words)}
