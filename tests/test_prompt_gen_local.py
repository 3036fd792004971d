"""The local prompt generator: every prompt keeps the frame, agrees with the knowledge base, and reads back."""

from __future__ import annotations

import re

import numpy as np
import pytest
from numpy.typing import NDArray

from mcp_servers.errors import ToolInputError
from mcp_servers.image_gen.local.spec import parse_prompt
from mcp_servers.knowledge import catalogue
from mcp_servers.knowledge.catalogue import UnknownAnomalyType, profile_for
from mcp_servers.knowledge.families import SEVERITIES, SIZES, Family
from mcp_servers.knowledge.words import family_of
from mcp_servers.prompt_gen.local import generate_prompt
from mcp_servers.prompt_gen.wording import INTERACTIONS, SKINS

Image = NDArray[np.uint8]
PAIRS = [(page.name, entry.name) for page in catalogue.pages() if not page.general for entry in page.entries]
PAIRS += [("gizmo", family.value) for family in Family] + [("wine glass", "hairline crack"), ("steel bracket", "rust")]
SHOWN_AS = {Family.MISSING: "missing", Family.BROKEN_EDGE: "broken edge", Family.BEND: "bend"}


def striped(angle: str, level: int) -> Image:
    """A surface with fine stripes, (96, 96, 3), of mean grey ``level``."""
    wave = level + 25 * np.sin(np.arange(96) * 1.1)
    plane = np.tile(wave, (96, 1)) if angle == "vertical" else np.tile(wave[:, None], (1, 96))
    return np.repeat(plane[..., None], 3, axis=2).clip(0, 255).astype(np.uint8)


def on_ladder(ladder: tuple[str, ...], prompt: str) -> list[str]:
    words = "|".join(sorted(ladder, key=len, reverse=True))
    return re.findall(rf"\b(?:{words})\b", prompt)


@pytest.mark.parametrize("photo", [None, striped("vertical", 60)], ids=["no photo", "photo"])
@pytest.mark.parametrize(("item", "name"), PAIRS)
def test_every_prompt_keeps_the_frame(item: str, name: str, photo: Image | None) -> None:
    prompt = generate_prompt(photo, item, name).prompt
    profile = profile_for(item, name)
    assert prompt.startswith(f"Using the provided image, change only {profile.place} to introduce ")
    assert prompt.endswith("stays exactly as it is.")
    assert "\n" not in prompt
    assert 60 <= len(prompt.split()) <= 112
    assert f"The defect is {profile.size} and {profile.severity} " in prompt
    assert on_ladder(SIZES, prompt) == [profile.size]
    assert on_ladder(SEVERITIES, prompt) == [profile.severity]
    assert SHOWN_AS.get(profile.family, profile.family.value) in prompt.lower()
    assert not re.search(r"\b(no|not|never|without|avoid|don't|unchanged)\b", prompt.lower())


@pytest.mark.parametrize("photo", [None, striped("horizontal", 200)], ids=["no photo", "photo"])
@pytest.mark.parametrize(("item", "name"), PAIRS)
def test_every_prompt_reads_back_as_what_was_meant(item: str, name: str, photo: Image | None) -> None:
    result = generate_prompt(photo, item, name)
    profile = profile_for(item, name)
    spec = parse_prompt(result.prompt)
    assert family_of(result.prompt) is spec.family is profile.family is Family(result.family)
    assert (spec.size, spec.severity) == (profile.size, profile.severity)
    if not profile.colour:
        assert spec.colour_name == ""


@pytest.mark.parametrize(("item", "name"), [("bottle", "broken_large"), ("gizmo", "scratch")])
def test_known_says_whether_the_prompt_comes_from_the_items_own_page(item: str, name: str) -> None:
    result = generate_prompt(None, item, name)
    assert result.known is (item == "bottle")
    assert profile_for(item, name).source in result.note


def test_the_direction_of_the_texture_in_the_photo_is_named() -> None:
    across = generate_prompt(striped("vertical", 128), "metal_nut", "scratch").prompt
    assert "running across the vertical grain" in across
    along = generate_prompt(striped("horizontal", 128), "hazelnut", "crack").prompt
    assert "running along the horizontal grain" in along
    assert "running across the grain" in generate_prompt(None, "wood", "scratch").prompt


def test_the_brightness_of_the_part_in_the_photo_is_named() -> None:
    dim, bright = (generate_prompt(striped("vertical", level), "tile", "crack").prompt for level in (50, 200))
    assert "is dim with neutral tones" in dim
    assert "is bright with neutral tones" in bright
    photo = striped("vertical", 128)
    photo[..., 2] //= 4
    assert "evenly lit with rich tones" in generate_prompt(photo, "tile", "crack").prompt


def test_a_colour_of_the_defect_is_named_once() -> None:
    assert "introduce a red, blue, green or purple stain" in generate_prompt(None, "carpet", "color").prompt
    assert "whitish, brown or dark in colour" in generate_prompt(None, "bottle", "contamination").prompt


def test_the_same_photo_gives_the_same_prompt() -> None:
    photo = striped("vertical", 90)
    assert generate_prompt(photo, "wood", "scratch") == generate_prompt(photo.copy(), "wood", "scratch")


def test_every_family_and_every_material_has_its_wording() -> None:
    assert set(INTERACTIONS) == set(Family)
    assert set(SKINS) == {page.name for page in catalogue.pages() if page.general}


@pytest.mark.parametrize(
    "photo",
    [
        np.zeros((64, 64), np.uint8),
        np.zeros((64, 64, 4), np.uint8),
        np.zeros((4, 64, 3), np.uint8),
        np.zeros((9, 9, 3)),
    ],
)
def test_a_photo_of_another_shape_or_type_is_refused(photo: Image) -> None:
    with pytest.raises(ToolInputError, match="photo"):
        generate_prompt(photo, "wood", "scratch")


def test_a_type_that_names_no_defect_is_refused() -> None:
    with pytest.raises(UnknownAnomalyType, match="xyzzy"):
        generate_prompt(None, "bottle", "xyzzy")
