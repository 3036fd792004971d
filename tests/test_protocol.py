"""The text of a turn: reading is the inverse of writing, and what is wrong is named."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.protocol import (
    Answer,
    ProtocolError,
    ToolCall,
    Turn,
    observation,
    parse_turn,
    read_observation,
    render_turn,
)

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
thoughts = st.text().map(str.strip).filter(lambda text: "</thinking>" not in text)
calls = st.builds(ToolCall, st.text(), st.dictionaries(st.text(), json_values, max_size=4))
answers = st.builds(Answer, st.text(), st.none() | st.integers(), st.booleans(), st.text())


@given(st.builds(Turn, thoughts, calls | answers))
def test_reading_a_written_turn_gives_the_same_turn(turn: Turn) -> None:
    assert parse_turn(render_turn(turn)) == turn


@given(st.text(), st.dictionaries(st.text(), json_values, max_size=4))
def test_reading_an_observation_gives_its_payload(name: str, payload: dict[str, object]) -> None:
    name = name.replace("\n", " ")
    assert read_observation(observation(name, payload)) == payload


@given(st.text())
def test_any_text_is_either_a_turn_or_a_protocol_error(text: str) -> None:
    with pytest.raises(ProtocolError):
        parse_turn("<thinking>" + text.replace("tool_call", "").replace("answer", ""))


CALL = '<tool_call>{"name": "image_gen", "arguments": {}}</tool_call>'


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "write <thinking>"),
        ("I will call image_gen.", "write <thinking>"),
        (CALL, "write <thinking>"),
        ("<thinking>a</thinking>", "write <thinking>"),
        (f"<thinking>a</thinking>{CALL} and more", "write <thinking>"),
        (f"<thinking>a</thinking>{CALL}{CALL}", "valid JSON"),
        ("<thinking>a</thinking><tool_call>{</tool_call>", "valid JSON"),
        ("<thinking>a</thinking><tool_call>[1]</tool_call>", "JSON object"),
        ('<thinking>a</thinking><tool_call>{"name": "x"}</tool_call>', "exactly the fields"),
        ('<thinking>a</thinking><tool_call>{"name": 1, "arguments": {}}</tool_call>', "must be a string"),
        ('<thinking>a</thinking><answer>{"status": "success"}</answer>', "final_image_index"),
        ("<thinking>a</thinking><tool_call>" + "[" * 100_000 + "</tool_call>", "valid JSON"),
        (
            '<thinking>a</thinking><answer>{"status": "success", "final_image_index": true, "mask_generated": true, '
            '"synthesis_logic": ""}</answer>',
            "final_image_index",
        ),
    ],
)
def test_a_malformed_turn_is_refused_in_words_a_model_can_act_on(text: str, says: str) -> None:
    with pytest.raises(ProtocolError, match=says):
        parse_turn(text)


def test_closing_tags_inside_arguments_do_not_end_the_call() -> None:
    call = ToolCall("image_gen", {"prompt": "a </tool_call> in </thinking> the </answer> text"})
    text = render_turn(Turn("t", call))
    assert text.count("</tool_call>") == 1
    assert json.loads(text[text.index("{") : text.rindex("}") + 1])["arguments"] == call.arguments
