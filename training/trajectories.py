"""``python -m training.trajectories DATASET --out SESSIONS``: trajectories for SFT from real defects (Algorithm 2).

Each real defect is removed from its photo (reverse.py), and a conversation is built that leads from the good photo to
the real one (construct.py), written as ordinary sessions. Progress goes to stderr, the summary to stdout. Exit code 0
where sessions were made, 1 where none was, 2 for input that cannot be used, 130 after Ctrl-C; ``--resume`` goes on.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import anyio

from agent.toolbox import BACKEND_ROLES, ToolboxError
from mcp_servers.backends import problem_of
from mcp_servers.suite import SPECS
from training.construction.defect_split import (
    allowed,
    check_free,
    fingerprint,
    make_split,
    read_split,
    write_split,
)
from training.construction.defects import Defect, find_defects
from training.construction.manifest import Entry, earlier
from training.construction.normals import Reversed, donors, reverse_all
from training.construction.plan import plan, read_weights
from training.construction.production import Production
from training.errors import TrainingError

FAILED, INPUT_UNUSABLE, INTERRUPTED = 1, 2, 130
SPLIT_NAME = "split.json"


def parser_of() -> argparse.ArgumentParser:
    """The command's options."""
    parser = argparse.ArgumentParser(
        prog="python -m training.trajectories", description="Build training sessions from photos of real defects."
    )
    parser.add_argument("data", type=Path, metavar="DATASET", help="real defects with masks, in MVTec layout")
    parser.add_argument("--out", type=Path, metavar="DIR", help="where the sessions go")
    parser.add_argument("--split", type=Path, metavar="FILE", help="JSON that says which defects may be used")
    parser.add_argument(
        "--make-split",
        type=float,
        metavar="SHARE",
        help="make a split of the first SHARE of each type (the paper: 0.333)",
    )
    parser.add_argument("--split-out", type=Path, metavar="FILE", help="where to write it (default: DIR/split.json)")
    parser.add_argument("--category", action="append", default=[], metavar="NAME", help="only this one (repeatable)")
    parser.add_argument("--count", type=int, metavar="N", help="sessions to make (default: one a defect)")
    parser.add_argument(
        "--weights", default="1,1,1", metavar="A,B,C", help="how often one, two, three images (default 1,1,1)"
    )
    parser.add_argument("--seed", type=int, default=0, help="another seed, other attempts and wordings (default 0)")
    parser.add_argument("--workers", type=int, default=2, metavar="N", help="at once (default 2)")
    parser.add_argument("--resume", action="store_true", help="go on with what --out holds")
    parser.add_argument("--json", action="store_true", help="print the manifest's summary as JSON")
    for role in BACKEND_ROLES:
        parser.add_argument(f"--{role}", metavar="NAME", help=f"backend of the tools' {role} (default: local)")
        parser.add_argument(f"--{role}-model", metavar="MODEL", help=f"model of the tools' {role}")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    options = parser_of().parse_args(argv)
    try:
        return _run(options)
    except TrainingError as error:
        say(f"error: {error}")
        return INPUT_UNUSABLE
    except (ToolboxError, OSError) as error:
        say(f"error: {error}")
        return FAILED
    except KeyboardInterrupt:
        say("error: interrupted: go on with --resume")
        return INTERRUPTED


def say(line: str) -> None:
    """Progress, for people: to stderr."""
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


