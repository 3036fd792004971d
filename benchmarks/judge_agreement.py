"""Do the two judges without a model agree, and are they not one and the same? On the renderer's own images.

``python -m benchmarks.judge_agreement --data DIR``: prompts of varied size and severity are rendered on the good photos
of every category (MVTec layout), both judges score every image, and their rank correlation (Spearman) is printed, in
all and within each category; with how many images pass each.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from agent.policies.refine import step
from evaluation.data import find_categories, images_in, pick, read_image
from evaluation.errors import EvaluationError
from evaluation.ours import SPREAD, asked_for
from evaluation.pairs import seeded
from mcp_servers.image_gen.local import RegionError, render
from mcp_servers.knowledge.catalogue import profile_for
from mcp_servers.prompt_gen.local import generate_prompt
from mcp_servers.quality_eval import statistics
from mcp_servers.quality_eval.local import evaluate

PASS = 7.0


def scores(folder: Path, count: int) -> Iterator[tuple[float, float]]:
    """Score by ``local`` and by ``statistics`` of up to ``count`` renderings of a category's kinds of defects."""
    item = folder.name
    kinds = asked_for(item, sorted(path.name for path in (folder / "test").iterdir() if path.name != "good"))
    photos = images_in(folder / "train" / "good")
    for number in range(count):
        rng, kind = seeded(item, number), kinds[number % len(kinds)]
        photo = read_image(pick(photos, rng))
        prompt = generate_prompt(photo, item, kind).prompt
        prompt = step(prompt, size=pick(SPREAD, rng), severity=pick(SPREAD, rng)).prompt
        try:
            drawn = render(photo, prompt, int(rng.integers(2**31))).rgb
        except RegionError:
            continue
        image = np.clip(np.rint(drawn), 0, 255).astype(np.uint8)
        first = evaluate(photo, image, item, kind, profile_for(item, kind))
        yield first.score, statistics.evaluate(photo, image, item, kind).score


def spearman(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Rank correlation (-1 to 1) of two series (N,), equal values with their mean rank; 0 where one is constant."""
    first, second = (_ranks(series) for series in (a, b))
    if first.std() == 0 or second.std() == 0:
        return 0.0
    return float(np.corrcoef(first, second)[0, 1])


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return np.asarray((last - (counts - 1) / 2)[inverse], np.float64)


def main() -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.judge_agreement", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="good photos in MVTec layout")
    parser.add_argument("--count", type=int, default=30, help="renderings of a category (default 30)")
    options = parser.parse_args()
    try:
        folders = find_categories(options.data, [])
        found = {folder.name: np.array(list(scores(folder, options.count))) for folder in folders}
    except EvaluationError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    together = {**found, "all": np.concatenate(list(found.values()))}
    for name, pairs in together.items():
        print(
            json.dumps(
                {
                    "category": name,
                    "images": len(pairs),
                    "spearman": round(spearman(pairs[:, 0], pairs[:, 1]), 3),
                    "local": {"median": round(float(np.median(pairs[:, 0])), 2), "pass": _share(pairs[:, 0])},
                    "statistics": {"median": round(float(np.median(pairs[:, 1])), 2), "pass": _share(pairs[:, 1])},
                }
            )
        )
    return 0


def _share(series: NDArray[np.float64]) -> float:
    return round(float(np.mean(series >= PASS)), 3)


if __name__ == "__main__":
    sys.exit(main())
