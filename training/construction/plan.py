"""Which trajectories are to be made, decided before anything runs: of which photo, with how many images, which seed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from evaluation.pairs import seeded
from training.construction.defects import Defect
from training.errors import TrainingError


@dataclass(frozen=True, slots=True)
class Job:
    """One trajectory to make: the ``number``-th of its defect, with ``images`` (1 to 3) images."""

    defect: Defect
    number: int
    images: int
    seed: int

    @property
    def session(self) -> str:
        """The session folder's name."""
        name = self.defect.name.replace("/test/", "-").replace("/", "-").rsplit(".", 1)[0]
        return f"{name}-{self.number}"


def plan(defects: Sequence[Defect], count: int, weights: Sequence[float], seed: int) -> list[Job]:
    """``count`` jobs (0: one a defect), spread evenly: every defect once before any is used again.

    Within a kind of defect the types keep to the ``weights`` of one, two and three images as nearly as whole numbers
    can, in an order drawn from ``seed``.
    """
    jobs = []
    owed: dict[tuple[str, str], list[float]] = {}
    used: Counter[str] = Counter()
    total = count or len(defects)
    share = [weight / sum(weights) for weight in weights]
    for at in range(total):
        defect = defects[at % len(defects)] if total >= len(defects) else defects[at * len(defects) // total]
        rng = seeded("plan", seed, defect.name, used[defect.name])
        kind = (defect.category, defect.kind)
        owing = owed.setdefault(kind, list(seeded("first", seed, *kind).uniform(0, 1, 3) * [w > 0 for w in share]))
        owing[:] = [due + part for due, part in zip(owing, share, strict=True)]
        images = 1 + max((n for n in range(3) if share[n] > 0), key=lambda n: owing[n])
        owing[images - 1] -= 1
        jobs.append(Job(defect, used[defect.name], images, int(rng.integers(2**31))))
        used[defect.name] += 1
    return jobs


def read_weights(text: str) -> tuple[float, float, float]:
    """Read "1,2,3". Raises TrainingError where it is no three numbers, none below 0, one at least above it."""
    try:
        weights = [float(part) for part in text.split(",")]
    except ValueError:
        weights = []
    if len(weights) != 3 or not all(0 <= weight < float("inf") for weight in weights) or sum(weights) <= 0:
        raise TrainingError(
            f"--weights {text!r} is unusable: give three numbers for one, two, three images, e.g. 1,2,1"
        )
    return weights[0], weights[1], weights[2]
