"""The tiny Qwen3-VL, its tokenizer's phrases, and the commands around a trained folder."""

from __future__ import annotations

import unicodedata
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.tiny_training import fitted_model, planner_sessions
from training import serve, tiny
from training.compat import without_video
from training.recurring import recurring_phrases
from training.tiny import session_texts


@cache
def fitted_tokenizer() -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(fitted_model())


def test_the_command_makes_a_folder_that_the_auto_classes_load(tmp_path: Path) -> None:
    from transformers import AutoModelForImageTextToText, AutoProcessor

    folder = tmp_path / "model"
    assert tiny.main([str(folder), "--size", "smallest", "--seed", "3"]) == 0
    without_video()
    assert type(AutoProcessor.from_pretrained(folder)).__name__ == "Qwen3VLProcessor"
    assert type(AutoModelForImageTextToText.from_pretrained(folder)).__name__ == "Qwen3VLForConditionalGeneration"


def test_a_folder_in_use_and_a_place_without_sessions_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "note.txt").write_text("mine")
    with pytest.raises(SystemExit):
        tiny.main([str(tmp_path)])
    assert "is not empty" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        tiny.main([str(tmp_path / "new"), "--sessions", str(tmp_path)])
    assert "no session in" in capsys.readouterr().err


def test_phrases_that_recur_make_a_conversation_short() -> None:
    tokenizer = fitted_tokenizer()
    conversation = session_texts([planner_sessions()])[0]
    assert len(tokenizer(conversation[0])["input_ids"]) < 5, "the rules are the same in every session"
    assert sum(len(tokenizer(text)["input_ids"]) for text in conversation) < 400


@settings(max_examples=60, deadline=None)
@given(st.text(st.characters(exclude_categories=("Cs",))).map(lambda text: unicodedata.normalize("NFC", text)))
def test_any_text_survives_the_tokenizer_with_phrases(text: str) -> None:
    tokenizer = fitted_tokenizer()
    for whole in (text, f'<thinking>{text}</thinking><tool_call>{{"name": "mask_gen", "arguments": {{}}}}</tool_call>'):
        assert tokenizer.decode(tokenizer(whole)["input_ids"]) == whole


def test_a_phrase_recurs_in_its_share_of_the_sessions_and_breaks_off_at_messages() -> None:
    documents = [[f"the frame of it {word} and the end", "another one"] for word in ("a1", "b2", "c3", "d4")]
    phrases = recurring_phrases(documents, fitted_tokenizer(), 1.0)
    assert "another one" in phrases
    assert not any(word in phrase for phrase in phrases for word in ("a1", "b2", "c3", "d4"))
    assert not any("end" in phrase and "another" in phrase for phrase in phrases)
    assert len(recurring_phrases(documents, fitted_tokenizer(), 1.0, most=1)) == 1


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [(["no-such-folder"], "holds no model"), (["MODEL", "--port", "0"], "choose a port")],
)
def test_what_cannot_be_served_is_refused(
    arguments: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        serve.main([str(fitted_model()) if argument == "MODEL" else argument for argument in arguments])
    assert complaint in capsys.readouterr().err
