"""Knowledge retrieval with nothing but SQLite: the exact section first, then what full-text search finds.

All sections of `mcp_servers/knowledge/pages` go into an in-memory FTS5 table on the first question; related
ones are ranked by bm25. The note always says whether the item and the type were known.
"""

from __future__ import annotations

import re
import sqlite3
from functools import cache

from mcp_servers.errors import ToolInputError
from mcp_servers.knowledge import catalogue
from mcp_servers.knowledge.catalogue import UnknownAnomalyType
from mcp_servers.knowledge_retrieval.result import KnowledgePassage, Retrieval

MAX_PASSAGES = 20
"""Largest number of passages that one answer may hold."""

_FILLERS = frozenset("the and with for from that this not one part item object type defect anomaly other".split())  # noqa: SIM905


def retrieve(item_name: str, anomaly_type: str, limit: int = 4) -> Retrieval:
    """Look up how a defect looks on an object, where it occurs and what betrays a fake.

    ``limit`` is 1 to 20 passages. Raises ToolInputError for a limit outside that range and for names that are
    empty, unreadable or longer than 200 characters. An unknown type is not an error: the note tells.
    """
    if not 1 <= limit <= MAX_PASSAGES:
        raise ToolInputError(f"limit must be 1 to {MAX_PASSAGES}, not {limit}")
    catalogue.check_name("item_name", item_name)
    catalogue.check_name("anomaly_type", anomaly_type)
    certain: list[catalogue.Passage] = []
    words = f"{item_name} {anomaly_type}"
    try:
        profile = catalogue.profile_for(item_name, anomaly_type)
    except UnknownAnomalyType as error:
        known, note = False, str(error)
    else:
        known = profile.known
        certain = catalogue.passages_for(item_name, anomaly_type, limit=1 if known else 2)
        note = f"from {profile.source}" if known else _derived_note(item_name, anomaly_type, profile.source)
        words = f"{words} {profile.family.replace('_', ' ')} {catalogue.material_of(item_name)}"
    found = [_scored(passage, 1.0) if known else _scored(passage, 0.9) for passage in certain]
    sources = {passage.source for passage in certain}
    found += [hit for hit in _search(words, limit + len(found)) if hit.source not in sources]
    if not found:
        note = f"nothing in the knowledge base fits; {note}"
    return Retrieval(item_name=item_name, anomaly_type=anomaly_type, known=known, note=note, passages=found[:limit])


def _derived_note(item_name: str, anomaly_type: str, source: str) -> str:
    page = catalogue.find_page(item_name)
    if page is None:
        return f"no page on the item {item_name!r}; derived from {source}"
    types = ", ".join(entry.name for entry in page.entries)
    return f"{anomaly_type!r} is not described for {page.name} (known: {types}); derived from {source}"


def _scored(passage: catalogue.Passage, score: float) -> KnowledgePassage:
    return KnowledgePassage(source=passage.source, title=passage.title, text=passage.text, score=score, trusted=True)


def search_words(text: str) -> set[str]:
    """The words of a text that are worth searching for, in lower case; letters and digits only."""
    return {word for word in re.findall(r"[^\W_]+", text.lower()) if len(word) > 2 and word not in _FILLERS}


def _search(words: str, limit: int) -> list[KnowledgePassage]:
    """Sections that share a word with the query, best first; scores stay below those of certain passages."""
    tokens = search_words(words)
    if not tokens:
        return []
    query = " OR ".join(f'"{token}"' for token in sorted(tokens))
    rows = _index().execute(
        "SELECT source, title, text, bm25(sections, 0, 4, 2, 1) AS rank FROM sections"
        " WHERE sections MATCH ? ORDER BY rank, source LIMIT ?",
        (query, limit),
    )
    return [
        KnowledgePassage(source=source, title=title, text=text, score=max(1e-6, 0.8 * rank / (rank - 4)), trusted=True)
        for source, title, text, rank in rows
    ]


@cache
def _index() -> sqlite3.Connection:
    """The full-text table, built once per process and only read afterwards."""
    connection = sqlite3.connect(":memory:", check_same_thread=False)
    connection.execute(
        "CREATE VIRTUAL TABLE sections USING fts5(source UNINDEXED, item, title, text, tokenize='porter unicode61')"
    )
    for page in catalogue.pages():
        names = " ".join((page.name.replace("_", " "), *page.aliases))
        passages = [catalogue.photo_passage(page), *(catalogue.entry_passage(page, entry) for entry in page.entries)]
        rows = [(p.source, names, p.title.replace("_", " "), p.text) for p in passages]
        connection.executemany("INSERT INTO sections VALUES (?, ?, ?, ?)", rows)
    return connection
