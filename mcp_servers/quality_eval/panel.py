"""One judge or several: the verdicts of all chosen backends as one, and how far they are apart.

Scores are combined by the plain mean of each criterion. Where one judge fails the whole judgement fails: a score never
comes from fewer judges than were chosen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

import anyio
import numpy as np
from numpy.typing import NDArray

from mcp_servers.backends import BackendChoice
from mcp_servers.errors import BackendError
from mcp_servers.knowledge.catalogue import UnknownAnomalyType, check_name, profile_for
from mcp_servers.knowledge.families import DefectProfile
from mcp_servers.quality_eval import statistics
from mcp_servers.quality_eval.advice import joined
from mcp_servers.quality_eval.local import evaluate
from mcp_servers.quality_eval.local.verdict import Verdict
from mcp_servers.quality_eval.model import judge
from mcp_servers.threads import compute
from mcp_servers.vlm import Answer, parts_of
from mcp_servers.vlm.choosing import notes_on_price

OFFLINE = ("local", "statistics")
"""Judges without a model: no key, no network, no cost."""
DISAGREEMENT = 2.0
"""Difference of two judges' scores (0-10) above which a note tells of it."""


@dataclass(frozen=True, slots=True)
class Ruling:
    """The combined verdict, the largest difference between two judges' scores (0-10), cost (US dollars) and notes."""

    verdict: Verdict
    disagreement: float
    cost_usd: float
    notes: list[str] = field(default_factory=list)


async def rule(
    normal: NDArray[np.uint8],
    anomaly: NDArray[np.uint8],
    item_name: str,
    anomaly_type: str,
    threshold: float,
    choice: BackendChoice,
) -> Ruling:
    """Have an edit judged by every backend of ``choice`` ("local+openai"); photos (H, W, 3) uint8 RGB of one size.

    Judges without a model come first, so that a task they cannot take costs nothing; services are asked all at once.
    Raises ToolInputError for names that a judge cannot take and BackendError where one fails, with the cost of all.
    """
    parts = parts_of(choice)
    profile = _profile(item_name, anomaly_type, needed=any(part.name == "local" for part in parts))
    answers: dict[str, Answer[Verdict]] = {}
    failures: list[BackendError] = []

    async def hear(part: BackendChoice) -> None:
        try:
            answers[part.name] = await judge(normal, anomaly, item_name, anomaly_type, profile, threshold, part)
        except BackendError as error:
            failures.append(error)

    for part in parts:
        if part.name == "local":
            task = partial(evaluate, normal, anomaly, item_name, anomaly_type, profile, threshold)
        elif part.name == "statistics":
            task = partial(statistics.evaluate, normal, anomaly, item_name, anomaly_type, threshold)
        else:
            continue
        answers[part.name] = Answer(await compute(task), 0.0, 0)
    async with anyio.create_task_group() as group:
        for part in parts:
            if part.name not in OFFLINE:
                group.start_soon(hear, part)
    cost = sum(answer.cost_usd for answer in answers.values()) + sum(error.cost_usd for error in failures)
    if failures:
        first = failures[0]
        raise BackendError(str(first), first.kind, cost_usd=cost, attempts=sum(e.attempts for e in failures)) from first
    verdicts = {part.name: answers[part.name].value for part in parts}
    verdict, disagreement = combined(verdicts, threshold)
    notes = notes_on_price(parts)
    if disagreement > DISAGREEMENT:
        scores = ", ".join(f"{name} {one.score:g}" for name, one in verdicts.items())
        notes.append(f"the judges disagree by {disagreement:g} of 10 ({scores}): look at the image")
    return Ruling(verdict, disagreement, cost, notes)


def combined(verdicts: dict[str, Verdict], threshold: float) -> tuple[Verdict, float]:
    """The mean verdict of several judges by name, and the largest difference between two scores.

    The review begins with that of the strictest judge; at equal scores with that of the judge named first.
    """
    if len(verdicts) == 1:
        return next(iter(verdicts.values())), 0.0
    scores = [verdict.score for verdict in verdicts.values()]
    location = _mean([verdict.location_score for verdict in verdicts.values()])
    quality = _mean([verdict.quality_score for verdict in verdicts.values()])
    score = round(location + quality, 2)
    strictest_first = sorted(verdicts.values(), key=lambda verdict: verdict.score)
    measured = {name: value for verdict in verdicts.values() for name, value in verdict.measurements.items()}
    verdict = Verdict(
        score=score,
        location_score=location,
        quality_score=quality,
        review=joined([verdict.review for verdict in strictest_first]),
        passed=score >= threshold,
        measurements=measured | {f"score_{name}": one.score for name, one in verdicts.items()},
    )
    return verdict, round(max(scores) - min(scores), 2)


def _mean(values: Sequence[float]) -> float:
    return round(sum(values) / len(values), 2)


def _profile(item_name: str, anomaly_type: str, needed: bool) -> DefectProfile | None:
    """What the knowledge base says; a type that it does not understand is refused only where it is needed."""
    check_name("item_name", item_name)
    check_name("anomaly_type", anomaly_type)
    try:
        return profile_for(item_name, anomaly_type)
    except UnknownAnomalyType:
        if needed:
            raise
        return None
