"""The MetaUAS network: the published checkpoints' layout, and strict loading that names what does not fit."""

from __future__ import annotations

import hashlib
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mcp_servers.errors import BackendError, FailureKind
from mcp_servers.mask_gen.metauas.checkpoint import PUBLISHED, identify, load_checkpoint

torch = pytest.importorskip("torch", reason="the network needs torch: pip install 'anomaly-agent[metauas]'")
checkpoints = pytest.importorskip("tests.metauas_checkpoints")

# The layout of metauas-256.ckpt and metauas-512.ckpt, computed from a model built of segmentation_models_pytorch
# 0.2.1's encoder and decoder blocks (efficientnet_pytorch 0.6.3) as github.com/gaobb/MetaUAS puts them together. It is
# the published layout to the byte: saved by PyTorch 1, these keys give a file of 89,318,681 bytes, the size that
# huggingface.co/spaces/csgaobb/MetaUAS lists for both; with attention in the last block or no encoder head, not.
KEYS, VALUES = 820, 22_257_745
"""Entries of the state dictionary, and floating-point values in them (weights and batch statistics)."""
PARAMETERS, LEARNED = 22_130_305, 4_581_689
"""Parameters, and those outside the frozen encoder."""
LAYOUT = "1e4576b6095021622c2a8ef670a3278a15c3094eaf4bf9beda392f8b43238bee"
"""SHA-256 of the sorted lines "KEY SHAPE"."""


@pytest.fixture(scope="module")
def state() -> dict[str, Any]:
    return dict(checkpoints.random_network().state_dict())


@pytest.fixture
def checkpoint(tmp_path: Path, state: dict[str, Any]) -> Path:
    path = tmp_path / "random-64.ckpt"
    torch.save(state, path)
    return path


def test_the_network_has_the_published_checkpoints_layout(state: dict[str, Any]) -> None:
    lines = "\n".join(f"{key} {tuple(value.shape)}" for key, value in sorted(state.items()))
    assert len(state) == KEYS
    assert sum(value.numel() for value in state.values() if value.is_floating_point()) == VALUES
    assert hashlib.sha256(lines.encode()).hexdigest() == LAYOUT


def test_parameters_count_as_documented_and_the_encoder_is_frozen() -> None:
    network = checkpoints.random_network().train()
    assert sum(values.numel() for values in network.parameters()) == PARAMETERS
    assert sum(values.numel() for values in network.parameters() if values.requires_grad) == LEARNED
    assert not network.encoder.training
    assert network.decoder.training


def test_a_saved_checkpoint_comes_back_as_the_same_network(checkpoint: Path) -> None:
    query, prompt = checkpoints.toy_pair()
    with torch.inference_mode():
        before = checkpoints.random_network()(query, prompt)
        loaded = load_checkpoint(checkpoint)
        after = loaded(query, prompt)
    assert torch.equal(before, after)
    assert after.shape == (1, 1, 64, 64)
    assert not any(values.requires_grad for values in loaded.parameters())


def test_alignment_finds_what_moved() -> None:
    from mcp_servers.mask_gen.metauas.alignment import Fusion

    fusion = Fusion(56, 28)
    prompt = 4 * torch.randn(1, 56, 6, 8, generator=torch.Generator().manual_seed(0))
    query = prompt.flip(-1)
    with torch.inference_mode():
        fused = fusion(query, prompt)
    assert torch.equal(fused[:, :56], query)
    error = (fused[:, 56:] - query).abs().mean() / query.abs().mean()
    assert error < 0.5 * (prompt - query).abs().mean() / query.abs().mean()


def test_the_network_refuses_sizes_that_it_cannot_halve_five_times() -> None:
    odd = torch.zeros(1, 3, 64, 72)
    with pytest.raises(ValueError, match="multiples of 32"):
        checkpoints.random_network()(odd, odd)


def lightning(state: dict[str, Any]) -> dict[str, Any]:
    return {"epoch": 3, "state_dict": {f"model.{key}": value for key, value in state.items()}}


def half(state: dict[str, Any]) -> dict[str, Any]:
    return {key: value.half() if value.is_floating_point() else value for key, value in state.items()}


