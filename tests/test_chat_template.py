"""The chat template, through the processor that trains and serves: what a model sees, writes and learns from."""

from __future__ import annotations

import hashlib
import io
import itertools
import unicodedata
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jinja2.exceptions import TemplateError
from PIL import Image

from agent.chat_template import END_OF_TURN, GENERATION_PROMPT, chat_template, template_hash, template_messages
from agent.protocol import (
    FIVE_TOOLS,
    Answer,
    Message,
    ToolCall,
    Turn,
    observation,
    parse_turn,
    render_turn,
    system_prompt,
    user_prompt,
)
from agent.task import Task
from tests.recorded_session import png
from tests.tiny_model import ids_of, image_ref, tiny_processor

QUICK = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])

words = (
    st.text(st.characters(exclude_categories=("Cs",)), max_size=40)
    .map(lambda text: unicodedata.normalize("NFC", text))  # as Qwen's tokenizer does
    .filter(lambda text: "<|" not in text)
)
thoughts = words.filter(lambda text: "</thinking>" not in text)
calls = st.builds(
    ToolCall, st.sampled_from(FIVE_TOOLS), st.dictionaries(words, st.one_of(words, st.integers(), st.booleans()))
)
answers = st.builds(Answer, words, st.none() | st.integers(2, 9), st.booleans(), words)
call_turns = st.builds(Turn, thoughts, calls)
last_turns = st.builds(Turn, thoughts, answers)
sizes = st.tuples(st.integers(1, 150), st.integers(1, 150))


@st.composite
def conversations(draw: st.DrawFn) -> list[Message]:
    """An episode as the loop has it: rules, task and photo, then turns, observations (some with an image), repairs."""
    number = 1

    def picture() -> tuple[Any, ...]:
        nonlocal number
        width, height = draw(sizes)
        number += 1
        return (image_ref(number - 1, png((width, height)), width, height),)

    task = Task("photo.png", draw(words), draw(words))
    messages = [Message("system", system_prompt([])), Message("user", user_prompt(task), picture())]
    for turn in draw(st.lists(call_turns, max_size=4)):
        assert isinstance(turn.action, ToolCall)
        messages.append(Message("assistant", render_turn(turn)))
        shown = picture() if turn.action.name == "image_gen" else ()
        messages.append(
            Message("tool", observation(turn.action.name, {"review": draw(words)}), shown, turn.action.name)
        )
        if draw(st.booleans()):
            messages += [
                Message("assistant", f"unreadable {draw(words)}"),
                Message("user", f"Write it again: {draw(words)}"),
            ]
    messages.append(Message("assistant", render_turn(draw(last_turns))))
    return messages


@QUICK
@given(st.one_of(call_turns, last_turns))
def test_a_turn_that_is_rendered_and_parsed_is_the_same_turn(turn: Turn) -> None:
    stripped = Turn(turn.thinking.strip(), turn.action)
    assert parse_turn(render_turn(turn)) == stripped


@QUICK
@given(conversations())
def test_rendering_is_append_only(messages: list[Message]) -> None:
    processor = tiny_processor()
    rendered = [processor.apply_chat_template(template_messages(messages[: n + 1])) for n in range(len(messages))]
    for shorter, longer in itertools.pairwise(rendered):
        assert longer.startswith(shorter)


@QUICK
@given(conversations())
def test_what_precedes_a_supervised_turn_is_the_prompt_that_a_server_is_given(messages: list[Message]) -> None:
    processor = tiny_processor()
    whole = processor.apply_chat_template(template_messages(messages))
    for n, message in enumerate(messages):
        if message.role == "assistant":
            prompt = processor.apply_chat_template(template_messages(messages[:n]), add_generation_prompt=True)
            assert prompt.endswith(GENERATION_PROMPT)
            assert whole.startswith(prompt + message.content + END_OF_TURN)


@QUICK
@given(conversations())
def test_ids_recorded_turn_by_turn_are_the_ids_of_the_whole_conversation(messages: list[Message]) -> None:
    processor = tiny_processor()
    parsed = [m for m in messages if m.role != "assistant" or m.content.startswith("<thinking>")]
    recorded: list[int] = []
    for n, message in enumerate(parsed):
        if message.role == "assistant":
            prompt = ids_of(processor, parsed[:n], generate=True)
            assert prompt[: len(recorded)] == recorded, "the prompt of a turn goes on from the last turn's ids"
            recorded = prompt + processor.tokenizer(message.content + END_OF_TURN)["input_ids"]
    assert ids_of(processor, parsed)[: len(recorded)] == recorded


@QUICK
@given(conversations())
def test_the_loss_mask_covers_the_assistants_turns_and_nothing_else(messages: list[Message]) -> None:
    processor = tiny_processor()
    filled = with_pictures(messages)
    out = processor.apply_chat_template(filled, tokenize=True, return_dict=True, return_assistant_tokens_mask=True)
    assert learned(processor, out["input_ids"][0], out["assistant_masks"][0]) == written(messages)


def test_the_collator_that_trains_labels_the_assistants_turns_alone() -> None:
    from trl.trainer.sft_trainer import DataCollatorForVisionLanguageModeling

    processor = tiny_processor()
    short = [*opening((64, 40)), Message("assistant", "<thinking>a</thinking><answer>{}</answer>")]
    long = [
        *opening((150, 224)),
        Message("assistant", "<thinking>one</thinking><tool_call>{}</tool_call>"),
        Message("tool", "[Tool Response from image_gen]\n{}", (image_ref(2, png((97, 33)), 97, 33),), "image_gen"),
        Message("assistant", "<thinking>two</thinking><answer>{}</answer>"),
    ]
    collate = DataCollatorForVisionLanguageModeling(processor, assistant_only_loss=True)
    batch = collate([{"messages": with_pictures(m), "images": []} for m in (short, long)])
    for row, messages in enumerate((short, long)):
        labels = batch["labels"][row].tolist()
        mask = [int(label != -100) for label in labels]
        assert learned(processor, batch["input_ids"][row].tolist(), mask) == written(messages)
        assert all(
            label in (-100, token) for label, token in zip(labels, batch["input_ids"][row].tolist(), strict=True)
        )


