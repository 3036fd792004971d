"""Logistic regression over how far figures are from those of real defects: evidence of each, and what it comes to.

Evidence is never in favour: a figure that is as usual adds nothing, and no figure can be driven up to make up for
another. The weights are in weights.py, which ``python -m evaluation fit`` writes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import exp

CLIP = 4.0
"""Spreads from the centre beyond which a figure says no more."""


@dataclass(frozen=True, slots=True)
class Term:
    """One figure: what real defects have (``centre`` and ``spread``), and the weights (0 or less) of its squared
    distance from there, in spreads, where it lies above and where it lies below."""

    centre: float
    spread: float
    above: float
    below: float

    def evidence(self, value: float) -> float:
        """Log odds that the figure adds for a real defect, 0 or less."""
        distance = min(CLIP, abs(value - self.centre) / self.spread)
        return (self.above if value > self.centre else self.below) * distance * distance


@dataclass(frozen=True, slots=True)
class Head:
    """One regression. ``offset``: log odds of an edit whose figures are all as usual."""

    offset: float
    terms: Mapping[str, Term]

    def evidence(self, figures: Mapping[str, float]) -> dict[str, float]:
        """Log odds that each figure adds, by name."""
        return {name: term.evidence(figures[name]) for name, term in self.terms.items()}

    def log_odds(self, figures: Mapping[str, float]) -> float:
        """The logarithm of the odds that a defect with such figures is real, by the scale of the scores."""
        return self.offset + sum(self.evidence(figures).values())


def share(log_odds: float) -> float:
    """The logistic function, 0 to 1."""
    return 1 / (1 + exp(-min(30.0, max(-30.0, log_odds))))
