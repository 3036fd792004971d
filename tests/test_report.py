"""The report: one safe, self-contained page for every kind of session, finished or not."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from agent.report import render_report, write_report
from agent.report.__main__ import main
from agent.report.prompts import word_changes
from agent.session import SessionError, SessionWriter, read_session
from tests.recorded_session import FIRST, REVIEW, SECOND, Recorder, finished


class Page(HTMLParser):
    """Tags, and the text outside style and script, of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text, self.raw, self._inside = "", dict[str, list[str]](), ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._inside = tag if tag in ("style", "script") else ""

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.raw.setdefault(self._inside, []).append(data)
        else:
            self.text += data

    def attributes(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.tags if name == tag]


def test_a_finished_run_tells_the_whole_story(tmp_path: Path) -> None:
    page = Page(render_report(read_session(finished(tmp_path))))
    text = " ".join(page.text.split())
    for expected in ("Passed", "8.2 /10", "planner", "image_gen: local", "2.5 s", "$0.0500", "kept", REVIEW):
        assert expected.replace(" ", "") in text.replace(" ", ""), expected
    assert "Incomplete" not in text
    assert text.index("Turn 1") < text.index("Turn 5") < text.index("Turn 6 answer")
    assert "You are an inspection engineer." in text
    ranges = [a for a in page.attributes("input") if a.get("type") == "range"]
    assert [a["name"] for a in ranges] == ["cut", "opacity"]
    assert all(a.get("aria-label") for a in ranges)


def test_the_page_asks_for_nothing_outside_itself(tmp_path: Path) -> None:
    page = Page(render_report(read_session(finished(tmp_path))))
    for _, attributes in page.tags:
        for name in ("src", "href"):
            assert attributes.get(name) is None or str(attributes[name]).startswith("data:")
        assert not [name for name in attributes if name.startswith("on") or name == "style"]
    assert "url(" not in page.raw["style"][0]
    assert "@import" not in page.raw["style"][0]


