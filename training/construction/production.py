"""Making the sessions of a run: several workers, each with tool servers of its own; the manifest kept up to date.

One photo that cannot be used does not stop the others; tools that fail several times in a row do.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import anyio
import cv2
import numpy as np

from agent.session import LOG_NAME, read_session
from agent.toolbox import Toolbox, ToolboxError, builtin_server
from evaluation.data import Mask, read_image
from evaluation.pairs import seeded
from training.construction.construct import Constructor
from training.construction.manifest import Entry, summary, write_manifest
from training.construction.normals import Reversed
from training.construction.plan import Job
from training.construction.script import Original

IN_A_ROW = 3
"""Failures of the tools, one after the other, from which a worker gives up."""
KEPT = 20
"""Sessions after which the manifest is written again."""


class Production:
    """The sessions of one run: several workers, each with tool servers of its own."""

    def __init__(
        self,
        options: argparse.Namespace,
        folder: Path,
        split_name: str,
        settings: dict[str, Any],
        before: dict[str, Entry],
        donors: dict[str, list[str]],
        say: Callable[[str], None],
    ) -> None:
        self.options, self.folder, self.split_name = options, folder, split_name
        self.settings, self.before, self.donors = settings, before, donors
        self.entries: dict[str, Entry] = dict(before)
        self.servers: list[dict[str, Any]] = []
        self.say, self.done = say, 0

    def write(self) -> dict[str, Any]:
        """Write the manifest and return it."""
        entries = [self.entries[key] for key in sorted(self.entries)]
        content = summary(self.settings, entries, self.servers, self.donors)
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
            self.say(f"{len(jobs) - len(todo)} sessions are there already")
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
        failures = 0
        async with Toolbox([server]) as toolbox:
            self.servers = toolbox.described
            for job in queue:
                try:
                    entry = await self._one(job, files[job.defect.name], toolbox)
                    failures = 0
                except ToolboxError as error:
                    failures += 1
                    if failures == IN_A_ROW:
                        raise
                    entry = self._left_out(job, f"tools failed: {error}")
                self.entries[job.session] = entry
                self.done += 1
                scores = ", ".join(f"{score:g}" for score in entry.scores)
                self.say(f"{self.done}/{total}  {job.session}: {entry.skipped or f'{entry.type} ({scores})'}")
                if self.done % KEPT == 0:
                    self.write()

    @staticmethod
    def _left_out(job: Job, reason: str) -> Entry:
        return Entry(job.session, job.defect.name, job.defect.category, job.defect.kind, skipped=reason)

    async def _one(self, job: Job, file: Path, toolbox: Toolbox) -> Entry:
        """One session, or the reason why there is none. Raises ToolboxError where the tools fail."""
        defect = job.defect
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
        except ValueError as error:  # TrainingError, SessionError, and what no one has thought of: counted, and told
            return self._left_out(job, f"not constructed: {error}")
        finally:
            shutil.rmtree(place, ignore_errors=True)
        return Entry(
            job.session, defect.name, defect.category, defect.kind, made.type, made.wanted, made.knowledge,
            made.threshold, made.scores, made.simulated,
        )  # fmt: skip


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
