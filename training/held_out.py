"""What a policy is worth on tasks it was not trained on: the agent really runs them, through its own loop and tools.

SFT measures with it while it trains; as a command it measures any trained folder:

    python -m training.held_out OUTPUT/model --from OUTPUT --out DIR [--episodes 16] [--image-side 768] [--json]
    python -m training.held_out MODEL SESSIONS --out DIR

The tasks are those that the training in OUTPUT (``training.sft`` or ``training.grpo``) kept out, or those of the given
sessions, on the recorded originals. They are run with the built-in local tools; ``training.rescore`` has another judge
score them. Where the model was trained on some of these photos, a warning says so.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import anyio

from agent.episode import Episode
from agent.loop import run_episode
from agent.policies.pictures import IMAGE_SIDE
from agent.session import SessionError, SessionWriter
from agent.task import StopReason, Task
from agent.toolbox import Toolbox, ToolboxError, builtin_server
from training.config import ConfigError, ModelSection
from training.data import Selection, read_examples
from training.encoding import Encoder
from training.examples import DataError, Example
from training.generation import Sampling
from training.grpo.photos import fingerprint
from training.grpo.tasks import FILE_NAME, load
from training.local_policy import Batcher, LocalPolicy
from training.split_record import read_split, record_of_model

AT_ONCE = 8
"""Episodes that run side by side, and so the most turns of one generated batch."""


@dataclass(frozen=True, slots=True)
class HeldOut:
    """What held-out episodes came to. Shares are of the episodes that no tool's failure ended.

    ``valid_share``: every turn could be read and the answer agreed with what had happened. ``answered_share``: ended
    in an answer. ``mean_score`` (0-10) is of the final images that were judged, None where there is none.
    """

    episodes: int
    tool_failures: int
    valid_share: float
    answered_share: float
    passed_share: float
    mean_score: float | None
    mean_turns: float
    mean_images: float = 0.0

    def figures(self) -> dict[str, float]:
        """The shares and means as a trainer logs them."""
        named = asdict(self)
        return {name: float(value) for name, value in named.items() if name != "episodes" and value is not None}


def tasks_of(examples: Sequence[Example], episodes: int, max_turns: int = 12) -> list[Task]:
    """Tasks of examples, at most ``episodes``: each photo once, then each again where there are too few.

    The region of interest, which may be a file of its own, is left out.
    """
    return [
        Task(
            image=str(example.pictures[0].path.resolve()),
            item_name=str(example.task["item_name"]),
            anomaly_type=str(example.task["anomaly_type"]),
            seed=int(example.task.get("seed", 0)),
            threshold=float(example.task.get("threshold", 7.0)),
            max_images=int(example.task.get("max_images", 3)),
            max_turns=max_turns,
        )
        for example in drawn(examples, episodes)
    ]


def drawn(examples: Sequence[Example], episodes: int) -> list[Example]:
    """The examples whose tasks ``tasks_of`` gives."""
    seen: set[str] = set()
    first: list[Example] = []
    more: list[Example] = []
    for example in examples:
        (more if example.original_sha256 in seen else first).append(example)
        seen.add(example.original_sha256)
    return (first + more)[:episodes]


def measure(
    batcher: Batcher,
    tasks: Sequence[Task],
    folder: Path,
    label: str = "local",
    tools: Toolbox | None = None,
) -> HeldOut:
    """Run the tasks and record their sessions in ``folder``, which must not hold any.

    ``tools``: what they act with, not started yet; None: the built-in local ones.

    Raises ToolboxError where no episode could be run for want of tools, SessionError or OSError of the log.
    """
    tools = tools or Toolbox([builtin_server(sorted({Path(task.image).parent for task in tasks}))])
    try:
        episodes = anyio.run(_run_all, batcher, tasks, folder, label, tools)
    except* (ToolboxError, SessionError, OSError) as failures:
        raise _first(failures) from None
    ran = [episode for episode in episodes if episode.stop_reason is not StopReason.TOOL_ERROR]
    if not ran:
        raise ToolboxError(f"no held-out episode could be run: {episodes[0].error}")
    scores = [
        float(final.evaluation["score"]) for e in ran if (final := e.final) is not None and final.evaluation is not None
    ]
    answered = [episode for episode in ran if episode.stop_reason is StopReason.ANSWERED]
    passed = [e for e in answered if (f := e.final) is not None and f.evaluation and f.evaluation["passed"] and e.mask]
    return HeldOut(
        episodes=len(ran),
        tool_failures=len(episodes) - len(ran),
        valid_share=sum(not e.repairs for e in answered) / len(ran),
        answered_share=len(answered) / len(ran),
        passed_share=len(passed) / len(ran),
        mean_score=fmean(scores) if scores else None,
        mean_turns=fmean(episode.turns for episode in ran),
        mean_images=fmean(len(episode.made) for episode in ran),
    )


def _first(failures: BaseExceptionGroup[Any]) -> BaseException:
    """One failure of episodes that ran side by side."""
    first = failures.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first


async def _run_all(batcher: Batcher, tasks: Sequence[Task], folder: Path, label: str, tools: Toolbox) -> list[Episode]:
    episodes = [Episode(task) for task in tasks]
    limit = anyio.CapacityLimiter(AT_ONCE)

    async def run(number: int, toolbox: Toolbox) -> None:
        async with limit:
            with SessionWriter(folder / f"{number:03d}") as session:
                policy = LocalPolicy(batcher, label, seed=number)
                await run_episode(tasks[number], policy, toolbox, session, episode=episodes[number])

    async with tools as toolbox, anyio.create_task_group() as group:
        for number in range(len(tasks)):
            group.start_soon(run, number, toolbox)
    return episodes


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m training.held_out", description="Measure a trained policy.")
    parser.add_argument("model", metavar="MODEL", help="folder that training left")
    parser.add_argument("sessions", nargs="*", metavar="SESSIONS", help="sessions whose tasks are run")
    parser.add_argument("--from", type=Path, dest="training", metavar="OUTPUT", help="what the training there kept out")
    parser.add_argument("--skip-broken", action="store_true", help="leave damaged sessions out")
    parser.add_argument("--episodes", type=int, default=16, metavar="N", help="how many (default 16)")
    parser.add_argument("--temperature", type=float, default=0.0, metavar="T", help="0 (default): the likeliest token")
    parser.add_argument("--max-new-tokens", type=int, default=1024, metavar="N", help="of one turn (default 1024)")
    parser.add_argument("--image-side", type=int, default=IMAGE_SIDE, metavar="PX", help="as in training")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="bfloat16", help="default bfloat16")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for the episodes' sessions")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a summary")
    options = parser.parse_args(argv)
    try:
        result = _measure_folder(options)
    except (ConfigError, DataError, SessionError, ToolboxError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    shown = json.dumps(asdict(result), indent=2)
    print(shown if options.json else "\n".join(f"{name}: {value}" for name, value in asdict(result).items()))
    return 0


def _measure_folder(options: argparse.Namespace) -> HeldOut:
    import torch

    from training.model import load_model, load_processor

    section = ModelSection(path=options.model, dtype=options.dtype, image_side=options.image_side)
    if options.out.exists() and (not options.out.is_dir() or any(options.out.iterdir())):
        raise DataError(f"{options.out} is not empty: choose another --out")
    tasks, sources = _tasks(options)
    if not tasks:
        raise DataError("no task to run: name sessions that ended in an answer")
    _warn_of_known_photos(options.model, sources)
    processor = load_processor(section)
    model: Any = load_model(section).to("cuda" if torch.cuda.is_available() else "cpu")
    sampling = replace(Sampling(), temperature=options.temperature, max_new_tokens=options.max_new_tokens)
    batcher = Batcher(model, Encoder(processor, options.image_side), sampling, AT_ONCE)
    return measure(batcher, tasks, options.out, Path(options.model).name)


def _tasks(options: argparse.Namespace) -> tuple[list[Task], list[frozenset[str]]]:
    """Tasks that are to be run, and fingerprints of what each stems from. Raises DataError or ConfigError."""
    if bool(options.sessions) == bool(options.training):
        raise DataError("name either SESSIONS to measure on, or with --from the output folder of a training")
    if options.training and (options.training / FILE_NAME).is_file():  # of a training.grpo
        if not (tasks := load(options.training).held_out[: options.episodes]):
            raise DataError(f"the training in {options.training} kept no task out: name SESSIONS that are new to it")
        return tasks, [frozenset({fingerprint(Path(task.image))}) for task in tasks]
    examples = _examples(options)
    sources = [example.sources for example in drawn(examples, options.episodes)]
    return tasks_of(examples, options.episodes), sources


def _examples(options: argparse.Namespace) -> Sequence[Example]:
    """Examples of the sessions that are named, or that a training kept out. Raises DataError or ConfigError."""
    places = options.sessions
    if options.training and not (places := read_split(options.training).held_out):
        raise DataError(f"the training in {options.training} kept no session out: name SESSIONS that are new to it")
    return read_examples(places, Selection(skip_broken=options.skip_broken, mixed=True))


def _warn_of_known_photos(model: str, tasks: Sequence[frozenset[str]]) -> None:
    record = record_of_model(model)
    known = sum(bool(record and sources & record.trained_on) for sources in tasks)
    if known:
        print(
            f"warning: {model} was trained on the photos of {known} of these {len(tasks)} tasks, so the figures say "
            "little about new ones: measure on what no training saw, with --from or sessions of other photos",
            file=sys.stderr,
        )


if __name__ == "__main__":
    sys.exit(main())
