"""``python -m training.rescore SESSIONS...``: reward recorded sessions, and append the rewards to their logs.

Every figure becomes one ``reward`` event: component, value, scorer and its version, the configuration's hash and the
judge; the total, last, also holds the configuration, the flags and why the episode is excluded. The same scorer,
configuration and judge are never appended twice, unless --force. Results go to stdout; exit code 0, 1 where a session
could not be scored, 2 for input that cannot be used.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import anyio
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from agent.session import Session, SessionError, append_events, read_session
from agent.task import StopReason
from agent.toolbox import Toolbox, ToolboxError, builtin_server
from mcp_servers.backends import problem_of
from mcp_servers.quality_eval.server import SPEC as JUDGES
from training.rejudge import Verdicts, judge_name, rejudge
from training.reward_config import RewardConfig, RewardConfigError, load_reward_config
from training.rewards import COMPONENTS, SCORER, SCORER_VERSION, Rewards, reward
from training.sessions import find_sessions
from training.trace import read_trace

RECORDED = "recorded"
"""Name of the judge whose scores the session itself holds."""


@dataclass(slots=True)
class Scored:
    """What became of one session. ``status``: appended, kept (was there already), scored (--dry-run), incomplete,
    unjudged (the other judge refused an image, so nothing is appended: run again), or damaged; ``problem`` says what is
    wrong in the last three. ``recorded_task``: R_task by the session's own judge."""

    session: str
    status: str
    session_id: str = ""
    stop_reason: str = ""
    judge: str = ""
    rewards: dict[str, float] = field(default_factory=dict)
    recorded_task: float | None = None
    flags: Sequence[str] = ()
    excluded: str = ""
    cost_usd: float = 0.0
    problem: str = ""


