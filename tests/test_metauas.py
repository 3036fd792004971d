"""mask_gen's MetaUAS backend through MCP and from the command line, with networks that are made here."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import anyio
import cv2
import numpy as np
import pytest
from mcp import Client
from mcp.client.stdio import StdioServerParameters
from numpy.typing import NDArray

from mcp_servers.backends import META_BACKEND, META_FAILURE, BackendChoice
from mcp_servers.errors import BackendError
from mcp_servers.mask_gen.maskers import agreement, masker_for
from mcp_servers.mask_gen.metauas import backend
from mcp_servers.serving import build_server
from mcp_servers.store import Store
from mcp_servers.suite import SPECS
from tests.conftest import ROOT, make_photo

torch = pytest.importorskip("torch", reason="the network needs torch: pip install 'anomaly-agent[metauas]'")
checkpoints = pytest.importorskip("tests.metauas_checkpoints")


@pytest.fixture(autouse=True)
def nothing_loaded() -> None:
    backend._network.cache_clear()


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[float]]:
    network, losses = checkpoints.teach(steps=24)
    return checkpoints.saved(network, tmp_path_factory.mktemp("taught") / "toy-64.ckpt"), losses


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return Path(checkpoints.saved(checkpoints.random_network(), tmp_path / "random-64.ckpt"))


def call(store: Store, choice: BackendChoice, normal: Path, anomaly: Path) -> Any:
    """mask_gen's result through MCP."""

    async def main() -> Any:
        async with Client(build_server("suite", store, SPECS, "", choices={"masker": choice})) as client:
            return await client.call_tool("mask_gen", {"normal_image": str(normal), "anomaly_image": str(anomaly)})

    return anyio.run(main)


def described(store: Store, choice: BackendChoice) -> dict[str, Any]:
    """What the tool's _meta says of its backend."""

    async def main() -> Any:
        async with Client(build_server("suite", store, SPECS, "", choices={"masker": choice})) as client:
            return next(tool.meta for tool in (await client.list_tools()).tools if tool.name == "mask_gen")

    return dict(anyio.run(main)[META_BACKEND])


def facts(result: Any) -> dict[str, Any]:
    assert not result.is_error, result.content[0].text
    return dict(json.loads(result.content[0].text))


def write(path: Path, rgb: NDArray[np.uint8]) -> Path:
    cv2.imwrite(str(path), rgb[:, :, ::-1])
    return path


