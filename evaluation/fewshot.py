"""Pairs from a few real defects and this project's own tools: image_gen with an example, quality_eval as the gate.

The few-shot rival of Crop-paste: it is shown the same defects.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from evaluation.data import Image, Pair, pick
from evaluation.errors import EvaluationError
from evaluation.ours import DRAWS, understood
from mcp_servers.image_gen.local import Example, ExampleError, RegionError, render
from mcp_servers.knowledge.catalogue import profile_for
from mcp_servers.prompt_gen.local import generate_prompt
from mcp_servers.quality_eval.local import evaluate

SIZES = ("small", "medium-sized", "large", "very large")
SEVERITIES = ("moderate", "moderate", "pronounced", "severe")
"""Words of the ladders by which the real defects are varied."""


def transplant_pairs(
    normals: Sequence[Image], item: str, few: Sequence[Pair], count: int, rng: np.random.Generator
) -> list[Pair]:
    """``count`` pairs, the kinds of the few real defects in turn.

    Raises EvaluationError where none can be placed, or where one cannot serve as an example.
    """
    kinds = sorted({pair.kind for pair in few})
    pairs: list[Pair] = []
    failures = 0
    while len(pairs) < count:
        kind = kinds[len(pairs) % len(kinds)]
        try:
            pair = transplant_pair(normals, item, pick([p for p in few if p.kind == kind], rng), rng)
        except ExampleError as error:
            raise EvaluationError(f"{item}: a {kind} cannot be transplanted: {error}; or leave it out") from error
        failures = failures + 1 if pair is None else 0
        if failures > 20:
            raise EvaluationError(f"{item}: no {kind} could be transplanted onto the normal photos")
        pairs += [pair] if pair else []
    return pairs


def transplant_pair(normals: Sequence[Image], item: str, shown: Pair, rng: np.random.Generator) -> Pair | None:
    """The defect of a pair on another photo: the first of ``DRAWS`` that passes the judge, else the best.

    The mask is the drawn one, carried along. None where it fitted nowhere.
    """
    example = Example(shown.image, shown.mask)
    known = understood(item, shown.kind)
    best, best_score = None, -1.0
    for _ in range(DRAWS):
        photo = pick(normals, rng)
        prompt = generate_prompt(photo, item, shown.kind).prompt if known else f"Add a {shown.kind}."
        size, severity = pick(SIZES, rng), pick(SEVERITIES, rng)
        try:
            rendering = render(
                photo, prompt, int(rng.integers(2**31)), example=example, count=1, size=size, severity=severity
            )
        except RegionError:
            continue
        image = np.clip(np.rint(rendering.rgb), 0, 255).astype(np.uint8)
        mask = rendering.alpha > 0.5
        if not mask.any():
            continue
        if not known:
            return Pair(image, mask, shown.kind)
        verdict = evaluate(photo, image, item, shown.kind, profile_for(item, shown.kind))
        if verdict.score > best_score:
            best, best_score = Pair(image, mask, shown.kind), verdict.score
            if verdict.passed:
                break
    return best
