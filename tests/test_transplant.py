"""Transplanting a real defect out of an example photo, as an MCP client and the command meet it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import anyio
import cv2
import numpy as np
import pytest
from mcp import Client
from numpy.typing import NDArray

from agent.session import read_session
from mcp_servers.image_gen.local import Example, render
from mcp_servers.serving import build_server
from mcp_servers.store import Store
from mcp_servers.suite import SPECS
from tests.conftest import make_photo

PROMPT = (
    "Using the provided image, change only the surface of the plate to introduce a {}. The defect is medium-sized and "
    "moderate. Everything else stays exactly as it is."
)


def spotted(seed: int = 7) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """A plate with a red spot and a smaller green one, and their mask (128, 160) uint8."""
    image, mask = make_photo(seed=seed), np.zeros((128, 160), np.uint8)
    for centre, axes, colour in (((60, 50), (9, 6), (170, 30, 25)), ((96, 80), (5, 4), (30, 140, 40))):
        spot = np.zeros((128, 160), np.uint8)
        cv2.ellipse(spot, centre, axes, 20, 0, 360, 255, -1)
        mask |= spot
        soft = cv2.GaussianBlur(spot, (0, 0), 0.7)[:, :, None] / 255.0
        image = np.rint(image * (1 - soft) + np.array(colour) * soft).astype(np.uint8)
    return image, mask


@pytest.fixture
def files(store: Store, tmp_path: Path) -> Path:
    """plate.png, example.png and example_mask.png in a folder that the store may read."""
    image, mask = spotted()
    cv2.imwrite(str(tmp_path / "plate.png"), make_photo()[:, :, ::-1])
    cv2.imwrite(str(tmp_path / "example.png"), image[:, :, ::-1])
    cv2.imwrite(str(tmp_path / "example_mask.png"), mask)
    return tmp_path


def edit(store: Store, **arguments: Any) -> dict[str, Any]:
    """image_gen's facts and its image (``pixels``), or its refusal (``error``)."""
    given = {
        "prompt": PROMPT.format("blemish"),
        "target_image": "plate.png",
        "example_image": "example.png",
        "example_mask": "example_mask.png",
    }

    async def main() -> dict[str, Any]:
        async with Client(build_server("suite", store, SPECS, "")) as client:
            result = await client.call_tool("image_gen", given | arguments)
            text = result.content[0].text  # type: ignore[union-attr]
            return {"error": text} if result.is_error else json.loads(text)

    facts = anyio.run(main)
    return facts if "error" in facts else facts | {"pixels": store.get(facts["image"]).pixels}


def test_the_examples_defect_comes_to_lie_on_the_photo(store: Store, files: Path) -> None:
    made = edit(store)
    changed = (made["pixels"] != make_photo()).any(axis=2)
    assert 40 < changed.sum() < 500
    red = made["pixels"].astype(int)
    stained = (np.abs(red[..., 0] - red[..., 1]) > 60) & changed
    assert stained.sum() > 30, "the defect keeps its own colour"
    assert made["read_from_prompt"]["family"] == "as in the example"
    x, y, width, height = made["changed"]["box"]
    assert not changed[: y - 1].any()
    assert changed[y : y + height, x : x + width].sum() == changed.sum()


def test_mask_gen_finds_what_was_transplanted(store: Store, files: Path) -> None:
    made = edit(store)

    async def main() -> dict[str, Any]:
        async with Client(build_server("suite", store, SPECS, "")) as client:
            found = await client.call_tool(
                "mask_gen", {"anomaly_image": made["image"], "normal_image": made["target_image"]}
            )
            facts: dict[str, Any] = json.loads(found.content[0].text)  # type: ignore[union-attr]
            return facts

    facts = anyio.run(main)
    assert facts["found"]
    assert 0.3 < facts["area_fraction"] / made["changed"]["area_fraction"] < 1.2


def test_same_seed_same_bytes_and_other_seeds_other_places(store: Store, files: Path) -> None:
    first, again = edit(store, seed=3), edit(store, seed=3)
    assert first["image"] == again["image"]
    boxes = {tuple(edit(store, seed=seed)["changed"]["box"]) for seed in range(4)}
    assert len(boxes) == 4


def test_a_grey_photo_of_sixteen_bits_stays_grey_and_deep(store: Store, files: Path) -> None:
    deep = make_photo()[:, :, 0].astype(np.uint16) * 16
    cv2.imwrite(str(files / "deep.png"), deep)
    made = edit(store, target_image="deep.png")["pixels"]
    assert made.dtype == np.uint16
    assert made.shape == deep.shape
    assert 0 < (made != deep).sum() < 500


def test_masks_of_zeros_and_ones_mark_as_white_ones_do(store: Store, files: Path) -> None:
    mask = cv2.imread(str(files / "example_mask.png"), cv2.IMREAD_GRAYSCALE)
    cv2.imwrite(str(files / "ones.png"), (mask > 127).astype(np.uint8))
    assert edit(store, example_mask="ones.png")["image"] == edit(store)["image"]
    region = np.zeros((128, 160), np.uint8)
    region[40:85, 80:130] = 1
    cv2.imwrite(str(files / "region.png"), region)
    assert edit(store, region="region.png")["image"] == edit(store, region="80,40,50,45")["image"]


