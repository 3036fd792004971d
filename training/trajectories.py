"""``python -m training.trajectories DATASET --out SESSIONS``: trajectories for SFT from real defects (Algorithm 2).

Each real defect is removed from its photo (reverse.py), and a conversation is built that leads from the good photo to
the real one (construct.py), written as ordinary sessions. Progress goes to stderr, the summary to stdout. Exit code 0
where sessions were made, 1 where none was, 2 for input that cannot be used, 130 after Ctrl-C; ``--resume`` goes on.
"""

from __future__ import annotations

import argparse
import itertools
import json
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import anyio
import cv2
import numpy as np

from agent.session import LOG_NAME, SessionError, read_session
from agent.toolbox import BACKEND_ROLES, Toolbox, ToolboxError, builtin_server
from evaluation.data import Mask, read_image
from evaluation.pairs import seeded
from training.construct import Constructor
from training.defect_split import allowed, make_split, read_split, write_split
from training.defects import Defect, find_defects
from training.errors import TrainingError
from training.manifest import Entry, earlier, summary, write_manifest
from training.normals import Reversed, reverse_all
from training.plan import Job, plan, read_weights
from training.script import Original

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
    parser.add_argument("--count", type=int, default=0, metavar="N", help="sessions to make (default: one a defect)")
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
    for name, least in (("count", 0), ("workers", 1), ("seed", 0)):
        if getattr(options, name) < least:
            raise TrainingError(f"--{name} {getattr(options, name)} is too small: {least} at least")
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
    if not options.split:
        write_split(split_file, split)
        say(f"{split_file}: {len(split['train'])} defects for training, {len(split['held_out'])} held out")
    if options.out is None:
        return 0
    return _make(options, usable, split, split_file.name, weights)


def _make(
    options: argparse.Namespace, usable: list[Defect], split: dict[str, Any], split_name: str, weights: Sequence[float]
) -> int:
    settings = {
        "data": options.data.resolve().name, "split": split_name, "train": len(usable), "categories": options.category,
        "count": options.count, "weights": list(weights), "seed": options.seed, "backends": _backends(options),
    }  # fmt: skip
    folder: Path = options.out
    before = earlier(folder, settings)
    if before and not options.resume:
        raise TrainingError(f"{folder} holds sessions already: go on with --resume, or choose another --out")
    folder.mkdir(parents=True, exist_ok=True)
    write_split(folder / SPLIT_NAME, split)
    run = _Run(options, folder, split_name, settings, before)
    run.write()
    started = time.perf_counter()
    counter = itertools.count(1)

    def told(result: Reversed) -> None:
        note = f"left out ({result.reason})" if result.reason else "good photo made"
        say(f"{next(counter)}/{len(usable)}  {result.defect.name}: {note}")

    found = reverse_all(usable, folder / "normals", options.seed, options.workers, told)
    run.left_out([result for result in found if result.reason])
    files = {result.defect.name: result.file for result in found if not result.reason}
    if not files:
        run.write()
        raise TrainingError(
            f"none of the {len(usable)} defects could be removed well enough: see {folder}/manifest.json"
        )
    jobs = plan([defect for defect in usable if defect.name in files], options.count, weights, options.seed)
    anyio.run(run.all, jobs, files)
    content = run.write()
    if options.json:
        sys.stdout.write(json.dumps({k: v for k, v in content.items() if k != "entries"}, indent=1) + "\n")
    else:
        sys.stdout.write(_table(content, folder, time.perf_counter() - started))
    return 0 if content["sessions"] else FAILED


