"""Reading the files of a folder of notes: Markdown, text and PDF, cut into passages that can be quoted."""

from __future__ import annotations

from pathlib import Path

import pytest
from pypdf import PdfReader, PdfWriter

from mcp_servers.knowledge_retrieval import reader
from mcp_servers.knowledge_retrieval.result import MAX_TEXT, quoted

from .pdf_files import pdf


@pytest.mark.parametrize("kind", ["empty", "locked", "scan"])
def test_pdfs_without_readable_text_say_why(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "x.pdf"
    path.write_bytes(b"" if kind == "empty" else pdf("" if kind == "scan" else "secret scratch"))
    if kind == "locked":
        writer = PdfWriter(clone_from=PdfReader(path))
        writer.encrypt("owner", "user", algorithm="RC4-128")
        writer.write(path)
    says = {"empty": "damaged", "locked": "password", "scan": "text recognition"}[kind]
    with pytest.raises(reader.UnreadableFileError, match=says):
        reader.read_file(path)


def test_long_text_is_cut_into_bounded_passages(tmp_path: Path) -> None:
    path = tmp_path / "long.txt"
    path.write_text("A scratch shines. " * 2000 + "x" * 5000, encoding="utf-8")
    sections = reader.read_file(path).sections
    assert len(sections) > 20
    assert all(0 < len(section.text) <= reader.LENGTH <= MAX_TEXT for section in sections)
    assert len(quoted("word " * 5000)) <= MAX_TEXT


def test_a_front_matter_that_never_ends_is_text(tmp_path: Path) -> None:
    path = tmp_path / "a.md"
    path.write_text("---\nA scratch.\n", encoding="utf-8")
    assert [section.text for section in reader.read_file(path).sections] == ["---\nA scratch."]


def test_headings_nest_and_short_paragraphs_of_one_heading_share_a_passage(tmp_path: Path) -> None:
    path = tmp_path / "a.md"
    path.write_text("# A\n\nOne.\n\nTwo.\n\n## B #\nThree.\n### C\nFour.\n# D\nFive.", encoding="utf-8")
    told = [(section.place, section.title, section.text) for section in reader.read_file(path).sections]
    assert told == [
        ("#A", "a: A", "One.\n\nTwo."),
        ("#B", "a: A / B", "Three."),
        ("#C", "a: A / B / C", "Four."),
        ("#D", "a: D", "Five."),
    ]


def test_a_pdf_without_pypdf_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x.pdf").write_bytes(pdf("text"))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(reader.UnreadableFileError, match=r"pip install 'anomaly-agent\[pdf\]'"):
        reader.read_file(tmp_path / "x.pdf")


def test_of_a_long_pdf_the_first_pages_are_read_and_that_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader, "MAX_PAGES", 1)
    (tmp_path / "x.pdf").write_bytes(pdf("one", "two"))
    contents = reader.read_file(tmp_path / "x.pdf")
    assert [section.text for section in contents.sections] == ["one"]
    assert "first 1 of 2 pages" in contents.remark