def parser_of() -> argparse.ArgumentParser:
    """The command's options."""
    parser = argparse.ArgumentParser(
        prog="python -m training.rescore", description="Reward recorded sessions and append the rewards to their logs."
    )
    parser.add_argument(
        "sessions", nargs="+", metavar="SESSIONS", help="session or run folders, folders of them, globs"
    )
    parser.add_argument("--config", type=Path, metavar="FILE", help="TOML file with a [reward] table")
    parser.add_argument("--judge", metavar="NAME", help="score the images again with this backend of quality_eval")
    parser.add_argument("--judge-model", metavar="MODEL", help="model of that judge")
    parser.add_argument("--judge-base-url", metavar="URL", help="where that judge's model is served")
    parser.add_argument("--force", action="store_true", help="append also where the same scoring is there already")
    parser.add_argument("--dry-run", action="store_true", help="append nothing")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    options = parser_of().parse_args(argv)
    try:
        config = load_reward_config(options.config) if options.config else RewardConfig()
        folders = find_sessions(options.sessions)
        _check_judge(options)
        results = anyio.run(_rescore, folders, config, options)
    except (SessionError, RewardConfigError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except ToolboxError as error:
        print(f"error: {error}; what was scored before it is kept", file=sys.stderr)
        return 1
    if options.json:
        print(json.dumps(_report(results, config), indent=2, ensure_ascii=False))
    else:
        _print(results, config)
    return 1 if any(result.status in ("damaged", "unjudged") for result in results) else 0


def _check_judge(options: argparse.Namespace) -> None:
    """Raise RewardConfigError for a judge that there is none of, before a server is started for it."""
    if not options.judge:
        if options.judge_model or options.judge_base_url:
            raise RewardConfigError("--judge-model and --judge-base-url go with --judge: name the backend too")
        return
    if problem := problem_of(JUDGES, options.judge):
        raise RewardConfigError(f"--judge {problem}")


async def _rescore(folders: Sequence[Path], config: RewardConfig, options: argparse.Namespace) -> list[Scored]:
    if not options.judge:
        return [await _one(folder, config, options, None) for folder in folders]
    chosen = [f"--{name}" for name in ("judge", "judge-model", "judge-base-url")]
    values = [options.judge, options.judge_model, options.judge_base_url]
    backends = [part for name, value in zip(chosen, values, strict=True) if value for part in (name, value)]
    async with Toolbox([builtin_server([], backends)]) as toolbox:
        return [await _one(folder, config, options, toolbox) for folder in folders]


async def _one(folder: Path, config: RewardConfig, options: argparse.Namespace, toolbox: Toolbox | None) -> Scored:
    result = Scored(str(folder), "damaged", judge=judge_name(toolbox) if toolbox else RECORDED)
    try:
        session = read_session(folder)
        result.session_id = str(session.start.get("session_id", ""))
        if not session.complete:
            result.status = "incomplete"
            torn = ", its last line is torn" if session.torn else ""
            result.problem = f"it has no end: still being recorded, or cut short{torn}"
            return result
        result.recorded_task = reward(read_trace(session), config).components["task"]
        if not options.force and _kept(session, config, result):
            return result
        verdicts = await rejudge(session, toolbox) if toolbox else None
        result.cost_usd = verdicts.cost_usd if verdicts else 0.0
        if verdicts and verdicts.refused:
            result.status = "unjudged"
            result.problem = "; ".join(f"image {number}: {why}" for number, why in verdicts.refused.items())
            return result
        score(session, config, result, verdicts)
        if not options.dry_run:
            append_events(folder, "reward", reward_events(result, config))
            result.status = "appended"
    except SessionError as error:
        result.status, result.problem = "damaged", str(error)
    except OSError as error:
        result.status, result.problem = "damaged", f"the reward cannot be appended ({error}): make the log writable"
    return result


def score(session: Session, config: RewardConfig, result: Scored, verdicts: Verdicts | None = None) -> None:
    """Fill in what a session earns, by its own scores or by another judge's."""
    rewards: Rewards = reward(read_trace(session), config, verdicts.scores if verdicts else None)
    result.status, result.stop_reason = "scored", str((session.end or {}).get("stop_reason"))
    result.rewards, result.flags, result.excluded = rewards.logged, rewards.flags, rewards.excluded


def reward_events(result: Scored, config: RewardConfig) -> list[dict[str, Any]]:
    """The ``reward`` events of one scoring, the total last."""
    scorer = {
        "scorer": SCORER, "scorer_version": SCORER_VERSION, "config_hash": config.hash, "judge": result.judge,
    }  # fmt: skip
    events: list[dict[str, Any]] = [
        {"component": name, "value": value, **scorer} for name, value in result.rewards.items()
    ]
    events[-1] |= {"flags": list(result.flags), "excluded": result.excluded, "config": asdict(config)}
    return events


def _kept(session: Session, config: RewardConfig, result: Scored) -> bool:
    """Fill in what the log holds of the same scoring; False where it holds none."""
    key = {"scorer": SCORER, "scorer_version": SCORER_VERSION, "config_hash": config.hash, "judge": result.judge}
    same = [event for event in session.of_type("reward") if all(event.get(name) == key[name] for name in key)]
    totals = [event for event in same if event.get("component") == "total"]
    values = {str(e.get("component")): float(e["value"]) for e in same if e.get("value") is not None}
    if not values.keys() >= {"total", *COMPONENTS}:
        return False
    result.status, result.stop_reason = "kept", str((session.end or {}).get("stop_reason"))
    result.rewards = values
    result.flags, result.excluded = totals[-1].get("flags") or (), str(totals[-1].get("excluded") or "")
    return True


def _report(results: Sequence[Scored], config: RewardConfig) -> dict[str, Any]:
    learnable = [result for result in results if result.rewards and not result.excluded]
    return {
        "scorer": SCORER,
        "scorer_version": SCORER_VERSION,
        "config": asdict(config),
        "config_hash": config.hash,
        "sessions": [asdict(result) for result in results],
        "learnable": len(learnable),
        "mean_total": _mean([result.rewards["total"] for result in learnable]),
        "mean_task": _mean([result.rewards["task"] for result in learnable]),
        "mean_recorded_task": _mean([result.recorded_task or 0.0 for result in learnable]),
        "cost_usd": sum(result.cost_usd for result in results),
    }


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _print(results: Sequence[Scored], config: RewardConfig) -> None:
    title = f"Rewards by {SCORER} {SCORER_VERSION}, configuration {config.hash}, judge {results[0].judge}"
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    table.add_column("session", overflow="fold")
    table.add_column("status", no_wrap=True)
    shown = {"task": "R_task", "reflection.paper": "R_ref paper", "reflection.running_max": "R_ref max",
             "behaviour": "R_beh", "total": "R"}  # fmt: skip
    for heading in shown.values():
        table.add_column(heading.replace(" ", "\n"), justify="right", no_wrap=True)
    told: list[str] = []
    common = os.path.commonpath([Path(result.session).absolute().parent for result in results])
    for result in results:
        notes = [f"stopped by {result.stop_reason}"] * (result.stop_reason not in ("", StopReason.ANSWERED))
        notes += [
            *result.flags,
            *[f"excluded: {result.excluded}"] * bool(result.excluded),
            *[result.problem] * bool(result.problem),
        ]
        figures = [f"{result.rewards[name]:.3f}" if name in result.rewards else "" for name in shown]
        name = os.path.relpath(result.session, common)
        table.add_row(name, result.status, *figures)
        told += [f"{name}: {'; '.join(notes)}"] * bool(notes)
    console = Console(markup=False, highlight=False)
    console.print(title, soft_wrap=True)
    console.print(table)
    console.print(*told, sep="\n", soft_wrap=True)
    report = _report(results, config)
    if report["mean_total"] is not None:
        console.print(f"mean R of {report['learnable']} sessions that may be learned from: {report['mean_total']:.3f}")
    if results[0].judge != RECORDED and report["mean_task"] is not None:
        own, other = report["mean_recorded_task"], report["mean_task"]
        console.print(f"mean R_task: {own:.3f} by the judges of the recording, {other:.3f} by this one")
        console.print(f"judging again cost ${report['cost_usd']:.4f}")


if __name__ == "__main__":
    sys.exit(main())