def test_the_security_policy_allows_exactly_the_pages_own_style_and_script(tmp_path: Path) -> None:
    page = Page(render_report(read_session(finished(tmp_path))))
    policy = next(a["content"] for a in page.attributes("meta") if a.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    assert "unsafe" not in policy
    for kind, text in (("style", page.raw["style"][0]), ("script", page.raw["script"][-1])):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in policy


def test_text_written_by_others_stays_text(tmp_path: Path) -> None:
    evil = "</script><script>alert(1)</script><img src=x onerror=alert(1)>"
    recorder = Recorder(tmp_path, item=evil)
    recorder.call("knowledge_retrieval", {evil: evil}, thought=evil)
    recorder.result("knowledge_retrieval", {"note": evil})
    recorder.call("image_gen", {"prompt": evil})
    recorder.result("image_gen", {}, error=evil)
    recorder.attempt(evil, 5, review=evil)
    recorder.end("tool_error", error=evil)
    result = {"files": {evil: "javascript:alert(1)", "up": "../../etc/passwd"}, "backends": {evil: evil}}
    page = Page(render_report(read_session(tmp_path), result))
    assert len(page.attributes("script")) == 2
    assert all(a.get("onerror") is None for a in page.attributes("img"))
    assert json.loads(page.raw["script"][0])["item_name"] == evil
    assert not page.attributes("a")
    assert page.text.count(evil) > 5


def test_a_killed_run_is_shown_as_far_as_it_got(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path)
    recorder.attempt(FIRST, 5.5)
    recorder.call("image_gen", {"prompt": SECOND})
    recorder.writer.close()
    with open(tmp_path / "session.jsonl", "ab") as log:
        log.write(b'{"v": 1, "seq"')
    text = Page(render_report(read_session(tmp_path))).text
    assert "Incomplete session" in text
    assert "half-written last line" in text
    assert "The log ends before the tool answered" in text
    assert REVIEW in text


def test_an_empty_log_renders(tmp_path: Path) -> None:
    SessionWriter(tmp_path).close()
    assert "Incomplete" in render_report(read_session(tmp_path))


def test_a_run_without_any_synthesis_shows_the_original_and_why(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path)
    recorder.call("image_gen", {"prompt": FIRST})
    recorder.result("image_gen", {}, error="the editor refused the prompt")
    recorder.end("tool_error", error="image_gen failed three times")
    page = Page(render_report(read_session(tmp_path)))
    assert "Failed" in page.text
    assert "image_gen failed three times" in page.text
    assert "ToolError: the editor refused the prompt" in page.text
    assert "No image was synthesized" in page.text
    assert not page.attributes("input")


def test_without_a_mask_there_is_no_overlay_control(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path)
    recorder.attempt(FIRST, 5.5)
    recorder.end("max_turns")
    page = Page(render_report(read_session(tmp_path)))
    assert "Below threshold" in page.text
    assert "the turns ran out" in page.text
    assert [a["name"] for a in page.attributes("input")] == ["cut"]


def test_a_lost_or_damaged_image_is_named_in_its_place(tmp_path: Path) -> None:
    finished(tmp_path)
    first, second, *_ = sorted((tmp_path / "images").iterdir())
    first.unlink()
    second.write_bytes(second.read_bytes()[:60])
    text = Page(render_report(read_session(tmp_path))).text
    assert first.stem[:12] in text
    assert second.stem[:12] in text


def test_a_turn_outside_the_protocol_is_shown_as_written(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path)
    recorder.message("assistant", "I would rather chat.")
    recorder.message("user", "Write one tool call or one answer.")
    recorder.message("assistant", "<thinking>cut short")
    recorder.end("policy_error")
    text = Page(render_report(read_session(tmp_path))).text
    for expected in ("I would rather chat.", "Write one tool call or one answer.", "cut short"):
        assert expected in text


def test_large_photos_are_made_small(tmp_path: Path) -> None:
    html = render_report(read_session(finished(tmp_path, size=(4000, 3000))))
    assert len(html) < 3_000_000
    for uri in re.findall(r'src="data:image/[a-z]+;base64,([^"]+)"', html):
        with Image.open(io.BytesIO(base64.b64decode(uri))) as picture:
            assert max(picture.size) <= 1024


def test_result_json_wins_over_what_the_session_suggests(tmp_path: Path) -> None:
    result = {"score": 6.1, "passed": False, "backends": {"image_gen": "gemini"}, "files": ["anomaly.png"]}
    page = Page(render_report(read_session(finished(tmp_path)), result))
    assert "Below threshold" in page.text
    assert "gemini" in page.text
    assert [a["href"] for a in page.attributes("a")] == ["anomaly.png"]


@pytest.mark.parametrize(
    ("before", "after"), [(FIRST, SECOND), ("", SECOND), (FIRST, ""), ("a b", "a b"), (" a", "b ")]
)
def test_changes_rebuild_both_prompts(before: str, after: str) -> None:
    changes = word_changes(before, after)
    assert "".join(text for change, text in changes if change != "removed") == after
    kept = "".join(text for change, text in changes if change != "added")
    assert kept.split() == before.split()


def test_only_the_changed_words_are_marked() -> None:
    marked = [(change, text.strip()) for change, text in word_changes(FIRST, SECOND) if change != "same"]
    assert marked == [("removed", "face"), ("added", "rim"), ("removed", "straight"), ("added", "curved faint")]


def test_the_command_writes_the_report_into_the_run_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    finished(tmp_path / "session")
    (tmp_path / "result.json").write_text('{"score": 9.9}')
    for path in (tmp_path, tmp_path / "session"):
        assert main([str(path)]) == 0
        assert capsys.readouterr().out == f"{tmp_path / 'report.html'}\n"
    assert "9.9" in (tmp_path / "report.html").read_text("utf-8")
    assert main([str(tmp_path), "--out", str(tmp_path / "other.html")]) == 0
    assert (tmp_path / "other.html").exists()


def test_a_session_folder_of_its_own_keeps_its_report(tmp_path: Path) -> None:
    assert write_report(finished(tmp_path / "a17")) == tmp_path / "a17" / "report.html"


@pytest.mark.parametrize("case", ["no folder", "no session", "damaged result", "unwritable"])
def test_bad_input_is_one_line_and_exit_code_two(tmp_path: Path, capsys: pytest.CaptureFixture[str], case: str) -> None:
    arguments = [str(tmp_path / "missing" if case == "no folder" else tmp_path)]
    if case in ("damaged result", "unwritable"):
        finished(tmp_path / "session")
    if case == "damaged result":
        (tmp_path / "result.json").write_text("{")
    if case == "unwritable":
        arguments += ["--out", str(tmp_path / "no" / "such" / "report.html")]
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert captured.err.startswith("error: ")


def test_a_damaged_result_raises(tmp_path: Path) -> None:
    finished(tmp_path / "session")
    (tmp_path / "result.json").write_text("[]")
    with pytest.raises(SessionError, match="delete it"):
        write_report(tmp_path)


def test_a_good_score_without_a_mask_says_so(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path)
    recorder.attempt(FIRST, 8.0)
    recorder.end(final=2)
    text = Page(render_report(read_session(tmp_path), {"score": 8.0, "passed": False, "mask": None})).text
    assert "No mask" in text
    assert "Below threshold" not in text


def test_sixteen_bit_photos_keep_their_shades(tmp_path: Path) -> None:
    stream = io.BytesIO()
    Image.frombytes("I;16", (64, 64), b"".join(v.to_bytes(2, "little") for v in range(0, 65536, 16))).save(
        stream, "PNG"
    )
    recorder = Recorder(tmp_path, size=(64, 64))
    recorder.message("user", "another", [recorder.image("original", 1, stream.getvalue())])
    recorder.end("cancelled")
    uris = re.findall(r'src="data:image/jpeg;base64,([^"]+)"', render_report(read_session(tmp_path)))
    with Image.open(io.BytesIO(base64.b64decode(uris[-1]))) as picture:
        low, high = picture.convert("L").getextrema()
    assert low < 8
    assert high > 247
