"""image_gen on editors behind an API, through the real SDKs: what they are asked, what becomes of their answers."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image as PILImage

from mcp_servers.mask_gen.local import find_mask
from mcp_servers.store import Store

from .conftest import make_photo
from .servers.editing import BACKENDS, PROMPT, call, choice_of, facts, failure, pixels, serve
from .servers.fake_editors import http_editor, scratched


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_an_edit_comes_back_as_the_photo_with_the_defect_alone(store: Store, photo_file: Path, backend: str) -> None:
    with serve(backend, "ok") as editor:
        made = facts(call(store, choice_of(backend, editor), str(photo_file), seed=5))
    before, after = pixels(store, made)
    changed = (before != after).any(axis=2)
    truth = (scratched(before) != before).any(axis=2)
    assert after.shape == before.shape
    assert 0.002 < changed.mean() < 0.2
    assert not changed[~cv2.dilate(truth.astype(np.uint8), np.ones((15, 15))).astype(bool)].any()
    found = find_mask(before, after).mask
    assert (found & truth).sum() / (found | truth).sum() > 0.5
    assert made["backend"] == backend
    assert made["integrity"] == "composite"
    assert made["attempts"] == 1
    assert made["told"].startswith(PROMPT)
    assert made["told"] == editor.requests[0]["prompt"]
    assert any("shifted the picture" in note for note in made["notes"])
    x, y, w, h = made["changed"]["box"]
    assert changed[y : y + h, x : x + w].any()
    assert made["changed"]["area_fraction"] == pytest.approx(changed.mean(), abs=0.03)


@pytest.mark.parametrize("behaviour", ["resized", "jpeg"])
def test_another_size_or_format_is_brought_back(store: Store, photo_file: Path, backend: str, behaviour: str) -> None:
    with serve(backend, behaviour) as editor:
        made = facts(call(store, choice_of(backend, editor), str(photo_file)))
    before, after = pixels(store, made)
    assert after.shape == before.shape
    assert (before == after).all(axis=2).mean() > 0.8


def test_an_edit_tells_its_cost(store: Store, photo_file: Path) -> None:
    for backend, cost in (("gemini", 0.06765), ("xai", 0.022), ("openai", 0.136), ("comfyui", 0.0)):
        with serve(backend, "ok") as editor:
            made = facts(call(store, choice_of(backend, editor), str(photo_file)))
        assert made["cost_usd"] == pytest.approx(cost), backend


@pytest.mark.parametrize(("name", "depth"), [("grey.png", np.uint8), ("deep.png", np.uint16)])
def test_grey_and_deep_photos_keep_their_depth(
    store: Store, photo: np.ndarray, tmp_path: Path, name: str, depth: type
) -> None:
    grey = photo[:, :, 1].astype(np.uint16) * 257 if depth is np.uint16 else photo[:, :, 1]
    cv2.imwrite(str(tmp_path / name), grey)
    with http_editor("ok") as editor:
        made = facts(call(store, choice_of("gemini", editor), name))
    before, after = pixels(store, made)
    assert after.dtype == before.dtype == depth
    assert after.ndim == 2
    assert 0.002 < (before != after).mean() < 0.2


def test_a_region_limits_the_defect_and_is_told_in_words(store: Store, photo_file: Path, backend: str) -> None:
    with serve(backend, "ok") as editor:
        made = facts(call(store, choice_of(backend, editor), str(photo_file), region="50,48,30,20"))
    before, after = pixels(store, made)
    changed = (before != after).any(axis=2)
    assert changed.any()
    changed[48:68, 50:80] = False
    assert not changed.any()
    assert any("beyond the region" in note for note in made["notes"])
    assert "part of the picture, between" in made["told"]


def test_a_defect_outside_the_region_is_not_accepted(store: Store, photo_file: Path) -> None:
    with http_editor("ok") as editor:
        failed = failure(call(store, choice_of("gemini", editor), str(photo_file), region="5,5,20,20"))
    assert failed["kind"] == "empty"
    assert "outside the region" in failed["text"]


def test_masks_mark_where_each_service_expects_it(store: Store, photo_file: Path) -> None:
    with http_editor("ok") as editor:
        call(store, choice_of("comfyui", editor), str(photo_file), region="40,40,80,40")
        mask = np.asarray(PILImage.open(io.BytesIO(editor.requests[0]["masks"][0])))
    assert mask.shape == np.asarray(PILImage.open(io.BytesIO(editor.requests[0]["images"][0]))).shape[:2]
    assert (mask > 0).mean() == pytest.approx(80 * 40 / (160 * 128), abs=0.02)
    assert mask[mask.shape[0] * 60 // 128, mask.shape[1] * 80 // 160] == 255


def test_openai_itself_gets_a_mask_and_other_servers_a_seed(
    store: Store, photo_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments: dict[str, Any] = {"region": "40,40,80,40", "seed": 7}
    with http_editor("ok") as editor:
        call(store, choice_of("openai", editor), str(photo_file), **arguments)
        monkeypatch.setattr("mcp_servers.image_gen.openai.is_vendor", lambda _: True)
        made = facts(call(store, choice_of("openai", editor), str(photo_file), **arguments))
    other, vendor = editor.requests
    assert other["masks"] == []
    assert other["fields"]["seed"] == "7"
    assert {"quality", "input_fidelity"}.isdisjoint(other["fields"])
    assert "seed" not in vendor["fields"]
    assert vendor["fields"] | {"quality": "high", "input_fidelity": "high", "size": "1536x1024"} == vendor["fields"]
    cutout = np.asarray(PILImage.open(io.BytesIO(vendor["masks"][0])))
    assert cutout.shape == (1024, 1536, 4)
    assert (cutout[..., 3] == 0).mean() == pytest.approx(80 * 40 / (192 * 128), abs=0.02)
    assert any("takes no seed" in note for note in made["notes"])


def test_count_size_and_severity_become_words(store: Store, photo_file: Path, backend: str) -> None:
    with serve(backend, "ok") as editor:
        call(store, choice_of(backend, editor), str(photo_file), count=3, size="small", severity="faint")
    told = editor.requests[0]["prompt"]
    assert all(word in told for word in ("exactly three", "small", "faint"))


def test_an_example_is_shown_where_the_editor_takes_one_and_refused_elsewhere(
    store: Store, photo_file: Path, photo: np.ndarray, backend: str
) -> None:
    folder = photo_file.parent
    cv2.imwrite(str(folder / "example.png"), scratched(photo)[:, :, ::-1])
    cv2.imwrite(str(folder / "mask.png"), 255 * (scratched(photo) != photo).any(axis=2).astype(np.uint8))
    example = {"example_image": str(folder / "example.png"), "example_mask": str(folder / "mask.png")}
    with serve(backend, "ok") as editor:
        result = call(store, choice_of(backend, editor), str(photo_file), **example)
    if backend in ("gemini", "openai"):
        facts(result)
        assert len(editor.requests[0]["images"]) == 2
        assert "second picture" in editor.requests[0]["prompt"]
    else:
        assert result.is_error
        assert "takes no example" in result.content[0].text
        assert editor.requests == []


def test_the_photo_is_sent_in_proportions_that_the_editor_takes(store: Store, tmp_path: Path, backend: str) -> None:
    cv2.imwrite(str(tmp_path / "wide.png"), make_photo(300, 120))
    with serve(backend, "ok") as editor:
        made = facts(call(store, choice_of(backend, editor), "wide.png"))
    sent = PILImage.open(io.BytesIO(editor.requests[0]["images"][0]))
    assert 0.7e6 < sent.width * sent.height < 1.7e6
    assert 2 < sent.width / sent.height < 2.6
    assert made["size"] == [300, 120]