def pair(folder: Path, width: int, height: int) -> tuple[Path, Path]:
    """A photo and its copy with a dark disc."""
    photo = make_photo(width, height)
    edited = cv2.circle(photo.copy(), (width // 2, height // 2), min(width, height) // 9, (20, 24, 30), -1)
    return write(folder / "normal.png", photo), write(folder / "anomaly.png", np.asarray(edited, np.uint8))


def test_the_network_can_learn_a_toy_pair(taught: tuple[Path, list[float]]) -> None:
    _, losses = taught
    assert losses[-1] < 0.4 * losses[0]


def test_a_network_that_learned_finds_the_change_through_mcp_and_nothing_where_there_is_none(
    store: Store, tmp_path: Path, taught: tuple[Path, list[float]]
) -> None:
    query, prompt = (
        cv2.resize(np.rint(255 * side[0].permute(1, 2, 0).numpy()).astype(np.uint8), (300, 200))
        for side in checkpoints.toy_pair()
    )
    normal, anomaly = write(tmp_path / "normal.png", prompt), write(tmp_path / "anomaly.png", query)
    choice = BackendChoice("metauas", model=str(taught[0]))
    told = facts(call(store, choice, normal, anomaly))
    mask = store.resolve(told["mask"])[1].pixels > 127
    truth = np.zeros((200, 300), bool)
    truth[slice(*(round(v * 200 / 64) for v in (20, 44))), slice(*(round(v * 300 / 64) for v in (12, 36)))] = True
    assert mask.shape == truth.shape
    assert agreement(mask, truth) > 0.5
    assert (told["found"], told["method"], told["backend"], told["model"]) == (
        True,
        "metauas",
        "metauas",
        "toy-64.ckpt",
    )
    assert told["cost_usd"] == 0.0
    assert 0.5 <= told["confidence"] <= 1
    unlike = write(tmp_path / "paler.png", np.clip(prompt.astype(np.int16) + 1, 0, 255).astype(np.uint8))
    empty = facts(call(store, choice, normal, unlike))
    assert (empty["found"], empty["mask"], empty["boxes"]) == (False, None, [])
    assert "No defect found: the network gives no place more than" in empty["note"]
    same = facts(call(store, choice, normal, normal))
    assert (same["found"], same["confidence"]) == (False, 1.0)


def test_the_command_serves_it_on_a_photo_of_usual_size(home: Path, tmp_path: Path, checkpoint: Path) -> None:
    normal, anomaly = pair(tmp_path, 1201, 877)
    arguments = ["-m", "mcp_servers.mask_gen", "--allow", str(tmp_path)]
    arguments += ["--masker", "metauas", "--masker-model", str(checkpoint)]
    env = {"PYTHONPATH": str(ROOT), "ANOMALY_AGENT_HOME": str(home), "OMP_NUM_THREADS": "1"}

    async def main() -> Any:
        async with Client(StdioServerParameters(command=sys.executable, args=arguments, env=env)) as client:
            return await client.call_tool("mask_gen", {"normal_image": str(normal), "anomaly_image": str(anomaly)})

    told = facts(anyio.run(main))
    assert told["backend"] == "metauas"
    assert all(0 <= x < x + w <= 1201 and 0 <= y < y + h <= 877 for x, y, w, h in told["boxes"])


@pytest.mark.parametrize(("width", "height"), [(333, 47), (64, 64)])
def test_photos_of_any_size_give_masks_of_that_size_and_the_same_every_time(
    tmp_path: Path, checkpoint: Path, width: int, height: int
) -> None:
    find = masker_for(BackendChoice("metauas", model=str(checkpoint))).find
    photo = make_photo(width, height)
    edited = np.asarray(255 - photo)
    first, again = find(photo, edited), find(photo, edited)
    assert first.mask.shape == (height, width)
    assert (first.mask == again.mask).all()
    assert first.confidence == again.confidence


def test_clients_are_told_the_checkpoint_and_a_version_that_follows_its_content(
    store: Store, tmp_path: Path, checkpoint: Path
) -> None:
    choice = BackendChoice("metauas", model=str(checkpoint))
    told = described(store, choice)
    assert told["version"].startswith(hashlib.sha256(checkpoint.read_bytes()).hexdigest()[:12])
    assert (told["name"], told["model"], told["max_cost_usd"], told["problem"]) == (
        "metauas",
        "random-64.ckpt",
        0.0,
        "",
    )
    with checkpoint.open("ab") as file:
        file.write(b"\0")
    assert described(store, choice)["version"] != told["version"]


def test_a_checkpoint_exchanged_while_the_server_runs_is_noticed(tmp_path: Path, checkpoint: Path) -> None:
    masker = masker_for(BackendChoice("metauas", model=str(checkpoint)))
    with checkpoint.open("ab") as file:
        file.write(b"\0")
    photo = make_photo()
    with pytest.raises(BackendError, match="has changed since this server started"):
        masker.find(photo, np.asarray(255 - photo))


@pytest.mark.parametrize(
    ("model", "device", "says"),
    [
        ("", "", "name the checkpoint: --masker-model"),
        ("/no/such/metauas-256.ckpt", "", "there is no file /no/such/metauas-256.ckpt"),
        ("{tmp}", "", "cannot be read"),
        ("{checkpoint}", "tpu", "ANOMALY_AGENT_MASKER_DEVICE=tpu: choose cpu or cuda"),
    ],
)
def test_what_keeps_it_from_working_is_told_beforehand_and_by_every_call(
    store: Store,
    tmp_path: Path,
    checkpoint: Path,
    monkeypatch: pytest.MonkeyPatch,
    model: str,
    device: str,
    says: str,
) -> None:
    monkeypatch.setenv("ANOMALY_AGENT_MASKER_DEVICE", device)
    choice = BackendChoice("metauas", model=model.format(tmp=tmp_path, checkpoint=checkpoint))
    assert says in described(store, choice)["problem"]
    result = call(store, choice, *pair(tmp_path, 160, 128))
    assert result.is_error
    assert says in result.content[0].text
    assert result.meta[META_FAILURE]["kind"] == "setup"


def test_without_torch_the_extra_to_install_is_named(
    store: Store, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backend.importlib.util, "find_spec", lambda name: None)
    problem = described(store, BackendChoice("metauas", model=str(checkpoint)))["problem"]
    assert "pip install 'anomaly-agent[metauas]'" in problem


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_cuda_without_a_device_is_refused(
    store: Store, tmp_path: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANOMALY_AGENT_MASKER_DEVICE", "cuda")
    result = call(store, BackendChoice("metauas", model=str(checkpoint)), *pair(tmp_path, 160, 128))
    assert "PyTorch finds no CUDA device: choose cpu" in result.content[0].text


def test_a_second_mask_generator_tells_how_far_it_agrees(
    store: Store, tmp_path: Path, taught: tuple[Path, list[float]]
) -> None:
    normal, anomaly = pair(tmp_path, 160, 128)
    alone = facts(call(store, BackendChoice(), normal, anomaly))
    assert "agreement" not in alone
    both = facts(call(store, BackendChoice("local+metauas", model=str(taught[0])), normal, anomaly))
    assert both["backend"] == "local+metauas"
    assert both["boxes"] == alone["boxes"]
    assert 0 <= both["agreement"] <= 1
    assert "metauas: " in both["note"]


def test_agreement_is_the_share_of_both_masks_that_both_hold() -> None:
    a, b = np.zeros((4, 4), bool), np.zeros((4, 4), bool)
    assert agreement(a, b) == 1.0
    a[:2], b[1:3] = True, True
    assert agreement(a, b) == pytest.approx(1 / 3)
