"""Reading one file of the user's folder: Markdown, plain text or PDF, cut into passages that can be quoted.

A passage keeps to one heading or one page, so that its source says where to look it up.
"""

from __future__ import annotations

import codecs
import importlib.util
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from mcp_servers.knowledge_retrieval.result import quoted, quoted_line

MARKDOWN, TEXT, PDF = (".md", ".markdown"), (".txt", ".text"), (".pdf",)
SUFFIXES = (*MARKDOWN, *TEXT, *PDF)
"""Endings of the files that are read, in lower case."""
MAX_FILE_BYTES = 32 * 2**20
MAX_PAGES = 500
"""Pages of one PDF that are read."""
LENGTH = 1200
"""Characters up to which paragraphs under one heading share a passage."""

_HEADING = re.compile(r"(#{1,6})\s+(.*?)\s*#*\s*\Z")


class UnreadableFileError(ValueError):
    """A file that cannot be read; the message says why, in a few words, and names the cure."""


@dataclass(frozen=True, slots=True)
class Section:
    """One passage of a file: ``place`` is its anchor ("#Rim", "#page=3", "#line=12"), "" for the beginning."""

    place: str
    title: str
    text: str


@dataclass(frozen=True, slots=True)
class Contents:
    """The passages of a file, and what was odd about reading it ("" where nothing was)."""

    sections: tuple[Section, ...]
    remark: str = ""


def read_file(path: Path) -> Contents:
    """The passages of a Markdown, text or PDF file. Raises UnreadableFileError, and OSError as reading does."""
    if path.stat().st_size > MAX_FILE_BYTES:
        raise UnreadableFileError(f"larger than {MAX_FILE_BYTES >> 20} MiB: split it")
    if path.suffix.lower() in PDF:
        return _read_pdf(path)
    text, remark = _decode(path.read_bytes())
    pieces = _markdown(text) if path.suffix.lower() in MARKDOWN else _plain(text)
    return Contents(tuple(_packed(pieces, path.stem)), remark)


def _decode(data: bytes) -> tuple[str, str]:
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return data.decode("utf-16", errors="replace"), ""
    if b"\0" in data:
        raise UnreadableFileError("not a text file: save it as UTF-8 text")
    try:
        return data.decode("utf-8-sig"), ""
    except UnicodeDecodeError:
        return data.decode("latin-1"), "not UTF-8, read as Latin-1"


def _markdown(text: str) -> Iterator[tuple[str, str, str]]:
    """(place, title, paragraph) of every paragraph; headings inside code fences are none."""
    place, titles, paragraph, fenced = "", dict[int, str](), list[str](), False
    lines = text.splitlines()
    if lines and lines[0].strip() == "---" and "---" in (line.strip() for line in lines[1:]):
        lines = lines[[line.strip() for line in lines[1:]].index("---") + 2 :]  # front matter
    for line in [*lines, ""]:
        fenced ^= line.lstrip().startswith(("```", "~~~"))
        heading = None if fenced else _HEADING.match(line)
        if (heading or not line.strip()) and paragraph:
            yield place, " / ".join(titles.values()), "\n".join(paragraph)
            paragraph = []
        if heading:
            level = len(heading[1])
            titles = {key: title for key, title in titles.items() if key < level} | {level: heading[2]}
            place = f"#{heading[2]}"
        elif line.strip():
            paragraph.append(line)
    if paragraph:
        yield place, " / ".join(titles.values()), "\n".join(paragraph)


def _plain(text: str) -> Iterator[tuple[str, str, str]]:
    paragraph, start = list[str](), 1
    for number, line in enumerate([*text.splitlines(), ""], start=1):
        if line.strip():
            start = start if paragraph else number
            paragraph.append(line)
        elif paragraph:
            yield f"#line={start}", "", "\n".join(paragraph)
            paragraph = []


def _read_pdf(path: Path) -> Contents:
    if importlib.util.find_spec("pypdf") is None:
        raise UnreadableFileError("PDF needs pypdf: pip install 'anomaly-agent[pdf]'")
    from pypdf import PdfReader
    from pypdf.errors import PyPdfError

    try:
        reader = PdfReader(path)
        if reader.is_encrypted and not reader.decrypt(""):
            raise UnreadableFileError("locked with a password: save it without one")
        total = len(reader.pages)
        pages = [reader.pages[number].extract_text() for number in range(min(total, MAX_PAGES))]
    except (
        PyPdfError,
        ValueError,
        KeyError,
        TypeError,
        IndexError,
        AttributeError,
        RecursionError,
        ImportError,
    ) as bad:
        if isinstance(bad, UnreadableFileError):
            raise
        raise UnreadableFileError("damaged, or a PDF of a kind that cannot be read: save it again") from bad
    found = [
        (f"#page={number}", "", paragraph)
        for number, page in enumerate(pages, start=1)
        for paragraph in re.split(r"\n\s*\n", page)
    ]
    sections = tuple(_packed(found, path.stem))
    if not sections:
        raise UnreadableFileError("a PDF without text (a scan?): run text recognition on it")
    return Contents(sections, f"only the first {MAX_PAGES} of {total} pages are read" if total > MAX_PAGES else "")


def _packed(pieces: Iterable[tuple[str, str, str]], stem: str) -> Iterator[Section]:
    """Paragraphs of the same place and title together, as long as they fit; long ones cut between sentences."""
    place = title = text = ""
    for piece_place, piece_title, paragraph in pieces:
        follows = piece_title == title and (piece_place == place or piece_place.startswith("#line="))
        for part in _cut(quoted(paragraph, limit=len(paragraph) + 1)):
            if text and not (follows and len(text) + len(part) < LENGTH):
                yield _section(place, title, text, stem)
                text = ""
            if not text:
                place, title = piece_place, piece_title
            text, follows = f"{text}\n\n{part}".strip(), True
    if text:
        yield _section(place, title, text, stem)


def _cut(paragraph: str) -> Iterator[str]:
    while len(paragraph) > LENGTH:
        ends = [match.end() for match in re.finditer(r"[.!?]\s", paragraph[:LENGTH])]
        at = ends[-1] if ends else LENGTH
        yield paragraph[:at].strip()
        paragraph = paragraph[at:]
    if paragraph.strip():
        yield paragraph.strip()


def _section(place: str, title: str, text: str, stem: str) -> Section:
    return Section(quoted_line(place), quoted_line(f"{stem}: {title}" if title else stem), text)
