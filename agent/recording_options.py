"""The options of every command that makes samples: what is recorded or replayed, and what may be spent."""

from __future__ import annotations

import argparse
import math
from pathlib import Path

from agent.budget import Budget, check_prices
from agent.policies import Policy
from agent.recorded_policy import RecordedPolicy
from agent.replay import Mode, Recording
from agent.toolbox import Toolbox


def add_recording_options(parser: argparse.ArgumentParser) -> None:
    """``--record``, ``--replay``, ``--replay-else-live`` and ``--budget-usd``."""
    parser.add_argument("--record", metavar="DIR", help="keep in DIR what every call of a tool or model brings back")
    parser.add_argument("--replay", metavar="DIR", help="take every result from a recording; call nothing")
    parser.add_argument("--replay-else-live", metavar="DIR", help="the same, but make and keep the calls that it lacks")
    parser.add_argument(
        "--budget-usd", type=float, metavar="X", help="US dollars that may be spent; stops before the call to pass it"
    )


def recording_of(options: argparse.Namespace) -> Recording | None:
    """The recording that the options ask for, None for none.

    Raises ValueError for two of them at once and for a recording that does not exist.
    """
    given = [(mode, name) for mode in Mode if (name := getattr(options, mode.value.replace("-", "_")))]
    if len(given) > 1:
        named = " and ".join(f"--{mode.value}" for mode, _ in given)
        raise ValueError(f"{named} exclude each other: --replay-else-live takes what is recorded and makes the rest")
    for mode, name in given:
        if mode is Mode.REPLAY and not Path(name).is_dir():
            raise ValueError(f"--replay {name}: no such folder; make a recording with --record {name}")
        return Recording(Path(name).resolve(), mode)
    return None


def budget_of(options: argparse.Namespace) -> Budget:
    """The budget that ``--budget-usd`` sets. Raises ValueError for what is no amount."""
    limit = options.budget_usd
    if limit is not None and not (math.isfinite(limit) and limit >= 0):
        raise ValueError(f"--budget-usd {limit} is out of range: choose a number of US dollars from 0 on")
    return Budget(limit)


def policy_of(policy: Policy, toolbox: Toolbox, options: argparse.Namespace, recording: Recording | None) -> Policy:
    """The policy as the options want it: one that speaks to a model is recorded or replayed where the tools are.

    A policy without a model is worked out anew, as it costs nothing. Raises BudgetError where there is a budget and
    nobody knows the price of something that may be called.
    """
    if recording and policy.describe().get("model"):
        policy = RecordedPolicy(policy, recording, toolbox.signatures())
    if options.budget_usd is not None and not (recording and recording.mode is Mode.REPLAY):
        check_prices(toolbox.tools, policy)
    return policy
