"""The scales on which measurements become factors: smooth, bounded, and monotone in what they judge."""

from __future__ import annotations

from dataclasses import dataclass
from math import log

FAIR = 0.93
"""Factor of what is just good enough; the rest is earned by being better than that."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One criterion: its factor in (0, 1], and the sentence that tells what to change."""

    factor: float
    advice: str


def ramp(value: float, bad: float, good: float, floor: float) -> float:
    """Smoothstep from ``floor`` (at or beyond ``bad``) to 1 (at or beyond ``good``); ``bad`` may exceed ``good``."""
    t = min(1.0, max(0.0, (value - bad) / (good - bad)))
    return floor + (1 - floor) * t * t * (3 - 2 * t)


def grade(value: float, bad: float, good: float, best: float, floor: float) -> float:
    """Like `ramp`, in two parts: from ``floor`` at ``bad`` to `FAIR` at ``good``, from there to 1 at ``best``."""
    return ramp(value, bad, good, floor) - (1 - FAIR) * (1 - ramp(value, good, best, 0.0)) * ramp(value, bad, good, 0.0)


def typical(value: float, least: float, low: float, high: float, most: float) -> float:
    """1 between ``low`` and ``high``, `FAIR` at ``least`` and ``most``, as much less again beyond; on a log scale.

    For figures of which real defects have neither little nor much: their middle half lies in between, 90% of them
    between ``least`` and ``most``. All arguments above 0.
    """
    away = max(log(low / value) / log(low / least), log(value / high) / log(most / high))
    return ramp(away, 2.0, 0.0, 2 * FAIR - 1)


def pct(share: float) -> str:
    """A share as a percentage, with a decimal where it is small."""
    value = 100 * max(0.0, share)
    return f"{value:.1f}%" if value < 10 else f"{value:.0f}%"
