"""Editing prompts that a model writes: the frame is ours, the words are its own."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import pytest

from agent.policies.refine import refine
from mcp_servers.backends import read_choices
from mcp_servers.errors import ToolInputError
from mcp_servers.knowledge.families import SEVERITIES, SIZES
from mcp_servers.prompt_gen.model import Parts, read_prompt
from mcp_servers.prompt_gen.server import SPEC as PROMPTER
from mcp_servers.store import Store
from mcp_servers.vlm import schema_of

from .servers.fake_models import fake_models, openai_says
from .servers.model_calls import (
    PARTS,
    PROMPT,
    SERVICES,
    arguments,
    call,
    choice,
    edited_pair,
    own_prices,
    says,
)


@pytest.fixture(autouse=True)
def prices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own_prices(tmp_path, monkeypatch)


@pytest.fixture
def pair(store: Store, photo: np.ndarray) -> dict[str, str]:
    return edited_pair(store, photo)


@pytest.mark.parametrize("service", SERVICES)
def test_a_model_writes_the_prompt_in_the_fixed_frame(store: Store, pair: dict[str, str], service: str) -> None:
    with fake_models(says(service, PROMPT)) as fake:
        result, facts = call(store, "prompt_gen", choice(service, fake), arguments("prompt_gen", pair))
    made = result.structured_content
    assert made["prompt"] == (
        "Using the provided image, change only the upper left part of the plate's face to introduce a thin bright "
        "scratch, running across the brushed grain. The defect is medium-sized and pronounced in strength. "
        f"{PARTS['surface']} Everything else, including the background, lighting, geometry, framing and sharpness of "
        "the photo, stays exactly as it is."
    )
    assert (made["backend"], made["model"], made["family"], made["known"]) == (service, "vlm", "scratch", False)
    assert made["cost_usd"] == pytest.approx(2.0 + 0.6)
    assert made["seconds"] >= 0
    assert facts["max_cost_usd"] > 3 * made["cost_usd"]
    assert facts["problem"] == ""
    asked = fake.texts()
    assert '"plate"' in asked
    assert "reference:" in asked


def test_a_models_prompt_can_be_refined_by_the_planner_like_a_local_one() -> None:
    prompt = read_prompt(PROMPT, "scratch")
    refined = refine(prompt, "Make the defect larger. Move the defect onto the part.", "plate").prompt
    assert "change only the middle of the plate's surface to introduce a thin bright scratch" in refined
    assert "The defect is large and pronounced in strength" in refined
    enums = schema_of(Parts)["properties"]
    assert (tuple(enums["size"]["enum"]), tuple(enums["severity"]["enum"])) == (SIZES, SEVERITIES)


@pytest.mark.parametrize(
    ("kind", "defect"),
    [("broken_large", "a large broken section"), ("scratches", "one scratch"), ("Bent Wire", "a wire bent upwards")],
)
def test_the_words_of_the_type_may_stand_in_any_order(kind: str, defect: str) -> None:
    assert defect in read_prompt(json.dumps(PARTS | {"defect": defect}), kind)


def test_a_prompter_is_one_backend() -> None:
    with pytest.raises(ToolInputError, match="uses one backend"):
        read_choices(argparse.Namespace(prompter="gemini+openai"), [PROMPTER], {})


def test_a_type_that_the_knowledge_base_does_not_understand_is_left_to_the_model(
    store: Store, pair: dict[str, str]
) -> None:
    text = json.dumps(PARTS | {"defect": "a dark sadness with a dusty rim"})
    with fake_models(openai_says(text)) as fake:
        asked_for = arguments("prompt_gen", pair) | {"anomaly_type": "sadness"}
        result, _ = call(store, "prompt_gen", choice("openai", fake), asked_for)
    made = result.structured_content
    assert "a dark sadness" in made["prompt"]
    assert (made["family"], made["known"]) == ("defect", False)
    assert "no page of its own" in made["note"]
    assert "reference" not in fake.requests[0]["body"]["messages"][1]["content"][-1]["text"]


@pytest.mark.parametrize("name", ["", "a\nb", "x" * 201])
def test_names_that_cannot_be_used_cost_nothing(store: Store, pair: dict[str, str], name: str) -> None:
    with fake_models(openai_says(PROMPT)) as fake:
        asked_for = arguments("prompt_gen", pair) | {"item_name": name}
        result, _ = call(store, "prompt_gen", choice("openai", fake), asked_for)
    assert result.is_error
    assert fake.requests == []
