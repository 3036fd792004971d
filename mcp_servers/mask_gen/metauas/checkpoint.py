"""The published weights from a local file: found, identified, and checked key by key before they are used.

``metauas-256.ckpt`` and ``metauas-512.ckpt`` are bare state dictionaries; a Lightning checkpoint (``state_dict``
within, a prefix before every key) is taken too. Nothing but tensors is ever unpickled.
"""

from __future__ import annotations

import hashlib
import pickle
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mcp_servers.errors import BackendError, FailureKind

if TYPE_CHECKING:
    from torch import Tensor

    from mcp_servers.mask_gen.metauas.network import MetaUAS

PUBLISHED = {
    "73c0a43a6c7282b25b6a70bc97ecb32ad74d588d0099278618494f4afc99cdd1": 256,
    "4fd676e623c0362e6c358432ac0c4850388540a086c4921526752da0b769199c": 512,
}
"""SHA-256 of the author's files -> the side in pixels at which they were trained and are to be used."""
SIDES = range(64, 769, 32)
"""Sides that a network of one's own may name in its file name; attention takes side^4 / 1024 bytes."""
NAMED = 3
"""Keys that an error spells out of each kind."""
ANCHOR = "encoder._conv_stem.weight"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint that was found: ``digest`` is the file's SHA-256, ``side`` the network's input side in pixels."""

    path: Path
    digest: str
    side: int


def identify(path: Path) -> Checkpoint:
    """Which checkpoint a file is, without loading it: the published ones by content, others by their name's number.

    Raises BackendError where there is no such file, or the side cannot be told.
    """
    with _opened(path) as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    numbers = re.findall(r"\d+", path.stem)
    side = PUBLISHED.get(digest) or (int(numbers[-1]) if numbers else 0)
    if side not in SIDES:
        raise _setup(
            f"{path.name} is not one of the published MetaUAS checkpoints, and its name does not end with the side it "
            f"was trained at: call it e.g. mine-256.ckpt (a multiple of 32 from {SIDES[0]} to {SIDES[-1]})"
        )
    return Checkpoint(path, digest, side)


def load_checkpoint(path: Path, digest: str = "") -> MetaUAS:
    """The network with the weights of ``path``, on the CPU in float32, in evaluation mode, without gradients.

    Raises BackendError (setup) where the file is missing, is no checkpoint, holds more than tensors, or its keys and
    shapes are not exactly the network's; with ``digest`` also where it is no longer the file of that SHA-256.
    """
    import torch

    from mcp_servers.mask_gen.metauas.network import MetaUAS

    with _opened(path) as file:
        if digest and hashlib.file_digest(file, "sha256").hexdigest() != digest:
            raise _setup(f"{path.name} has changed since this server started: start the server again")
        file.seek(0)
        try:
            loaded = torch.load(file, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:
            raise _setup(_unpicklable(path.name, str(error))) from error
        except (RuntimeError, EOFError, ValueError, LookupError, TypeError, AttributeError) as error:
            raise _setup(f"{path.name} is no PyTorch checkpoint, or is damaged: download it again") from error
    with torch.device("meta"):
        network = MetaUAS()
    weights = _checked(path.name, loaded, network.state_dict())
    network.load_state_dict(weights, strict=True, assign=True)
    return network.eval().requires_grad_(False)


def _checked(name: str, loaded: Any, wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a loaded file under the network's keys, in its types. Raises BackendError unless all fit."""
    import torch

    state = loaded.get("state_dict", loaded) if isinstance(loaded, Mapping) else None
    if not isinstance(state, Mapping) or not all(
        isinstance(key, str) and isinstance(value, torch.Tensor) for key, value in state.items()
    ):
        raise _setup(f"{name} holds no state dictionary: give metauas-256.ckpt or metauas-512.ckpt as published")
    prefix = next((key.removesuffix(ANCHOR) for key in state if key.endswith(ANCHOR)), "")
    found = {key.removeprefix(prefix): value for key, value in state.items()}
    shapes = [
        f"{key} {tuple(found[key].shape)} instead of {tuple(value.shape)}"
        for key, value in wanted.items()
        if key in found and found[key].shape != value.shape
    ]
    wrong = [
        *_listed("missing", [key for key in wanted if key not in found]),
        *_listed("unexpected", [key for key in found if key not in wanted]),
        *_listed("of another shape", shapes),
    ]
    if wrong:
        raise _setup(
            f"{name} is not a MetaUAS checkpoint (EfficientNet-B4, soft alignment, U-Net; {len(wanted)} keys): "
            + "; ".join(wrong)
        )
    weights = {key: found[key].to(value.dtype) for key, value in wanted.items()}
    broken = [key for key, value in weights.items() if not bool(torch.isfinite(value).all())]
    if broken:
        raise _setup(f"{name} is damaged ({'; '.join(_listed('not finite', broken))}): download it again")
    return weights


def _listed(what: str, keys: Iterable[str]) -> list[str]:
    """["N keys WHAT: the first few"], or nothing where there are none."""
    every = list(keys)
    more = ", ..." if len(every) > NAMED else ""
    return [f"{len(every)} {what}: {', '.join(key[:120] for key in every[:NAMED])}{more}"] if every else []


def _unpicklable(name: str, reason: str) -> str:
    """What to tell where PyTorch refused to unpickle a file, given its long explanation."""
    refused = re.search(r"GLOBAL ([\w.]+)", reason)
    if refused is None:
        return f"{name} is no PyTorch checkpoint, or is damaged: download it again"
    return (
        f"{name} holds more than tensors ({refused.group(1)}), which is not loaded because it could run code: save "
        "its state dictionary alone, torch.save(network.state_dict(), PATH)"
    )


@contextmanager
def _opened(path: Path) -> Iterator[BufferedReader]:
    """The file, open for reading. Raises BackendError where it cannot be read."""
    try:
        with path.open("rb") as file:
            yield file
    except FileNotFoundError:
        raise _setup(f"there is no file {path}: download metauas-256.ckpt and give its path") from None
    except OSError as error:
        raise _setup(f"{path} cannot be read ({error.strerror}): give the path of metauas-256.ckpt") from error


def _setup(message: str) -> BackendError:
    return BackendError(message, FailureKind.SETUP)