class _Run:
    """The sessions of one run: several workers, each with tool servers of its own."""

    def __init__(
        self,
        options: argparse.Namespace,
        folder: Path,
        split_name: str,
        settings: dict[str, Any],
        before: dict[str, Entry],
    ) -> None:
        self.options, self.folder, self.split_name = options, folder, split_name
        self.settings, self.before = settings, before
        self.entries: dict[str, Entry] = dict(before)
        self.servers: list[dict[str, Any]] = []

    def write(self) -> dict[str, Any]:
        """Write the manifest and return it."""
        entries = [self.entries[key] for key in sorted(self.entries)]
        content = summary(self.settings, entries, self.servers)
        write_manifest(self.folder, content)
        return content

    def left_out(self, results: Sequence[Reversed]) -> None:
        """Note the photos whose defect could not be removed."""
        for result in results:
            defect = result.defect
            self.entries[defect.name] = Entry("", defect.name, defect.category, defect.kind, skipped=result.reason)

    async def all(self, jobs: Sequence[Job], files: dict[str, Path]) -> None:
        """Make what is not there yet. Raises ToolboxError where no server can be started."""
        todo = [job for job in jobs if not self._have(job)]
        if len(todo) < len(jobs):
            say(f"{len(jobs) - len(todo)} sessions are there already")
        queue, total = iter(todo), len(todo)
        try:
            async with anyio.create_task_group() as group:
                for _ in range(min(self.options.workers, total)):
                    group.start_soon(self._work, queue, files, total)
        except* ToolboxError as failures:
            raise failures.exceptions[0] from None
        finally:
            self.write()

    def _have(self, job: Job) -> bool:
        """Whether an earlier run made or gave up this session; remains of an unfinished one are removed."""
        entry = self.before.get(job.session)
        place = self.folder / job.session
        if entry is None or (not entry.skipped and not (place / LOG_NAME).is_file()):
            shutil.rmtree(place, ignore_errors=True)
            return False
        return True

    async def _work(self, queue: Iterator[Job], files: dict[str, Path], total: int) -> None:
        server = builtin_server([self.options.data.resolve(), self.folder.resolve()], self.settings["backends"])
        async with Toolbox([server]) as toolbox:
            self.servers = toolbox.described
            for job in queue:
                entry = await self._one(job, files[job.defect.name], toolbox)
                self.entries[job.session] = entry
                made = len(self.entries) - len(self.before)
                scores = ", ".join(f"{score:g}" for score in entry.scores)
                say(f"{job.session}: {entry.skipped or f'{entry.type} ({scores})'}")
                if made % 20 == 0:
                    self.write()

    async def _one(self, job: Job, file: Path, toolbox: Toolbox) -> Entry:
        """One session, or the reason why there is none. Raises ToolboxError where the tools cannot go on at all."""
        defect = job.defect
        facts = (job.session, defect.name, defect.category, defect.kind)
        place = self.folder / f".{job.session}.part"
        shutil.rmtree(place, ignore_errors=True)
        try:
            anomaly, mask = defect.read()
            normal = read_image(file)
            original = Original(
                name=defect.name, category=defect.category, kind=defect.kind, photograph=defect.source, normal=normal,
                normal_file=file.resolve(), anomaly=anomaly, anomaly_file=defect.image.resolve(), mask=mask,
                mask_png=_mask_png(defect.mask, mask), split=self.split_name,
            )  # fmt: skip
            rng = seeded("session", self.options.seed, job.session)
            made = await Constructor(toolbox, original, job.seed, rng).build(place, job.images - 1)
            read_session(place)
            place.rename(self.folder / job.session)
        except (TrainingError, SessionError) as error:
            return Entry(*facts, skipped=f"not constructed: {error}")
        finally:
            shutil.rmtree(place, ignore_errors=True)
        return Entry(*facts, made.type, made.wanted, made.knowledge, made.threshold, made.scores, made.simulated)


def _mask_png(file: Path, mask: Mask) -> bytes:
    """The mask's own bytes where they are an 8-bit PNG of 0 and 255, else the same mask as one."""
    label = mask.astype(np.uint8) * 255
    stored = cv2.imread(str(file), cv2.IMREAD_UNCHANGED)
    if file.suffix.lower() == ".png" and stored is not None and stored.shape == label.shape and (stored == label).all():
        return file.read_bytes()
    ok, png = cv2.imencode(".png", label)
    if not ok:
        raise RuntimeError("PNG encoding failed")
    return png.tobytes()


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
