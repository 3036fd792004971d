"""mask_gen's MetaUAS backend: what a client is told of it, and a mask from its probabilities."""

from __future__ import annotations

import importlib.util
import os
import threading
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mcp_servers.backends import BackendChoice, BackendFacts
from mcp_servers.errors import BackendError, FailureKind
from mcp_servers.fingerprint import local_version
from mcp_servers.mask_gen.local import check_pair
from mcp_servers.mask_gen.local.result import MaskResult, found, nothing
from mcp_servers.mask_gen.local.shape import drop_specks, hysteresis
from mcp_servers.mask_gen.metauas.checkpoint import Checkpoint, identify, load_checkpoint
from mcp_servers.vision.types import Field, Image

if TYPE_CHECKING:
    from mcp_servers.mask_gen.metauas.network import MetaUAS

DEVICE = "ANOMALY_AGENT_MASKER_DEVICE"
"""Environment variable that says where the network runs: cpu (the default) or cuda."""
SEED, GROW = 0.5, 0.3
"""Probability from which a piece counts (the paper's threshold), and down to which it extends."""
SPECK = 1e-5
"""Smallest piece, as a share of the picture."""

_running = threading.Lock()
"""One pair at a time goes through the network: that bounds memory, and cuDNN's flags are the process's."""


def metauas(choice: BackendChoice) -> tuple[BackendFacts, Callable[[Image, Image], MaskResult]]:
    """What to tell clients of the backend, and its find_mask(normal, anomaly).

    ``choice.model`` is the path of the checkpoint. The weights are loaded by the first call, once per process.
    """
    path, device = Path(choice.model).expanduser(), os.environ.get(DEVICE, "").strip() or "cpu"
    problem, version, checkpoint = "", "", Checkpoint(path, "", 0)
    try:
        checkpoint = _usable(choice.model, path, device)
        version = f"{checkpoint.digest[:12]}-{local_version('mask_gen')}" + ("" if device == "cpu" else f"@{device}")
    except BackendError as error:
        problem = f"mask_gen with metauas: {error}"

    def find(normal: Image, anomaly: Image) -> MaskResult:
        return find_mask(normal, anomaly, checkpoint, device)

    return BackendFacts("metauas", path.name, version, 0.0, problem), find


def _usable(model: str, path: Path, device: str) -> Checkpoint:
    """The checkpoint, where all that the backend needs is at hand. Raises BackendError otherwise."""
    if importlib.util.find_spec("torch") is None:
        raise BackendError("PyTorch is missing: pip install 'anomaly-agent[metauas]'", FailureKind.SETUP)
    if not model:
        raise BackendError("name the checkpoint: --masker-model /path/to/metauas-256.ckpt", FailureKind.SETUP)
    if device not in ("cpu", "cuda"):
        raise BackendError(f"{DEVICE}={device}: choose cpu or cuda", FailureKind.SETUP)
    return identify(path)


def find_mask(normal: Image, anomaly: Image, checkpoint: Checkpoint, device: str) -> MaskResult:
    """Find the defect that was edited into ``normal`` to give ``anomaly``; both (H, W, 3) uint8 of the same size.

    The probability map is thresholded with hysteresis (`SEED`, `GROW`) at the photo's size. ``confidence`` is the mean
    probability inside the mask; where nothing was found, 1 minus the highest probability anywhere. ``shift`` is (0, 0):
    the network aligns features, it measures no displacement. Deterministic on one device. Raises BackendError where
    the checkpoint or the device cannot be used, ValueError for photos that cannot be compared.
    """
    check_pair(normal, anomaly)
    shape = (normal.shape[0], normal.shape[1])
    if np.array_equal(normal, anomaly):
        return nothing(shape, 1.0, "metauas", (0.0, 0.0), "the two photos are identical")
    field = _probability(normal, anomaly, checkpoint, device)
    mask = drop_specks(hysteresis(field >= SEED, field >= GROW), field, max(3.0, SPECK * field.size), relative=0.0)
    if not mask.any():
        peak = float(field.max())
        why = f"the network gives no place more than {100 * peak:.0f}% ({100 * SEED:.0f}% counts)"
        return nothing(shape, 1 - peak, "metauas", (0.0, 0.0), why)
    return found(mask, float(field[mask].mean()), "metauas", (0.0, 0.0))


def _probability(normal: Image, anomaly: Image, checkpoint: Checkpoint, device: str) -> Field:
    """(H, W) float32: the probability that a pixel of ``anomaly`` changed.

    Photos go in as they did in training: squeezed to a square, bilinear between corner centres, without a low-pass.
    """
    import torch
    from torch import nn

    def resized(values: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
        return nn.functional.interpolate(values, size=size, mode="bilinear", align_corners=True)

    def prepared(photo: Image) -> torch.Tensor:
        values = torch.tensor(photo, device=device).permute(2, 0, 1)[None].float() / 255
        return resized(values, (checkpoint.side, checkpoint.side))

    with _running, torch.inference_mode(), torch.backends.cudnn.flags(deterministic=True, allow_tf32=False):
        network = _network(checkpoint, device)
        field = resized(network(prepared(anomaly), prepared(normal)), (normal.shape[0], normal.shape[1]))
        return np.asarray(field[0, 0].cpu().numpy(), np.float32)


@cache
def _network(checkpoint: Checkpoint, device: str) -> MetaUAS:
    """The network, loaded once per process."""
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        raise BackendError(f"{DEVICE}=cuda, but PyTorch finds no CUDA device: choose cpu", FailureKind.SETUP)
    return load_checkpoint(checkpoint.path, checkpoint.digest).to(device)
