"""The format of a knowledge page, parsed strictly: a mistake in a page is an error that names file and line.

A page is Markdown: `# name`, then `field: value` lines about the item, then one `## type` section per defect
with its own fields, a blank line and the prose. `catalogue.py` loads all pages and answers questions on them.
"""

from __future__ import annotations

from dataclasses import dataclass

from mcp_servers.knowledge.families import SEVERITIES, SIZES, Family

_PAGE_FIELDS = frozenset({"aliases", "material", "photo", "words"})
_ENTRY_FIELDS = frozenset({"aliases", "family", "noun", "place", "size", "severity", "colour"})
_REQUIRED = ("family", "noun", "place", "size", "severity")


class PageError(ValueError):
    """A knowledge page is malformed; the message begins with file name and line."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One defect on one item: the renderer's parameters and the inspection engineer's prose."""

    name: str
    aliases: tuple[str, ...]
    family: Family
    noun: str
    place: str
    size: str
    severity: str
    colour: str
    text: str


@dataclass(frozen=True, slots=True)
class Page:
    """One item, or one material for a page whose file is called ``general_*.md``.

    ``words`` (general pages only) are words of item names that suggest the material; ``photo`` says what a
    photo of a good part shows.
    """

    file: str
    name: str
    aliases: tuple[str, ...]
    material: str
    photo: str
    words: tuple[str, ...]
    entries: tuple[Entry, ...]

    @property
    def general(self) -> bool:
        """True for a page on a material rather than on an item."""
        return self.file.startswith("general_")


def parse_page(file: str, text: str) -> Page:
    """Parse the text of one page; raises PageError naming ``file`` and the line."""
    blocks = _split(file, text)
    title, fields, prose, line = blocks[0]
    _check_fields(file, line, fields, allowed=_PAGE_FIELDS, required=("material", "photo"))
    if prose:
        raise PageError(f"{file}:{line}: prose belongs below a '## type' heading")
    entries = tuple(_entry(file, *block) for block in blocks[1:])
    names = [entry.name for entry in entries]
    if len(set(names)) != len(names) or not names:
        raise PageError(f"{file}:{line}: a page needs at least one '## type', each only once")
    return Page(
        file=file,
        name=title,
        aliases=_listed(fields.get("aliases", "")),
        material=fields["material"],
        photo=fields["photo"],
        words=_listed(fields.get("words", "")),
        entries=entries,
    )


def _split(file: str, text: str) -> list[tuple[str, dict[str, str], str, int]]:
    """The page as (title, fields, prose, line of the heading), the item's own block first."""
    blocks: list[tuple[str, dict[str, str], str, int]] = []
    for number, raw in enumerate(text.splitlines(), start=1):
        line = raw.strip()
        heading = "## " if blocks else "# "
        if line.startswith(heading):
            blocks.append((line.removeprefix(heading).strip(), {}, "", number))
            continue
        if not blocks:
            raise PageError(f"{file}:{number}: the first line must be '# name'")
        title, fields, prose, start = blocks[-1]
        key, colon, value = line.partition(":")
        if colon and not prose and key in _PAGE_FIELDS | _ENTRY_FIELDS:
            if key in fields:
                raise PageError(f"{file}:{number}: '{key}' is given twice for '{title}'")
            fields[key] = value.strip()
        elif line:
            blocks[-1] = (title, fields, f"{prose} {line}".strip(), start)
    if not blocks:
        raise PageError(f"{file}:1: the page is empty")
    return blocks


def _entry(file: str, title: str, fields: dict[str, str], prose: str, line: int) -> Entry:
    _check_fields(file, line, fields, allowed=_ENTRY_FIELDS, required=_REQUIRED)
    if not prose:
        raise PageError(f"{file}:{line}: '{title}' has no prose")
    for field, ladder in (("family", tuple(Family)), ("size", SIZES), ("severity", SEVERITIES)):
        if fields[field] not in ladder:
            choices = ", ".join(ladder)
            raise PageError(f"{file}:{line}: unknown {field} '{fields[field]}' for '{title}'; use one of: {choices}")
    return Entry(
        name=title,
        aliases=_listed(fields.get("aliases", "")),
        family=Family(fields["family"]),
        noun=fields["noun"],
        place=fields["place"],
        size=fields["size"],
        severity=fields["severity"],
        colour=fields.get("colour", ""),
        text=prose,
    )


def _check_fields(
    file: str, line: int, fields: dict[str, str], *, allowed: frozenset[str], required: tuple[str, ...]
) -> None:
    wrong = sorted(set(fields) - allowed)
    if wrong:
        raise PageError(f"{file}:{line}: '{wrong[0]}' is not a field here")
    for field in required:
        if not fields.get(field):
            raise PageError(f"{file}:{line}: '{field}' is missing or empty")


def _listed(value: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in value.split(",") if part.strip())
