"""Turns and results of one constructed trajectory, in the order of the paper's types.

Single ``PG IG QE MG``, Dual ``PG IG QE (KR) IG QE MG``, Triple ``PG IG QE KR IG QE IG QE MG``. What the tools brought
back is given; the thoughts between are written here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from agent.protocol import Answer, ImageRef, ToolCall, Turn
from agent.toolbox import Observation
from evaluation.data import Image, Mask
from mcp_servers.mask_gen.local.result import found
from mcp_servers.quality_eval.local.factors import pct
from training.construction.mark import Mark
from training.construction.prepared import Step
from training.construction.prompting import fact_of
from training.construction.thoughts import Seen, Writer

DOUBTFUL = 0.5
"""Confidence (0-1) told of a real mask where mask_gen itself saw no defect."""


@dataclass(frozen=True, slots=True)
class Original:
    """The photos of one real defect.

    ``normal`` is the reversed photo (H, W, 3) in ``normal_file``, ``anomaly`` the real one, ``mask`` (H, W) its mask
    and ``mask_png`` the mask's file as 8-bit PNG. ``name`` is the defect's path below the data folder, ``photograph``
    what it was cut from, ``split`` the split file's name.
    """

    name: str
    category: str
    kind: str
    photograph: str
    normal: Image
    normal_file: Path
    anomaly: Image
    anomaly_file: Path
    mask: Mask
    mask_png: bytes
    split: str


@dataclass(frozen=True, slots=True)
class Tried:
    """An imperfect attempt: its prompt, the prompt's flaw (see `prompting.Wish`), and what the tools brought back.

    ``mark``: what is to be seen in it, None where the mask tool sees no difference to the good photo.
    """

    prompt: str
    flaw: str
    made: Observation
    judged: Observation
    mark: Mark | None

    @property
    def review(self) -> str:
        """What is to be changed."""
        return str(self.judged.payload["review"])

    @property
    def score(self) -> float:
        """0-10."""
        return float(self.judged.payload["score"])


@dataclass(frozen=True, slots=True)
class Material:
    """What a script is written from: the tools' results, and the ``prompt`` that describes the real defect (``mark``).

    ``drawn`` is what image_gen made of that prompt (its picture is not used), ``judged`` and ``masked`` what the tools
    say of the ``real`` photo. ``knowledge``: what was looked up after the first attempt, None where nothing was.
    """

    original: Original
    mark: Mark
    prompt: str
    proposal: Observation
    tries: Sequence[Tried]
    drawn: Observation
    judged: Observation
    knowledge: Observation | None
    masked: Observation
    real: ImageRef
    threshold: float


@dataclass(frozen=True, slots=True)
class Written:
    """A finished script; ``simulated`` names the results that are not a tool's own."""

    steps: list[Step]
    simulated: tuple[str, ...]


def write_script(material: Material, rng: np.random.Generator) -> Written:
    """All turns with their results. Deterministic in the material and ``rng``."""
    original, tries = material.original, material.tries
    names = {"item_name": original.category, "anomaly_type": original.kind}
    last = len(tries) + 2
    writer = Writer(original.category, original.kind, original.normal, rng)
    first = tries[0].prompt if tries else material.prompt
    flaw = tries[0].flaw if tries else "real"
    simulated = [] if first == material.proposal.payload["prompt"] else ["prompt_gen: prompt adapted to image 2"]
    steps = [
        Step(
            Turn(writer.start(), ToolCall("prompt_gen", {"image": 1, **names})), _with(material.proposal, prompt=first)
        ),
        Step(Turn(writer.first(first, flaw), _edit(first)), _image(tries[0].made, 2) if tries else _real(material, 2)),
    ]
    seen: list[Seen] = []
    for number, attempt in enumerate(tries):
        seen.append(Seen(number + 2, attempt.prompt, attempt.review, attempt.mark))
        earlier = seen[number - 1] if number else None
        judge = ToolCall("quality_eval", {"anomaly_image": number + 2, **names})
        steps.append(Step(Turn(writer.judge(seen[number], earlier), judge), attempt.judged))
        after = tries[number + 1].prompt if number + 1 < len(tries) else material.prompt
        target = None if number + 1 < len(tries) else material.mark
        fact = ""
        reviewed = False
        if number == 0 and material.knowledge is not None:
            look_up = Turn(writer.look_up(seen[number]), ToolCall("knowledge_retrieval", names))
            steps.append(Step(look_up, material.knowledge))
            fact, reviewed = fact_of(material.knowledge.payload), True
        made = _image(tries[number + 1].made, number + 3) if number + 1 < len(tries) else _real(material, last)
        steps.append(Step(Turn(writer.revise(seen[number], after, target, fact, reviewed), _edit(after)), made))
    judged = _verdict(material, rng)
    final = Seen(last, material.prompt, str(judged.payload["review"]), material.mark)
    judge = ToolCall("quality_eval", {"anomaly_image": last, **names})
    steps.append(Step(Turn(writer.judge(final, seen[-1] if seen else None), judge), judged))
    masked = _mask(material)
    steps.append(Step(Turn(writer.mask(final), ToolCall("mask_gen", {"anomaly_image": last})), masked))
    answer = Answer("success", last, True, writer.logic(final, seen))
    steps.append(Step(Turn(writer.answer(final, int(masked.payload["regions"])), answer)))
    simulated.append(f"image_gen: image {last} is the real photo")
    simulated += [f"quality_eval: image {last} scored to pass"] if judged is not material.judged else []
    simulated.append("mask_gen: the real mask")
    return Written(steps, tuple(simulated))


