"""``python -m training.data SESSIONS --out DIR``: recorded sessions to training data (read ``examples.py`` first).

``read_examples`` chooses and counts; nothing is left out without a reason that is reported. Dividing is in
``split.py``, files for other tools in ``export.py``.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agent.policies.pictures import IMAGE_SIDE
from agent.session import Session, SessionError, read_session
from agent.task import StopReason
from training.examples import DataError, Example, example_of
from training.reward_config import RewardConfig, RewardConfigError, load_reward_config
from training.sessions import find_sessions
from training.split import cap, resample, split
from training.trace import MAX_SCORE


@dataclass(frozen=True, slots=True)
class Selection:
    """Which sessions become examples. An incomplete session never does.

    Raises DataError for a filter that nothing or everything would pass: a score that is none, an unknown stop reason.
    """

    stop_reasons: tuple[str, ...] = ("answered",)
    min_score: float | None = None
    """Least score (0-10) of the final image; one that was not judged has none."""
    min_reward: float | None = None
    policies: tuple[str, ...] = ()
    """Names of the policies whose sessions are taken; empty takes all."""
    repairs: bool = False
    """Take sessions in which turns could not be used; those turns are cut out of the conversation."""
    refusals: bool = False
    """Take sessions in which a tool refused a call."""
    duplicates: bool = False
    """Take sessions that repeat another's task and turns word for word."""
    mixed: bool = False
    """Take sessions whose policies were told different things (system prompt, tool signatures)."""
    skip_broken: bool = False
    """Leave damaged sessions out, and count them, instead of raising DataError."""
    side: int = IMAGE_SIDE
    """Longest side in pixels of the pictures."""
    rewards: RewardConfig = field(default_factory=RewardConfig)

    def __post_init__(self) -> None:
        if self.min_score is not None and not 0 <= self.min_score <= MAX_SCORE:
            raise DataError(f"min-score {self.min_score:g} is out of range: choose 0 to {MAX_SCORE:g}")
        if self.min_reward is not None and not math.isfinite(self.min_reward):
            raise DataError(f"min-reward {self.min_reward:g} is no reward: choose a finite number, such as 0.5")
        if unknown := [name for name in self.stop_reasons if name not in list(StopReason)]:
            raise DataError(f"stop-reason {unknown[0]!r} is unknown: choose from {', '.join(StopReason)}")

    def refusal(self, session: Session) -> str:
        """Why a session is not wanted, by its first and last line and whether the policy ever spoke; "" where it is."""
        stop = (session.end or {}).get("stop_reason")
        policy = (session.start.get("policy") or {}).get("name")
        if stop not in self.stop_reasons:
            return f"stopped by {stop}"
        if self.policies and policy not in self.policies:
            return f"policy {policy or 'unnamed'}"
        spoke = any(event.get("role") == "assistant" for event in session.of_type("message"))
        return "" if spoke else "no turn at all"

    def objection(self, example: Example) -> str:
        """Why an example is not wanted; "" where it is."""
        if example.repairs and not self.repairs:
            return "turns that could not be used"
        if example.refusals and not self.refusals:
            return "a tool refused"
        if self.min_score is not None and (example.score is None or example.score < self.min_score):
            return f"score below {self.min_score:g}" if example.score is not None else "final image not judged"
        if self.min_reward is not None and example.reward < self.min_reward:
            return f"reward below {self.min_reward:g}"
        return ""


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A session that gave no example, and why; ``detail`` is the whole error of a broken one."""

    session: str
    reason: str
    detail: str = ""


class Examples(Sequence[Example]):
    """The examples that were chosen, in the order of their folders, and what was left out."""

    def __init__(self, examples: Sequence[Example], left_out: Sequence[LeftOut] = ()) -> None:
        self._examples = tuple(examples)
        self.left_out = tuple(left_out)

    def __getitem__(self, index: Any) -> Any:
        return self._examples[index]

    def __len__(self) -> int:
        return len(self._examples)

    def __iter__(self) -> Iterator[Example]:
        return iter(self._examples)

    @property
    def reasons(self) -> dict[str, int]:
        """How many sessions were left out for each reason, the commonest first."""
        return dict(Counter(left.reason for left in self.left_out).most_common())


def read_examples(places: Sequence[str | Path], selection: Selection | None = None) -> Examples:
    """Examples from session folders, run folders, folders of either, or globs.

    Raises DataError where there is no session, where one is damaged (unless ``skip_broken``), or where the chosen
    ones were recorded under different protocols (unless ``mixed``).
    """
    selection = selection or Selection()
    left_out: list[LeftOut] = []
    chosen: list[Example] = []
    seen: set[str] = set()
    try:
        folders = find_sessions(places)
    except SessionError as error:
        raise DataError(str(error)) from error
    for folder in folders:
        try:
            example = _read(folder, selection)
        except (SessionError, DataError) as error:
            if not selection.skip_broken:
                cure = "mend or remove it, or leave damaged sessions out with --skip-broken"
                raise DataError(f"{error} ({cure})") from error
            left_out.append(LeftOut(str(folder), "broken", str(error)))
            continue
        if isinstance(example, str):
            left_out.append(LeftOut(str(folder), example))
        elif (key := _fingerprint(example)) in seen and not selection.duplicates:
            left_out.append(LeftOut(str(folder), "duplicate"))
        else:
            seen.add(key)
            chosen.append(example)
    protocols = Counter(example.protocol_hash for example in chosen)
    if len(protocols) > 1 and not selection.mixed:
        found = ", ".join(f"{name[:12] or 'none'} ({count})" for name, count in protocols.most_common())
        raise DataError(
            f"the sessions were recorded under {len(protocols)} protocols: {found}; one model should learn one: "
            "name the sessions of one protocol, or use --allow-mixed"
        )
    return Examples(chosen, left_out)


def _read(folder: Path, selection: Selection) -> Example | str:
    """The example of one session, or why it is not wanted. A torn log without an end is damaged."""
    session = read_session(folder)
    if not session.complete:
        if session.torn:
            raise DataError(f"{folder}: the last line is torn and the session has no end, its episode was cut short")
        return "incomplete"
    if reason := selection.refusal(session):
        return reason
    example = example_of(session, selection.rewards, selection.side)
    return selection.objection(example) or example


def _fingerprint(example: Example) -> str:
    """The same for sessions of the same task (by the photo's bytes, not its name) with the same turns."""
    task = {name: value for name, value in example.task.items() if name != "image"}
    return json.dumps([example.original_sha256, task, example.turns], sort_keys=True)


def parser_of() -> argparse.ArgumentParser:
    """The command's options."""
    parser = argparse.ArgumentParser(prog="python -m training.data", description="Recorded sessions to training data.")
    add = parser.add_argument
    add("sessions", nargs="+", metavar="SESSIONS", help="session or run folders, folders of them, globs")
    add("--out", type=Path, metavar="DIR", help="write the data set there (default: only count)")
    add("--format", choices=("hf", "parquet"), default="hf", help="Hugging Face on disk (default) or Parquet")
    add(
        "--stop-reason",
        action="append",
        metavar="NAME",
        help=f"one of {', '.join(StopReason)}; repeatable (default: answered)",
    )
    add("--min-score", type=float, metavar="S", help="least score of the final image, 0 to 10")
    add("--min-reward", type=float, metavar="R", help="least total reward")
    add("--reward-config", type=Path, metavar="FILE", help="TOML file with a [reward] table")
    add("--policy", action="append", default=[], metavar="NAME", help="only sessions of this policy (repeatable)")
    add("--allow-repairs", action="store_true", help="also sessions with turns that could not be used")
    add("--allow-refusals", action="store_true", help="also sessions in which a tool refused a call")
    add("--allow-mixed", action="store_true", help="also where policies were told different things")
    add("--keep-duplicates", action="store_true", help="also sessions that repeat another word for word")
    add("--skip-broken", action="store_true", help="leave damaged sessions out and count them")
    add("--image-side", type=int, default=IMAGE_SIDE, metavar="PX", help=f"longest side (default {IMAGE_SIDE})")
    add("--validation", type=float, default=0.0, metavar="SHARE", help="hold out this share, by photo (default 0)")
    balance = parser.add_mutually_exclusive_group()
    balance.add_argument("--cap", type=int, metavar="N", help="at most N training examples of each type")
    balance.add_argument("--resample", action="store_true", help="repeat training examples of the rarer types")
    add("--seed", type=int, default=0, help="of the split and of the balance (default 0)")
    add("--json", action="store_true", help="print JSON instead of a summary")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code: 0, or 2 for input that cannot be used."""
    options = parser_of().parse_args(argv)
    try:
        print(_run(options))
    except (DataError, RewardConfigError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"error: {options.out} cannot be written ({error}): choose another --out", file=sys.stderr)
        return 2
    return 0


def _run(options: argparse.Namespace) -> str:
    from training.export import describe, summary_text, write_dataset

    if not 32 <= options.image_side <= 8192:
        raise DataError(f"--image-side {options.image_side} is out of range: choose 32 to 8192")
    selection = Selection(
        stop_reasons=tuple(options.stop_reason or ("answered",)),
        min_score=options.min_score,
        min_reward=options.min_reward,
        policies=tuple(options.policy),
        repairs=options.allow_repairs,
        refusals=options.allow_refusals,
        duplicates=options.keep_duplicates,
        mixed=options.allow_mixed,
        skip_broken=options.skip_broken,
        side=options.image_side,
        rewards=load_reward_config(options.reward_config) if options.reward_config else RewardConfig(),
    )
    examples = read_examples(options.sessions, selection)
    if not examples:
        reasons = ", ".join(f"{reason} ({count})" for reason, count in examples.reasons.items())
        raise DataError(f"no example is left ({reasons}): loosen the filters, or name other sessions")
    train, validation = split(examples, options.validation, options.seed)
    balanced = train
    if options.cap is not None:
        balanced = cap(train, options.cap, options.seed)
    elif options.resample:
        balanced = resample(train, options.seed)
    splits = {"train": balanced, **({"validation": validation} if validation else {})}
    facts = describe(splits, examples, selection, len(balanced) - len(train), options.seed)
    if options.out:
        write_dataset(options.out, splits, facts, options.format)
    return json.dumps(facts, indent=2, ensure_ascii=False) if options.json else summary_text(facts)


if __name__ == "__main__":
    sys.exit(main())
