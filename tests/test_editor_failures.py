"""Editors behind an API that fail: each failure has its kind, is told in one line, and holds no key."""

from __future__ import annotations

from pathlib import Path

import pytest

from mcp_servers.remote import retry
from mcp_servers.store import Store

from .servers.editing import BACKENDS, KEY, call, choice_of, facts, failure, serve
from .servers.fake_editors import grpc_editor, http_editor


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """No waiting between attempts, and no keys of the machine's."""
    monkeypatch.setattr(retry, "FIRST_WAIT", 0.001)
    for name in ("GEMINI_API_KEY", "GOOGLE_API_KEY", "OPENAI_API_KEY", "XAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


FAILURES = {
    "500": ("unavailable", 3),
    "429": ("rate_limited", 3),
    "401": ("auth", 1),
    "404": ("rejected", 1),
    "garbled": ("malformed", None),
    "no image": ("malformed", 1),
    "empty": ("empty", 1),
    "unchanged": ("empty", 1),
    "another": ("empty", 1),
    "block": ("refused", 1),
}


@pytest.mark.parametrize("behaviour", FAILURES)
def test_every_failure_has_its_kind_and_names_a_cure(
    store: Store, photo_file: Path, backend: str, behaviour: str
) -> None:
    kind, attempts = FAILURES[behaviour]
    if (backend, behaviour) == ("comfyui", "block"):
        kind = "rejected"  # a workflow that fails: nobody refuses there
    with serve(backend, behaviour) as editor:
        failed = failure(call(store, choice_of(backend, editor), str(photo_file)))
    assert failed["kind"] == kind, failed
    assert attempts in (None, failed["attempts"])
    assert failed["attempts"] == len(editor.requests)
    assert ": " in failed["text"]


def test_passing_trouble_is_waited_out(store: Store, photo_file: Path, backend: str) -> None:
    with serve(backend, "429", "500", "ok") as editor:
        made = facts(call(store, choice_of(backend, editor), str(photo_file)))
    assert made["attempts"] == len(editor.requests) == 3


def test_a_slow_editor_is_given_up_without_asking_again(store: Store, photo_file: Path, backend: str) -> None:
    with serve(backend, "slow") as editor:
        failed = failure(call(store, choice_of(backend, editor, timeout=0.5), str(photo_file)))
    assert failed["kind"] == "timeout"
    assert len(editor.requests) == 1


def test_an_editor_that_does_not_run_is_unavailable(store: Store, photo_file: Path, backend: str) -> None:
    with serve(backend, "ok") as editor:
        gone = choice_of(backend, editor, attempts=2)
    failed = failure(call(store, gone, str(photo_file)))
    assert failed["kind"] == "unavailable"
    assert failed["attempts"] == 2


def test_gemini_blocks_after_drawing_too(store: Store, photo_file: Path) -> None:
    with http_editor("late block") as editor:
        failed = failure(call(store, choice_of("gemini", editor), str(photo_file)))
    assert failed["kind"] == "refused"
    assert "IMAGE_SAFETY" in failed["text"]


def test_what_was_paid_for_a_useless_answer_is_told(store: Store, photo_file: Path) -> None:
    with http_editor("unchanged") as editor:
        failed = failure(call(store, choice_of("gemini", editor), str(photo_file)))
    assert failed["cost_usd"] == pytest.approx(0.067 + 1300 * 0.5e-6)
    with grpc_editor("block") as editor:
        failed = failure(call(store, choice_of("xai", editor), str(photo_file)))
    assert failed["cost_usd"] == pytest.approx(0.022)


def test_keys_reach_the_service_and_nothing_else(
    store: Store, photo_file: Path, backend: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with serve(backend, "401") as editor:
        call(store, choice_of(backend, editor), str(photo_file))
    headers = editor.requests[0]["headers"]
    assert KEY in (headers.get("x-goog-api-key") or headers["authorization"])
    assert KEY not in repr(choice_of(backend, editor))
    assert KEY not in "".join(capfd.readouterr())


def test_a_vendors_key_is_not_sent_in_the_clear(
    store: Store, photo_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("GEMINI_API_KEY", "OPENAI_API_KEY", "XAI_API_KEY"):
        monkeypatch.setenv(name, KEY)
    for backend in BACKENDS:
        with serve(backend, "ok") as editor:
            facts(call(store, choice_of(backend, editor, api_key=""), str(photo_file)))
        assert KEY not in str(editor.requests[0]["headers"]), backend
