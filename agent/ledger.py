"""What an episode cost: calls, seconds and US dollars by tool and for the policy.

Amounts are added up as decimals, so that a sum of prices is the price of the sum (0.1 three times is 0.3).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

POLICY = "policy"
"""The ledger's line for the policy's own turns."""


def usd(amount: float) -> Decimal:
    """US dollars exactly as a float is written (0.1 is one tenth)."""
    return Decimal(repr(float(amount)))


@dataclass(slots=True)
class Line:
    """What one tool or the policy came to.

    ``failed`` calls are those refused or broken off; they are among ``calls``, as are ``replayed`` ones, which cost
    nothing now. ``recorded_usd``: what those cost when they were recorded.
    """

    calls: int = 0
    seconds: float = 0.0
    cost_usd: Decimal = Decimal(0)
    failed: int = 0
    replayed: int = 0
    recorded_usd: Decimal = Decimal(0)

    def to_json(self) -> dict[str, Any]:
        return {
            "calls": self.calls,
            "seconds": round(self.seconds, 3),
            "cost_usd": float(self.cost_usd),
            "failed": self.failed,
            "replayed": self.replayed,
            "recorded_cost_usd": float(self.recorded_usd),
        }


@dataclass(slots=True)
class Ledger:
    """One line a tool, in the order of first use."""

    lines: dict[str, Line] = field(default_factory=dict)

    def add(
        self,
        name: str,
        seconds: float,
        cost_usd: float,
        *,
        failed: bool = False,
        replayed: bool = False,
        recorded_cost_usd: float | None = None,
    ) -> None:
        """Enter one call of a tool, or of the policy. ``cost_usd`` is what was paid now."""
        line = self.lines.setdefault(name, Line())
        line.calls += 1
        line.seconds += seconds
        line.cost_usd += usd(cost_usd)
        line.failed += failed
        line.replayed += replayed
        line.recorded_usd += usd(recorded_cost_usd or 0.0)

    @property
    def cost_usd(self) -> float:
        """US dollars paid now, over all lines."""
        return float(sum((line.cost_usd for line in self.lines.values()), Decimal(0)))

    def to_json(self) -> dict[str, dict[str, Any]]:
        return {name: line.to_json() for name, line in self.lines.items()}
