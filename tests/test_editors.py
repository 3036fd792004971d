"""image_gen on editors behind an API, through the real SDKs: what they return, and every way in which they fail."""

from __future__ import annotations

import io
import json
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import anyio
import cv2
import numpy as np
import pytest
from mcp import Client
from PIL import Image as PILImage

from mcp_servers.backends import META_FAILURE, BackendChoice
from mcp_servers.image_gen.server import SPEC
from mcp_servers.mask_gen.local import find_mask
from mcp_servers.remote import retry
from mcp_servers.serving import build_server
from mcp_servers.store import Store

from .servers.fake_editors import FakeEditor, grpc_editor, http_editor, scratched

PROMPT = "Using the provided image, change only the surface of the plate to introduce a scratch. Keep all else."
WORKFLOW = Path(__file__).resolve().parent.parent / "examples" / "comfyui_qwen_image_edit.json"
BACKENDS = ("gemini", "openai", "xai", "comfyui")
KEY = "sk-very-secret-0123456789"


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """No waiting between attempts, and no keys of the machine's."""
    monkeypatch.setattr(retry, "FIRST_WAIT", 0.001)
    for name in ("GEMINI_API_KEY", "GOOGLE_API_KEY", "OPENAI_API_KEY", "XAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)


def serve(backend: str, *script: str) -> AbstractContextManager[FakeEditor]:
    return grpc_editor(*script) if backend == "xai" else http_editor(*script)


def choice_of(backend: str, editor: FakeEditor, **options: Any) -> BackendChoice:
    model = {"openai": "gpt-image-1.5", "comfyui": str(WORKFLOW)}.get(backend, "")
    url = f"{editor.url}/v1" if backend == "openai" else editor.url
    given = {"model": model, "base_url": url, "api_key": KEY, "attempts": 3, "timeout": 60.0} | options
    return BackendChoice(backend, **given)


def call(store: Store, choice: BackendChoice, target: str, **arguments: Any) -> Any:
    async def main() -> Any:
        server = build_server("edit", store, [SPEC], "", choices={"editor": choice})
        async with Client(server) as client:
            return await client.call_tool("image_gen", {"prompt": PROMPT, "target_image": target, **arguments})

    result = anyio.run(main)
    assert KEY not in str(result)
    return result


def facts(result: Any) -> dict[str, Any]:
    assert not result.is_error, result.content[0].text
    return dict(json.loads(result.content[0].text))


def failure(result: Any) -> dict[str, Any]:
    assert result.is_error
    assert "\n" not in result.content[0].text
    return dict(result.meta[META_FAILURE]) | {"text": result.content[0].text}


def pixels(store: Store, made: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    return store.get(made["target_image"]).pixels, store.get(made["image"]).pixels


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


def test_an_edit_tells_its_cost(store: Store, photo_file: Path) -> None:
    for backend, cost in (("gemini", 0.06765), ("xai", 0.022), ("openai", 0.0), ("comfyui", 0.0)):
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
    from .conftest import make_photo

    cv2.imwrite(str(tmp_path / "wide.png"), make_photo(300, 120))
    with serve(backend, "ok") as editor:
        made = facts(call(store, choice_of(backend, editor), "wide.png"))
    sent = PILImage.open(io.BytesIO(editor.requests[0]["images"][0]))
    assert 0.7e6 < sent.width * sent.height < 1.7e6
    assert 2 < sent.width / sent.height < 2.6
    assert made["size"] == [300, 120]


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
