"""Do the two judges without a model agree, and are they not one and the same? On the renderer's own images.

``python -m benchmarks.judge_agreement --data DIR``: prompts of varied size and severity are rendered on the good photos
of every category (MVTec layout), and each image is spoiled in every way of `SPOILED`. Both judges score all of them;
their rank correlation (Spearman) is printed, over the images as they were rendered and with the spoiled ones.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from agent.policies.refine import step
from evaluation.broken import clip
from evaluation.data import Image, find_categories, images_in, pick, read_image
from evaluation.errors import EvaluationError
from evaluation.ours import SPREAD, asked_for
from evaluation.pairs import seeded
from mcp_servers.image_gen.local import RegionError, render
from mcp_servers.knowledge.catalogue import profile_for
from mcp_servers.prompt_gen.local import generate_prompt
from mcp_servers.quality_eval import statistics
from mcp_servers.quality_eval.local import evaluate

PASS = 7.0
RENDERED = "rendered"


def faint(photo: Image, image: Image, rng: np.random.Generator) -> Image:
    """5-15% of the change."""
    return clip(photo + rng.uniform(0.05, 0.15) * (image.astype(np.float32) - photo))


def blurred(photo: Image, image: Image, rng: np.random.Generator) -> Image:
    """The changed pixels out of focus."""
    soft = cv2.GaussianBlur(image, (0, 0), rng.uniform(2, 4))
    return np.asarray(np.where(_changed(photo, image), soft, photo), np.uint8)


def flat(photo: Image, image: Image, rng: np.random.Generator) -> Image:
    """The changed pixels in one colour, their median shifted by up to 40 grey levels."""
    changed = _changed(photo, image)
    colour = np.median(image[changed[..., 0]], axis=0) + rng.uniform(-40, 40)
    return clip(np.where(changed, colour, photo))


def noisy(photo: Image, image: Image, rng: np.random.Generator) -> Image:
    """The changed pixels under white noise."""
    noise = rng.normal(0, rng.uniform(20, 50), (*photo.shape[:2], 1))
    return clip(image + noise * _changed(photo, image))


def recoloured(photo: Image, image: Image, rng: np.random.Generator) -> Image:
    """The whole picture in other colours."""
    return clip(image * rng.uniform(0.7, 1.15, 3) + rng.uniform(-25, 25, 3))


SPOILED = {spoil.__name__: spoil for spoil in (faint, blurred, flat, noisy, recoloured)}


def _changed(photo: Image, image: Image) -> NDArray[np.bool_]:
    """(H, W, 1): where the images differ by more than a rounding step."""
    return np.asarray((cv2.absdiff(photo, image).max(axis=2) > 2)[..., None])


def scores(folder: Path, count: int) -> Iterator[tuple[str, float, float]]:
    """What was done, score by ``local`` and by ``statistics``, of ``count`` renderings and their spoiled versions."""
    item = folder.name
    kinds = asked_for(item, sorted(path.name for path in (folder / "test").iterdir() if path.name != "good"))
    photos = images_in(folder / "train" / "good")
    for number in range(count):
        rng, kind = seeded(item, number), kinds[number % len(kinds)]
        photo = read_image(pick(photos, rng))
        prompt = generate_prompt(photo, item, kind).prompt
        prompt = step(prompt, size=pick(SPREAD, rng), severity=pick(SPREAD, rng)).prompt
        try:
            image = clip(render(photo, prompt, int(rng.integers(2**31))).rgb)
        except RegionError:
            continue
        if not _changed(photo, image).any():
            continue
        made = {RENDERED: image} | {name: spoil(photo, image, rng) for name, spoil in SPOILED.items()}
        for name, edited in made.items():
            first = evaluate(photo, edited, item, kind, profile_for(item, kind)).score
            yield name, first, statistics.evaluate(photo, edited, item, kind).score


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
    parser.add_argument("--count", type=int, default=15, help="renderings of a category (default 15)")
    options = parser.parse_args()
    try:
        found = {f.name: list(scores(f, options.count)) for f in find_categories(options.data, [])}
    except EvaluationError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    found["all"] = [row for rows in found.values() for row in rows]
    for category, rows in found.items():
        rendered = [row for row in rows if row[0] == RENDERED]
        line: dict[str, object] = {"category": category, "rendered": len(rendered), "images": len(rows)}
        line |= {"spearman_rendered": correlation(rendered), "spearman": correlation(rows)}
        if category == "all":
            line |= {name: means([row for row in rows if row[0] == name]) for name in (RENDERED, *SPOILED)}
        print(json.dumps(line))
    return 0


def correlation(rows: Sequence[tuple[str, float, float]]) -> float:
    """`spearman` of the two judges' scores."""
    return round(spearman(np.array([row[1] for row in rows]), np.array([row[2] for row in rows])), 3)


def means(rows: Sequence[tuple[str, float, float]]) -> dict[str, float]:
    """Mean score by each judge, and the share that passes each."""
    first, second = (np.array([row[judge] for row in rows]) for judge in (1, 2))
    out = {"local": first.mean(), "statistics": second.mean()}
    out |= {"local_pass": np.mean(first >= PASS), "statistics_pass": np.mean(second >= PASS)}
    return {name: round(float(value), 3) for name, value in out.items()}


if __name__ == "__main__":
    sys.exit(main())
