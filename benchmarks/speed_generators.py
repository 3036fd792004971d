"""What ``speed.py`` times: our tools, the published baselines and defect-synthesis, each on the same ``Job``."""

from __future__ import annotations

import importlib
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import cv2
import numpy as np

from agent.policies.refine import step
from benchmarks.closed_loop import DRAWS, ITEMS, TYPES
from evaluation.baselines import BASELINES
from evaluation.data import Image, Mask, images_in, pick, read_image
from evaluation.ours import SPREAD
from mcp_servers.errors import RegionError
from mcp_servers.image_gen.local import render
from mcp_servers.knowledge.catalogue import profile_for
from mcp_servers.mask_gen.local import find_mask
from mcp_servers.prompt_gen.local import generate_prompt
from mcp_servers.quality_eval.local import evaluate

SYNTHESIS = "defect-synthesis==0.1.0"
"""A library of six procedural defects (PyPI); timed where it is installed."""
DEFAULTS = (
    "ScratchGenerator",
    "CrackGenerator",
    "StainGenerator",
    "PittingGenerator",
    "BurnGenerator",
    "TextureWarpGenerator",
)


@dataclass(frozen=True, slots=True)
class Job:
    """A sample to make of ``photo``, (side, side, 3) uint8 sRGB."""

    item: str
    kind: str
    photo: Image
    seed: int


Generate: TypeAlias = Callable[[Job], tuple[Image, Mask | None] | None]
"""The picture with its own mask (None where masks are found afterwards), or None where none could be made."""


def jobs(data: Path, side: int, count: int) -> list[Job]:
    """``count`` jobs over the categories and defect types that ``data`` has photos for, in turn, each on other photos.

    Photos are brought to side x side px. Gives an empty list where there is no photo.
    """
    found = {category: images_in(data / category / "train" / "good") for category in TYPES}
    tasks = [(category, kind) for category, kinds in TYPES.items() if found[category] for kind in kinds]
    made = []
    for number in range(count if tasks else 0):
        category, kind = tasks[number * len(tasks) // count if count < len(tasks) else number % len(tasks)]
        photo = read_image(found[category][(3 * number) % len(found[category])])
        how = cv2.INTER_AREA if min(photo.shape[:2]) > side else cv2.INTER_CUBIC
        photo = np.asarray(cv2.resize(photo, (side, side), interpolation=how), np.uint8)
        made.append(Job(ITEMS.get(category, category), kind, photo, number))
    return made


def local(job: Job) -> tuple[Image, None] | None:
    """Our generation alone: prompt_gen and image_gen, called as functions."""
    return draw(job, np.random.default_rng(job.seed))


def accepted(job: Job) -> tuple[Image, Mask] | None:
    """Our whole loop, called as functions: draw, judge, draw again up to three times, mask. None where none passed."""
    rng = np.random.default_rng(job.seed)
    profile = profile_for(job.item, job.kind)
    for _ in range(DRAWS):
        made = draw(job, rng)
        if made and evaluate(job.photo, made[0], job.item, job.kind, profile).passed:
            return made[0], find_mask(job.photo, made[0]).mask
    return None


def draw(job: Job, rng: np.random.Generator) -> tuple[Image, None] | None:
    """One picture with the prompt's size and severity varied, as evaluation/ours.py does; None where nothing fits."""
    prompt = generate_prompt(job.photo, job.item, job.kind).prompt
    prompt = step(prompt, size=pick(SPREAD, rng), severity=pick(SPREAD, rng)).prompt
    try:
        rendering = render(job.photo, prompt, int(rng.integers(2**31)))
    except RegionError:
        return None
    return np.clip(np.rint(rendering.rgb), 0, 255).astype(np.uint8), None


def judged(generate: Generate) -> Generate:
    """A generator with our judge as its gate: None where the picture does not pass."""

    def make(job: Job) -> tuple[Image, Mask | None] | None:
        made = generate(job)
        if made is None or not evaluate(job.photo, made[0], job.item, job.kind, None).passed:
            return None
        return made

    return make


def baselines() -> dict[str, Generate]:
    """CutPaste, DRAEM and NSA; what they take from other photos they take from the same one, at the same cost."""

    def bound(name: str) -> Generate:
        return lambda job: BASELINES[name]([job.photo], np.random.default_rng(job.seed))

    return {name: bound(name) for name in BASELINES}


def defect_synthesis() -> Generate | None:
    """The library at its default settings, its six defects in turn; None where it is not installed."""
    try:
        library = importlib.import_module("defect_synthesis")
    except ImportError:
        return None

    def make(job: Job) -> tuple[Image, Mask]:
        random.seed(job.seed)
        np.random.seed(job.seed)
        result = getattr(library, DEFAULTS[job.seed % len(DEFAULTS)])().apply(job.photo[:, :, ::-1])
        return np.ascontiguousarray(result.image[:, :, ::-1]), result.anomaly_mask > 0

    return make