def test_the_region_is_kept(store: Store, files: Path) -> None:
    changed = (edit(store, region="80,40,50,45")["pixels"] != make_photo()).any(axis=2)
    assert changed.any()
    outside = changed.copy()
    outside[40:85, 80:130] = False
    assert not outside.any()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"example_mask": ""}, "needs example_mask"),
        ({"example_image": ""}, "needs example_image"),
        ({"example_mask": "small.png"}, "make them the same size"),
        ({"example_mask": "black.png"}, "no bright pixel"),
        ({"example_mask": "white.png"}, "mark the defect only"),
        ({"example_mask": "plate.png"}, "not a mask"),
        ({"example_image": "missing.png"}, "does not exist"),
        ({"region": "70,60,4,4"}, "does not fit"),
        ({"count": 13}, "count"),
        ({"size": "huge"}, "size"),
    ],
)
def test_what_cannot_be_used_is_refused_in_one_line(
    store: Store, files: Path, arguments: dict[str, Any], said: str
) -> None:
    for name, shape, value in (("small", (64, 80), 255), ("black", (128, 160), 0), ("white", (128, 160), 255)):
        cv2.imwrite(str(files / f"{name}.png"), np.full(shape, value, np.uint8))
    error = edit(store, **arguments)["error"]
    assert said in error
    assert "\n" not in error


@pytest.mark.parametrize("example", [True, False])
def test_count_size_and_severity_override_the_prompt(store: Store, files: Path, example: bool) -> None:
    drawn = {} if example else {"example_image": "", "example_mask": ""}
    prompt = PROMPT.format("stain")
    plain = edit(store, prompt=prompt, **drawn)
    asked = edit(store, prompt=prompt, count=3, size="small", severity="severe", **drawn)
    assert {name: plain["read_from_prompt"][name] for name in ("count", "size", "severity")} == {
        "count": 1, "size": "medium-sized", "severity": "moderate",
    }  # fmt: skip
    assert {name: asked["read_from_prompt"][name] for name in ("count", "size", "severity")} == {
        "count": 3, "size": "small", "severity": "severe",
    }  # fmt: skip
    assert asked["image"] != plain["image"]


def test_a_larger_word_makes_a_larger_defect() -> None:
    image, mask = spotted()
    one = np.zeros_like(mask)
    one[:, :75] = mask[:, :75]
    example = Example(image, one > 0)
    areas = [
        float((render(make_photo(), "a spot", 5, example=example, size=size).alpha > 0.5).sum())
        for size in ("tiny", "medium-sized", "very large")
    ]
    assert areas[0] < 0.75 * areas[1] < areas[1] < 0.75 * areas[2]


def test_a_piece_broken_off_the_outline_stays_at_the_outline() -> None:
    image, mask = make_photo(seed=7), np.zeros((128, 160), np.uint8)
    cv2.ellipse(mask, (80, 111), (14, 12), 0, 0, 360, 255, -1)
    bench = np.full_like(image, (38, 36, 34))
    image = np.where(mask[:, :, None] > 0, bench, image)
    mask[113:] = 0
    target = make_photo()
    plate = np.zeros((128, 160), bool)
    plate[16:113, 20:141] = True
    near = ~cv2.erode(plate.astype(np.uint8), np.ones((9, 9), np.uint8)).astype(bool)
    for seed in range(3):
        rendering = render(target, "a missing piece", seed, example=Example(image, mask > 0))
        bite = (rendering.alpha > 0.5) & (rendering.rgb.mean(2) < 70) & plate
        assert bite.sum() > 120
        assert (bite & near).sum() > 0.15 * bite.sum()


def test_a_faint_change_of_light_lets_the_photos_texture_go_on() -> None:
    image, mask = make_photo(seed=7).astype(np.float32), np.zeros((128, 160), np.uint8)
    cv2.circle(mask, (80, 64), 16, 255, -1)
    shade = cv2.GaussianBlur(mask, (0, 0), 5)[:, :, None] / 255.0
    example = Example(np.rint(image * (1 - 0.12 * shade)).astype(np.uint8), mask > 0)
    target = make_photo()
    rendering = render(target, "a shadow", 1, example=example)
    inside = rendering.alpha > 0.5
    before, after = target.mean(2)[inside], rendering.rgb.mean(2)[inside]
    assert after.mean() < before.mean() - 2
    assert np.corrcoef(before, after)[0, 1] > 0.6


def test_the_command_takes_an_example_and_records_it(home: Path, files: Path) -> None:
    command = [sys.executable, "-m", "agent.run", "plate.png", "--item", "plate", "--anomaly", "stain", "--out", "made",
               "--example", "example.png", "--example-mask", "example_mask.png", "--count", "2"]  # fmt: skip
    done = subprocess.run(command, cwd=files, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    session = read_session(files / "made")
    assert session.start["task"]["example_image"].endswith("example.png")
    bound = next(event["bound"] for event in session.of_type("tool_result") if event["tool"] == "image_gen")
    assert bound["example_mask"].endswith("example_mask.png")
    assert bound["count"] == 2
    refused = subprocess.run([*command[:-4]], cwd=files, capture_output=True, text=True, timeout=60)
    assert refused.returncode == 2
    assert "go together" in refused.stderr


def test_real_defects_of_every_kind_fit_another_photo(real_data: Path) -> None:
    def read(path: Path) -> NDArray[np.uint8]:
        return np.ascontiguousarray(cv2.imread(str(path))[:, :, ::-1])

    kinds = sorted(path for path in real_data.glob("*/test/*") if path.name != "good")
    assert kinds
    for number, kind in enumerate(kinds):
        photo = sorted(kind.iterdir())[0]
        category = kind.parent.parent
        drawn = cv2.imread(str(category / "ground_truth" / kind.name / f"{photo.stem}_mask.png"), 0)
        normals = sorted((category / "train" / "good").iterdir())
        normal = read(normals[number % len(normals)])
        rendering = render(normal, "a defect", number, example=Example(read(photo), drawn > 127))
        assert (rendering.rgb == normal)[rendering.alpha == 0].all()
        assert (np.abs(rendering.rgb - normal).max(axis=2) > 2)[rendering.alpha > 0.5].any(), kind
