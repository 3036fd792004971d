"""A limit on what a job may spend, shared by all its episodes: nothing is called that could pass it.

Before a call the most that it may cost is set aside; afterwards what it did cost is settled and the rest is free again.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping
from contextlib import AbstractContextManager
from decimal import Decimal

from agent.ledger import usd
from agent.policies import Policy
from agent.transport import ToolInfo

PRICES = "name it in a file of prices and that file in ANOMALY_AGENT_PRICES, or leave --budget-usd out"


class BudgetError(RuntimeError):
    """The next call might pass the budget, or nobody knows its price; the message names the cure."""


class Budget:
    """At most ``limit_usd`` US dollars, None: no limit. Safe to share between tasks and threads.

    Raises ValueError for a limit that is not a number from 0 on.
    """

    def __init__(self, limit_usd: float | None = None) -> None:
        if limit_usd is not None and not (math.isfinite(limit_usd) and limit_usd >= 0):
            raise ValueError(f"a budget of {limit_usd} US dollars cannot be kept: give a number from 0 on")
        self._limit = None if limit_usd is None else usd(limit_usd)
        self._spent = self._reserved = Decimal(0)
        self._lock = threading.Lock()

    @property
    def spent_usd(self) -> float:
        """What was settled so far."""
        return float(self._spent)

    @property
    def reserved_usd(self) -> float:
        """What the calls under way may cost."""
        return float(self._reserved)

    def reserve(self, most_usd: float | None, what: str) -> Reservation:
        """Set aside the most that a call of ``what`` may cost (None or infinite: unknown).

        Raises BudgetError where spent, reserved and this together would pass the limit, or the price is unknown.
        """
        if self._limit is None:
            return Reservation(self, Decimal(0))
        if most_usd is None or not math.isfinite(most_usd):
            raise BudgetError(f"the price of {what} is unknown: {PRICES}")
        most = usd(most_usd)
        with self._lock:
            left = self._limit - self._spent - self._reserved
            if most > left:
                raise BudgetError(
                    f"the next call of {what} may cost ${_money(most)}, and ${_money(max(left, Decimal(0)))} of the "
                    f"budget of ${_money(self._limit)} is left: raise --budget-usd"
                )
            self._reserved += most
        return Reservation(self, most)

    def _settle(self, most: Decimal, cost: Decimal) -> None:
        with self._lock:
            self._reserved -= most
            self._spent += cost


class Reservation(AbstractContextManager["Reservation"]):
    """What one call may cost. Left without ``settle`` (given up, cancelled), all of it counts as spent."""

    def __init__(self, budget: Budget, most: Decimal) -> None:
        self._budget, self._most, self._open = budget, most, True

    def settle(self, cost_usd: float | None) -> None:
        """Enter what the call cost; None where nobody knows, which counts as the most that it may have cost."""
        if self._open:
            self._open = False
            self._budget._settle(self._most, self._most if cost_usd is None else usd(cost_usd))

    def __exit__(self, *exc: object) -> None:
        self.settle(None)


def check_prices(tools: Mapping[str, ToolInfo], policy: Policy) -> None:
    """Raise BudgetError, before anything is spent, for the first tool or model whose price nobody knows."""
    for name, tool in tools.items():
        if tool.max_cost_usd is None:
            model = tool.backend.get("model") or tool.backend.get("name")
            raise BudgetError(f"the price of {model} ({name}) is unknown: {PRICES}")
    if not math.isfinite(policy.max_cost_usd(())):
        described = policy.describe()
        raise BudgetError(f"the price of {described.get('model') or policy.name} (policy) is unknown: {PRICES}")


def _money(amount: Decimal) -> str:
    return f"{amount.normalize():f}"
