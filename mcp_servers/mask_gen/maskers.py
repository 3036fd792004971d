"""Which mask generator stands behind mask_gen, or two of them with the second as a check on the first."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from mcp_servers.backends import BackendChoice, BackendFacts
from mcp_servers.fingerprint import local_version
from mcp_servers.mask_gen.local import MaskResult, find_mask
from mcp_servers.mask_gen.metauas.backend import metauas
from mcp_servers.vision.types import Image, Mask

BACKENDS = ("local", "metauas")


@dataclass(frozen=True, slots=True)
class Masker:
    """A mask generator: what clients are told of it, and how it compares a normal photo with its edited version."""

    backend: BackendFacts
    find: Callable[[Image, Image], MaskResult]


def masker_for(choice: BackendChoice) -> Masker:
    """The chosen mask generator; ``A+B`` gives A's masks, each with B's agreement."""
    first, *rest = (_single(name, choice) for name in choice.name.split("+"))
    return _checked(first, rest[0]) if rest else first


def _single(name: str, choice: BackendChoice) -> Masker:
    if name == "metauas":
        return Masker(*metauas(choice))
    return Masker(BackendFacts(version=local_version("mask_gen")), find_mask)


def _checked(first: Masker, second: Masker) -> Masker:
    """The first one's masks, with how far the second agrees."""
    both = (first.backend, second.backend)

    def find(normal: Image, anomaly: Image) -> MaskResult:
        result, other = first.find(normal, anomaly), second.find(normal, anomaly)
        return replace(
            result,
            agreement=agreement(result.mask, other.mask),
            note=f"{result.note} {second.backend.name}: {other.note}",
        )

    facts = BackendFacts(
        name="+".join(facts.name for facts in both),
        model="".join(facts.model for facts in both),
        version="+".join(facts.version for facts in both),
        problem=next((facts.problem for facts in both if facts.problem), ""),
    )
    return Masker(facts, find)


def agreement(a: Mask, b: Mask) -> float:
    """Intersection over union of two masks (H, W); 1 where both are empty."""
    union = np.count_nonzero(a | b)
    return np.count_nonzero(a & b) / union if union else 1.0