def _edit(prompt: str) -> ToolCall:
    return ToolCall("image_gen", {"prompt": prompt, "target_image": 1})


def _with(seen: Observation, **changed: Any) -> Observation:
    """A result with other values in what is logged, and in what is shown where it is shown."""
    shown = {key: changed.get(key, value) for key, value in seen.shown.items()}
    return replace(seen, payload=seen.payload | changed, shown=shown)


def _image(seen: Observation, index: int) -> Observation:
    """An image_gen result as the image of that number."""
    assert seen.image is not None
    return replace(seen, shown=seen.shown | {"image_index": index}, image=replace(seen.image, index=index))


def _real(material: Material, index: int) -> Observation:
    """The real photo as image_gen would have returned it: what changed is measured, the rest is the tool's own."""
    original = material.original
    changed = (np.abs(original.anomaly.astype(int) - original.normal).max(axis=2) > 0) | original.mask
    x, y, width, height = cv2.boundingRect(changed.astype(np.uint8))
    handle = material.judged.payload["anomaly_image"]
    drawn = material.drawn.payload if not material.drawn.error else {}
    payload = {
        "image": handle,
        "target_image": material.judged.payload["normal_image"],
        "size": [material.real.width, material.real.height],
        "backend": drawn.get("backend", "local"),
        "model": drawn.get("model", ""),
        "seed": drawn.get("seed", 0),
        "read_from_prompt": drawn.get("read_from_prompt", {}),
        "changed": {"box": [x, y, width, height], "area_fraction": round(float(changed.mean()), 6)},
        "notes": [],
        "cost_usd": 0.0,
        "seconds": drawn.get("seconds", 0.0),
    }
    hidden = ("image", "target_image", "cost_usd", "seconds")
    shown = {"image_index": index} | {key: value for key, value in payload.items() if key not in hidden}
    real = replace(material.real, index=index, handle=str(handle))
    bound = material.drawn.bound
    return Observation(payload, shown, bound, material.drawn.seconds, image=real)


def _verdict(material: Material, rng: np.random.Generator) -> Observation:
    """The judge's own word on the real photo where it passes, else one that passes and keeps to what was measured."""
    own = material.judged
    if own.payload["passed"]:
        return own
    location = max(4.5, float(own.payload["location_score"]))
    enough = material.threshold + float(rng.uniform(0.2, 0.9)) - location
    quality = round(min(5.0, max(float(own.payload["quality_score"]), enough)), 1)
    kind, item, mark = material.original.kind, material.original.category, material.mark
    review = (
        f"The {kind} lies on the {item} and covers {pct(mark.area)} of it, {mark.contrast:.1f} dE from the good "
        "surface. Its sharpness and grain match the photo, and the rest is unchanged."
    )
    score = round(location + quality, 1)
    return _with(own, score=score, location_score=location, quality_score=quality, review=review, passed=True)


def _mask(material: Material) -> Observation:
    """The real mask as mask_gen would have returned it."""
    own, mask = material.masked, material.original.mask
    certain = float(own.payload["confidence"]) if own.payload.get("found") else DOUBTFUL
    result = found(mask, certain, own.payload.get("method", "exact"), (0.0, 0.0))
    png = material.original.mask_png
    digest = hashlib.sha256(png).hexdigest()
    facts = {
        "found": True,
        "mask": f"img_{digest[:32]}",
        "area_fraction": round(result.area_fraction, 6),
        "boxes": [list(box) for box in result.boxes[:32]],
        "regions": len(result.boxes),
        "confidence": round(certain, 3),
        "note": result.note,
    }
    payload = own.payload | facts
    shown = {key: facts.get(key, value) for key, value in own.shown.items()}
    image = ImageRef(0, str(facts["mask"]), png, digest, mask.shape[1], mask.shape[0])
    return replace(own, payload=payload, shown=shown, mask=image)