@pytest.mark.parametrize("change", [lightning, half])
def test_other_packings_of_the_same_weights_are_taken(
    tmp_path: Path, state: dict[str, Any], change: Callable[[dict[str, Any]], dict[str, Any]]
) -> None:
    torch.save(change(state), tmp_path / "packed-64.ckpt")
    network = load_checkpoint(tmp_path / "packed-64.ckpt")
    assert {values.dtype for values in network.parameters()} == {torch.float32}
    assert torch.allclose(network.mask_head.weight, state["mask_head.weight"], atol=1e-3)


def without(*keys: str) -> Callable[[dict[str, Any]], Any]:
    return lambda state: {key: value for key, value in state.items() if key not in keys}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (without("mask_head.bias"), "1 missing: mask_head.bias"),
        (without("mask_head.bias", "mask_head.weight"), "2 missing: mask_head.weight, mask_head.bias"),
        (lambda state: state | {"head.weight": torch.zeros(1)}, "1 unexpected: head.weight"),
        (
            lambda state: state | {"mask_head.weight": torch.zeros(1, 16, 1, 1)},
            "1 of another shape: mask_head.weight (1, 16, 1, 1) instead of (1, 48, 1, 1)",
        ),
        (lambda state: state | {"mask_head.bias": torch.tensor([float("nan")])}, "1 not finite: mask_head.bias"),
        (lambda _: {"layer.weight": torch.zeros(2)}, "820 missing: encoder._conv_stem.weight"),
        (lambda _: [1, 2], "holds no state dictionary"),
        (lambda _: {"state_dict": {"a": 1}}, "holds no state dictionary"),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_refused_and_the_keys_are_named(
    tmp_path: Path, state: dict[str, Any], change: Callable[[dict[str, Any]], Any], says: str
) -> None:
    torch.save(change(state), tmp_path / "other-64.ckpt")
    with pytest.raises(BackendError) as caught:
        load_checkpoint(tmp_path / "other-64.ckpt")
    assert says in str(caught.value)
    assert "other-64.ckpt" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.kind == FailureKind.SETUP


class Harmful:
    """Runs code where it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> Any:
        return (os.mkdir, (str(self.trace),))


@pytest.mark.parametrize("plain", [True, False])
def test_a_pickle_with_code_in_it_is_refused_and_does_not_run(tmp_path: Path, plain: bool) -> None:
    path, trace = tmp_path / "harm-64.ckpt", tmp_path / "trace"
    if plain:
        path.write_bytes(pickle.dumps(Harmful(trace), protocol=2))
    else:
        torch.save({"state_dict": Harmful(trace)}, path)
    with pytest.raises(BackendError, match=r"holds more than tensors \(posix.mkdir\)"):
        load_checkpoint(path)
    assert not trace.exists()


@pytest.mark.parametrize(
    "content", [b"", b"<!DOCTYPE html>", b"version https://git-lfs.github.com/spec/v1\noid sha256:73c0\n", b"\x80\x02"]
)
def test_a_file_that_is_no_checkpoint_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "page-64.ckpt").write_bytes(content)
    with pytest.raises(BackendError, match="no PyTorch checkpoint, or is damaged"):
        load_checkpoint(tmp_path / "page-64.ckpt")


def test_a_download_that_broke_off_is_refused(checkpoint: Path) -> None:
    with checkpoint.open("r+b") as file:
        file.truncate(checkpoint.stat().st_size // 2)
    with pytest.raises(BackendError, match="no PyTorch checkpoint, or is damaged"):
        load_checkpoint(checkpoint)


def test_the_input_side_is_told_by_the_published_content_else_by_the_files_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert sorted(PUBLISHED.values()) == [256, 512]
    monkeypatch.setitem(PUBLISHED, hashlib.sha256(b"as published").hexdigest(), 512)
    (tmp_path / "renamed-256.ckpt").write_bytes(b"as published")
    (tmp_path / "own-v2-384.ckpt").write_bytes(b"own")
    (tmp_path / "own.ckpt").write_bytes(b"own")
    assert identify(tmp_path / "renamed-256.ckpt").side == 512
    assert identify(tmp_path / "own-v2-384.ckpt").side == 384
    with pytest.raises(BackendError, match=r"call it e\.g\. mine-256\.ckpt"):
        identify(tmp_path / "own.ckpt")