def test_trl_takes_the_template_as_one_that_marks_what_to_learn_and_where_to_stop() -> None:
    from trl.chat_template_utils import has_generation_markers, is_chat_template_stop_token_trained

    assert has_generation_markers(chat_template())
    assert is_chat_template_stop_token_trained(tiny_processor())


def test_thoughts_stay_in_every_turn() -> None:
    messages = [*opening((32, 32))]
    for n in range(3):
        messages += [
            Message("assistant", f"<thinking>thought {n}</thinking><tool_call>{{}}</tool_call>"),
            Message("tool", "[Tool Response from mask_gen]\n{}", name="mask_gen"),
        ]
    text = tiny_processor().apply_chat_template(template_messages(messages), add_generation_prompt=True)
    assert all(f"<thinking>thought {n}</thinking>" in text for n in range(3))


def test_an_observation_is_a_user_turn_with_its_text_as_it_is_and_its_image_behind() -> None:
    shown = (image_ref(2, png(), 96, 64),)
    message = Message("tool", '[Tool Response from image_gen]\n{"image_index": 2}', shown, "image_gen")
    assert tiny_processor().apply_chat_template(template_messages([message])) == (
        '<|im_start|>user\n[Tool Response from image_gen]\n{"image_index": 2}'
        "<|vision_start|><|image_pad|><|vision_end|><|im_end|>\n"
    )


def test_a_clients_order_of_text_and_images_makes_no_difference() -> None:
    text, image = {"type": "text", "text": "Image 1 shows a bolt."}, {"type": "image"}
    render = tiny_processor().apply_chat_template
    assert render([{"role": "user", "content": [image, text]}]) == render([{"role": "user", "content": [text, image]}])


# Qwen3-VL's own limits: an image has at least 256 x 256 pixels, so small ones are enlarged.
@pytest.mark.parametrize(
    ("size", "tokens"),
    [((224, 224), 64), ((150, 224), 70), ((256, 256), 64), ((768, 768), 576), ((768, 511), 384), ((1, 1), 64)],
)
def test_an_image_takes_as_many_tokens_as_in_qwen3_vl(size: tuple[int, int], tokens: int) -> None:
    from transformers import Qwen2VLImageProcessorPil

    limits = {"shortest_edge": 65536, "longest_edge": 16777216}
    images = Qwen2VLImageProcessorPil(patch_size=16, merge_size=2, temporal_patch_size=2, size=limits)
    grid = images(Image.new("RGB", size), return_tensors="np")["image_grid_thw"][0]
    assert grid.prod() // 4 == tokens


@QUICK
@given(st.lists(st.tuples(st.integers(1, 400), st.integers(1, 400)), min_size=1, max_size=4))
def test_a_conversation_holds_as_many_image_tokens_as_the_vision_encoder_gives_features(
    dimensions: list[tuple[int, int]],
) -> None:
    processor = tiny_processor()
    sizes = [(w, h) for w, h in dimensions if max(w, h) / min(w, h) <= 150] or [(9, 9)]
    parts = [{"type": "image", "image": Image.new("RGB", size)} for size in sizes]
    out = processor.apply_chat_template([{"role": "user", "content": parts}], tokenize=True, return_dict=True)
    features = [int(grid.prod()) // processor.image_processor.merge_size**2 for grid in out["image_grid_thw"]]
    assert out["input_ids"][0].count(processor.image_token_id) == sum(features)
    foreseen = processor._get_num_multimodal_tokens(image_sizes=[(h, w) for w, h in sizes])
    assert foreseen.num_image_tokens == features


def test_roles_and_parts_that_the_protocol_does_not_know_are_refused() -> None:
    processor = tiny_processor()
    with pytest.raises(TemplateError, match="no role critic"):
        processor.apply_chat_template([{"role": "critic", "content": "x"}])
    with pytest.raises(TemplateError, match="text or an image, not video"):
        processor.apply_chat_template([{"role": "user", "content": [{"type": "video"}]}])


def test_a_saved_model_carries_the_template_whose_hash_is_recorded() -> None:
    carried = tiny_processor().chat_template
    assert carried == chat_template()
    assert hashlib.sha256(carried.encode()).hexdigest() == template_hash()


def opening(size: tuple[int, int]) -> list[Message]:
    photo = image_ref(1, png(size), *size)
    return [Message("system", "Rules."), Message("user", "Make a scratch.", (photo,))]


def with_pictures(messages: list[Message]) -> list[dict[str, Any]]:
    """Template messages with the pixels in their image parts."""
    filled = template_messages(messages)
    for message, given_to in zip(messages, filled, strict=True):
        pictures = [{"type": "image", "image": Image.open(io.BytesIO(ref.png))} for ref in message.images]
        given_to["content"] = [part for part in given_to["content"] if part["type"] == "text"] + pictures
    return filled


def learned(processor: Any, ids: list[int], mask: list[int]) -> list[str]:
    """The runs of tokens that carry loss, decoded."""
    runs: list[list[int]] = [[]]
    for token, kept in zip(ids, mask, strict=True):
        if kept:
            runs[-1].append(token)
        elif runs[-1]:
            runs.append([])
    return [processor.tokenizer.decode(run) for run in runs if run]


def written(messages: list[Message]) -> list[str]:
    return [message.content + END_OF_TURN for message in messages if message.role == "assistant"]