def _run(options: argparse.Namespace) -> int:
    weights = read_weights(options.weights)
    for spec in SPECS:
        if problem := problem_of(spec, getattr(options, spec.role) or "local"):
            raise TrainingError(f"--{spec.role} {problem}")
    for name, least in (("count", 1), ("workers", 1), ("seed", 0)):
        value = getattr(options, name)
        if value is not None and value < least:
            raise TrainingError(f"--{name} {value} is too small: {least} at least")
    defects = find_defects(options.data, options.category)
    if options.make_split is not None and options.split:
        raise TrainingError("--make-split makes a split and --split reads one: leave one out")
    if options.make_split is None and not options.split:
        raise TrainingError(
            "say which defects are for training: --split FILE, or --make-split 0.333 for a third of each"
        )
    split_file = options.split or options.split_out or (options.out and options.out / SPLIT_NAME)
    if split_file is None:
        raise TrainingError("--make-split needs --split-out FILE or --out DIR")
    split = read_split(options.split) if options.split else make_split(defects, options.make_split)
    usable = allowed(defects, split, split_file)
    settings = _settings(options, usable, split_file.name, weights)
    before = _before(options.out, settings, options.resume) if options.out else {}
    places = [] if options.split else [split_file]
    if options.out:
        places.append(options.out / SPLIT_NAME)
    for place in places:  # all is checked before anything is written
        check_free(place, split)
    for place in places:
        write_split(place, split)
    if not options.split:
        say(f"{split_file}: {len(split['train'])} defects for training, {len(split['held_out'])} held out")
    return _make(options, usable, settings, before) if options.out else 0


def _settings(
    options: argparse.Namespace, usable: list[Defect], split_name: str, weights: Sequence[float]
) -> dict[str, Any]:
    """What a run must have in common with the one that it goes on with."""
    return {
        "data": options.data.resolve().name,
        "split": split_name,
        "photos": fingerprint(usable),
        "categories": options.category,
        "count": options.count or 0,  # 0: one a defect
        "weights": list(weights),
        "seed": options.seed,
        "backends": _backends(options),
    }


def _before(folder: Path, settings: dict[str, Any], resume: bool) -> dict[str, Entry]:
    """What an earlier run left in the folder. Raises TrainingError where this one may not go on with it."""
    before = earlier(folder, settings)
    if before and not resume:
        raise TrainingError(f"{folder} holds sessions already: go on with --resume, or choose another --out")
    return before


def _make(options: argparse.Namespace, usable: list[Defect], settings: dict[str, Any], before: dict[str, Entry]) -> int:
    folder: Path = options.out
    run = Production(options, folder, settings["split"], settings, before, donors(usable), say)
    run.write()
    started = time.perf_counter()
    counter = itertools.count(1)

    def told(result: Reversed) -> None:
        note = f"left out ({result.reason})" if result.reason else "good photo made"
        say(f"{next(counter)}/{len(todo)}  {result.defect.name}: {note}")

    todo = [defect for defect in usable if defect.name not in before]  # what was left out before is not tried again
    found = reverse_all(todo, folder / "normals", options.seed, options.workers, told)
    run.left_out([result for result in found if result.reason])
    files = {result.defect.name: result.file for result in found if not result.reason}
    if not files:
        run.write()
        raise TrainingError(
            f"none of the {len(usable)} defects could be removed well enough: see {folder}/manifest.json"
        )
    jobs = plan(
        [defect for defect in usable if defect.name in files], settings["count"], settings["weights"], options.seed
    )
    anyio.run(run.all, jobs, files)
    content = run.write()
    if options.json:
        sys.stdout.write(
            json.dumps({k: v for k, v in content.items() if k not in ("entries", "donors")}, indent=1) + "\n"
        )
    else:
        sys.stdout.write(_table(content, folder, time.perf_counter() - started))
    return 0 if content["sessions"] else FAILED


def _backends(options: argparse.Namespace) -> list[str]:
    names = [f"{role}{part}" for role in BACKEND_ROLES for part in ("", "_model")]
    given = [(name, getattr(options, name)) for name in names if getattr(options, name) is not None]
    return [argument for name, value in given for argument in (f"--{name.replace('_', '-')}", str(value))]


def _table(content: dict[str, Any], folder: Path, seconds: float) -> str:
    lines = [f"{content['sessions']} sessions from {content['sources']} real defects in {folder}, {seconds:.0f} s"]
    lines += [f"  {name}: {count}" for name, count in content["by_type"].items()]
    lines.append(f"  with knowledge_retrieval: {content['with_knowledge']}")
    lines.append("by category: " + ", ".join(f"{name} {count}" for name, count in content["by_category"].items()))
    if content["skipped"]:
        lines.append("left out: " + ", ".join(f"{name} {count}" for name, count in content["skipped"].items()))
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
