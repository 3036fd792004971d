"""Dividing examples: training and validation that share no photo, and a balance between the types of trajectory."""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from collections.abc import Sequence

from training.examples import KINDS, DataError, Example


def split(examples: Sequence[Example], fraction: float, seed: int = 0) -> tuple[list[Example], list[Example]]:
    """Training and validation examples; all that stem from one photo are on one side.

    Photos are linked by the original's SHA-256 and by the real photo that a constructed session was made from. Groups
    go to validation in an order drawn from ``seed`` while it holds less than ``fraction`` (0 to below 1) of the
    examples: one group at least, never all.

    Raises DataError where the fraction is out of range or there is only one group.
    """
    if not 0 <= fraction < 1:
        raise DataError(f"validation share {fraction} is out of range: choose 0 to below 1")
    if fraction == 0 or not examples:
        return list(examples), []
    groups = _groups(examples)
    if len(groups) < 2:
        raise DataError(
            "all examples stem from one photo, so none can be held out: add photos or choose --validation 0"
        )
    groups.sort(key=lambda group: hashlib.sha256(f"{seed}:{min(_sources(group))}".encode()).digest())
    held: set[int] = set()
    for group in groups[:-1]:
        if len(held) >= fraction * len(examples):
            break
        held.update(id(example) for example in group)
    return [e for e in examples if id(e) not in held], [e for e in examples if id(e) in held]


def cap(examples: Sequence[Example], most: int, seed: int = 0) -> list[Example]:
    """At most ``most`` examples of each type, drawn without replacement, in their order. Raises DataError for < 1."""
    if most < 1:
        raise DataError(f"cap {most} is too small: 1 at least")
    kept: set[int] = set()
    for kind in KINDS:
        of_kind = [number for number, example in enumerate(examples) if example.kind == kind]
        kept.update(of_kind if len(of_kind) <= most else _draw(seed, kind).sample(of_kind, most))
    return [example for number, example in enumerate(examples) if number in kept]


def resample(examples: Sequence[Example], seed: int = 0) -> list[Example]:
    """Every example, and further copies drawn with replacement until each type has as many as the commonest."""
    counts = Counter(example.kind for example in examples)
    drawn = list(examples)
    for kind in KINDS:
        if counts[kind]:
            of_kind = [example for example in examples if example.kind == kind]
            drawn += _draw(seed, kind).choices(of_kind, k=max(counts.values()) - counts[kind])
    return drawn


def _draw(seed: int, kind: str) -> random.Random:
    return random.Random(f"{seed}:{kind}")


def _sources(group: Sequence[Example]) -> set[str]:
    return {source for example in group for source in example.sources}


def _groups(examples: Sequence[Example]) -> list[list[Example]]:
    """Examples that share a photo with one another, directly or through others."""
    home: dict[str, list[Example]] = {}
    for example in examples:
        linked = {id(group): group for source in example.sources if (group := home.get(source)) is not None}
        merged = [*(other for group in linked.values() for other in group), example]
        for member in merged:
            home.update(dict.fromkeys(member.sources, merged))
    return list({id(group): group for group in home.values()}.values())
