"""Pairs from this project's own tools, called as functions: prompt_gen, image_gen, quality_eval as the gate, mask_gen.

The same steps as an episode of the built-in planner, without MCP between them, so that hundreds of pairs take minutes.
Nothing of the test set is used but the names of the defect types, which is what one would ask for.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from agent.policies.refine import step
from evaluation.data import Image, Pair, pick
from evaluation.errors import EvaluationError
from mcp_servers.image_gen.local import RegionError, render
from mcp_servers.knowledge.catalogue import UnknownAnomalyType, general_page, material_of, profile_for
from mcp_servers.mask_gen.local import find_mask, widened
from mcp_servers.prompt_gen.local import generate_prompt
from mcp_servers.quality_eval.local import evaluate

DRAWS = 3
"""Attempts at a pair: the first that passes the judge counts, else the best."""
MARGIN = 0.008
"""Margin of the masks, as a share of the photo's longer side (1 px of 128): people label a little wide."""
SPREAD = (-1, 0, 1)
"""Steps along the ladders of size and severity by which a prompt is varied, each as likely."""


def make_pairs(
    normals: Sequence[Image], item: str, kinds: Sequence[str], count: int, rng: np.random.Generator
) -> list[Pair]:
    """``count`` pairs, the kinds of defect in turn. Raises EvaluationError where no defect can be put on the photos."""
    known = asked_for(item, kinds)
    pairs: list[Pair] = []
    failures = 0
    while len(pairs) < count:
        pair = make_pair(normals, item, known[len(pairs) % len(known)], rng)
        failures = failures + 1 if pair is None else 0
        if failures > 20:
            raise EvaluationError(f"{item}: no {known[len(pairs) % len(known)]} could be put on the normal photos")
        pairs += [pair] if pair else []
    return pairs


def asked_for(item: str, kinds: Sequence[str]) -> list[str]:
    """The kinds that the knowledge base can place; for the others ("bad", "anomaly") what is usual on the material."""
    known = [kind for kind in kinds if understood(item, kind)]
    usual = [entry.name for entry in general_page(material_of(item)).entries]
    return known if len(known) == len(kinds) else list(dict.fromkeys([*known, *usual]))


def understood(item: str, kind: str) -> bool:
    """Whether the knowledge base can place a defect type."""
    try:
        profile_for(item, kind)
    except UnknownAnomalyType:
        return False
    return True


def make_pair(normals: Sequence[Image], item: str, kind: str, rng: np.random.Generator) -> Pair | None:
    """One pair of a kind: the first of ``DRAWS`` that passes the judge, else the best; None where all failed."""
    profile = profile_for(item, kind)
    best, best_score = None, -1.0
    for _ in range(DRAWS):
        photo = pick(normals, rng)
        prompt = generate_prompt(photo, item, kind).prompt
        prompt = step(prompt, size=pick(SPREAD, rng), severity=pick(SPREAD, rng)).prompt
        try:
            rendering = render(photo, prompt, int(rng.integers(2**31)))
        except RegionError:
            continue
        image = np.clip(np.rint(rendering.rgb), 0, 255).astype(np.uint8)
        verdict = evaluate(photo, image, item, kind, profile)
        found = find_mask(photo, image)
        if found.found and verdict.score > best_score:
            best, best_score = Pair(image, widened(found.mask, round(MARGIN * max(image.shape))), kind), verdict.score
            if verdict.passed:
                break
    return best
