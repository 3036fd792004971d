"""Logistic regression over figures and their squares: evidence of each figure, and the share of realness they come to.

The weights are in weights.py, which ``python -m evaluation fit`` writes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import exp

CLIP = 3.0
"""Spreads from the centre beyond which a figure says no more: no single one decides."""


@dataclass(frozen=True, slots=True)
class Term:
    """One figure: what real defects have (median and standard deviation), and its two weights."""

    centre: float
    spread: float
    linear: float
    square: float

    def standard(self, value: float) -> float:
        """The figure in spreads from the centre, within `CLIP`."""
        return min(CLIP, max(-CLIP, (value - self.centre) / self.spread))


@dataclass(frozen=True, slots=True)
class Head:
    """One regression. ``offset``: log odds of an edit whose figures are all those of the typical real defect."""

    offset: float
    terms: Mapping[str, Term]

    def evidence(self, figures: Mapping[str, float]) -> dict[str, float]:
        """Log odds that each figure adds for a real defect (below 0: against it), by name."""
        out = {}
        for name, term in self.terms.items():
            z = term.standard(figures[name])
            out[name] = term.linear * z + term.square * z * z
        return out

    def log_odds(self, figures: Mapping[str, float]) -> float:
        """The logarithm of the odds that a defect with such figures is real, by the scale of the scores."""
        return self.offset + sum(self.evidence(figures).values())


def share(log_odds: float) -> float:
    """The logistic function, 0 to 1."""
    return 1 / (1 + exp(-min(30.0, max(-30.0, log_odds))))
