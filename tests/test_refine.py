"""Prompt refinement: a review's advice becomes readable changes of the prompt."""

from __future__ import annotations

import pytest

from agent.policies.refine import SEVERITIES, SIZES, insert, move, refine, step

PROMPT = (
    "Using the provided image, change only the rim of the bottle to introduce a thin scratch. "
    "The defect is small and faint, and it catches the light. "
    "Everything else in the image, such as background and lighting, stays exactly as it is."
)


def test_more_pronounced_moves_the_severity_word_one_step() -> None:
    refined = refine(PROMPT, "Make the defect more pronounced: its contrast is 1.1.", "bottle")
    assert "The defect is small and mild, and it catches" in refined.prompt
    assert refined.changes == ("faint -> mild",)


def test_several_pieces_of_advice_are_all_applied_in_the_order_of_the_review() -> None:
    review = "Make the defect larger: it is tiny. Make the defect more pronounced. Match the grain of the photo."
    refined = refine(PROMPT, review, "bottle")
    assert "The defect is medium-sized and mild" in refined.prompt
    assert "grain" in refined.prompt
    assert refined.changes[:2] == ("small -> medium-sized", "faint -> mild")


@pytest.mark.parametrize(("by", "size", "severity"), [(99, SIZES[-1], SEVERITIES[-1]), (-99, SIZES[0], SEVERITIES[0])])
def test_ladders_end_at_their_last_words(by: int, size: str, severity: str) -> None:
    assert f"The defect is {size} and {severity}" in step(PROMPT, by, by).prompt


def test_a_prompt_without_the_strength_sentence_gets_one_before_its_closing() -> None:
    bare = "Add a scratch. Everything else stays as it is."
    refined = step(bare, severity=1).prompt
    assert refined == "Add a scratch. The defect is small and pronounced. Everything else stays as it is."


def test_moving_names_another_place_in_the_first_clause_only() -> None:
    moved = move(PROMPT, "the bottle's middle")
    assert moved.prompt.startswith("Using the provided image, change only the bottle's middle to introduce")
    assert moved.prompt.endswith(PROMPT[PROMPT.index(" to introduce") :])


def test_a_review_without_advice_changes_nothing() -> None:
    assert refine(PROMPT, "The defect looks right.", "bottle").changes == ()


def test_a_sentence_is_inserted_once() -> None:
    once = insert(PROMPT, "It is dark.")
    assert insert(once, "It is dark.") == once
    assert once.index("It is dark.") < once.index("Everything else")


def test_a_sentence_on_the_shape_is_not_taken_for_size_and_strength() -> None:
    shaped = insert(
        "Using the provided image, change only the plate to introduce a scratch.", "The defect is long and thin."
    )
    assert step(shaped, size=1).prompt.endswith("The defect is long and thin. The defect is medium-sized and moderate.")
