"""``python -m agent.run IMAGE --item bottle --anomaly scratch``: one photo in, a defect and its mask out.

Progress goes to stderr, one result to stdout; the exit code is 0 where a sample with its mask was made, 1 where
the episode failed (what was made is kept), 2 for options or a photo that cannot be used, 130 after Ctrl-C.
"""

from __future__ import annotations

import os
import signal

if __name__ == "__main__":  # Ctrl-C while the rest is imported, before main() can say it in words
    signal.signal(signal.SIGINT, lambda *_: os._exit(130))

import argparse
import math
import re
import shutil
import sys
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import anyio
from rich.console import Console

from agent.budget import BudgetError
from agent.demo import render_demo_photo
from agent.episode import Episode
from agent.loop import run_episode
from agent.output import came_to_nothing, result_of, write_run
from agent.policies.choose import Policies, PolicyOptionError, add_policy_options, read_policy
from agent.recording_options import add_recording_options, budget_of, policy_of, recording_of
from agent.report.render import write_report
from agent.roi import read_roi
from agent.session import LOG_NAME, SessionError, SessionWriter
from agent.settings import SettingsError, apply_settings
from agent.task import LIMITS, StopReason, Task
from agent.ticker import Ticker
from agent.toolbox import (
    BACKEND_ROLES,
    CALL_TIMEOUT,
    SERVICE_TIMEOUT,
    WITH_PASSWORD,
    Server,
    Toolbox,
    ToolboxError,
    builtin_server,
    server_of,
)

RUN_FILES = ("original.png", "anomaly.png", "mask.png", "overlay.png", "result.json", "report.html")
FAILED, INPUT_UNUSABLE, INTERRUPTED = 1, 2, 130


class InputError(ValueError):
    """Input that cannot be used; the message is one line and names the cure."""


class OneLineParser(argparse.ArgumentParser):
    """An argument parser whose errors are one line like all others, without the usage."""

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message} (--help lists the options)")


def parser_of() -> argparse.ArgumentParser:
    """The command's options."""
    parser = OneLineParser(
        prog="python -m agent.run",
        description="Turn a photo of a good part into a realistic defective one with a mask.",
    )
    parser.add_argument("image", nargs="?", help="photo of a good part")
    parser.add_argument("--item", help='what the photo shows, e.g. "bottle"')
    parser.add_argument("--anomaly", help='the defect wanted, e.g. "scratch"')
    parser.add_argument("--demo", action="store_true", help="use a photo that the project renders: a scratched flange")
    parser.add_argument("--out", metavar="DIR", help="the run's folder (default: runs/ITEM-ANOMALY-SEED)")
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier run in --out")
    parser.add_argument("--roi", default="", metavar="X,Y,W,H|MASK", help="where the defect may go: box or mask image")
    parser.add_argument("--example", default="", metavar="IMAGE", help="photo of a real defect to transplant")
    parser.add_argument("--example-mask", default="", metavar="MASK", help="its mask, as large as it: white = defect")
    parser.add_argument("--count", type=int, default=0, help="how many defects (default: as the prompt says)")
    parser.add_argument(
        "--mask-margin", type=int, default=0, metavar="PX", help="grow the mask by so many pixels (default 0: exact)"
    )
    parser.add_argument("--seed", type=int, default=0, help="another seed, another defect (default 0)")
    parser.add_argument(
        "--threshold", type=float, default=7.0, help="score (0-10) from which a sample passes (default 7)"
    )
    parser.add_argument("--max-images", type=int, default=3, help="attempts at most (default 3)")
    parser.add_argument("--max-turns", type=int, default=12, help="policy turns at most (default 12)")
    parser.add_argument(
        "--server",
        action="append",
        default=[],
        metavar="URL|COMMAND",
        help="tool server to use (default: the built-in)",
    )
    for role in BACKEND_ROLES:
        tool = f"the built-in server's {role}"
        parser.add_argument(f"--{role}", metavar="NAME", help=f"backend of {tool} (default: local)")
        parser.add_argument(f"--{role}-model", metavar="MODEL", help=f"model of {tool}")
        parser.add_argument(f"--{role}-base-url", metavar="URL", help=f"where the model of {tool} is served")
    parser.add_argument("--knowledge-folder", metavar="DIR", help="your notes, for --knowledge folder or local+folder")
    parser.add_argument(
        "--call-timeout",
        type=float,
        metavar="S",
        help="seconds a tool call may take (default 120; 600 with a backend that is not local)",
    )
    add_recording_options(parser)
    parser.add_argument("--json", action="store_true", help="print result.json instead of a summary")
    add_policy_options(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    console = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
    try:
        return _run(argv, console)
    except (InputError, SettingsError, PolicyOptionError) as error:
        console.print(f"error: {error}")
        return INPUT_UNUSABLE
    except KeyboardInterrupt:
        console.print("error: interrupted: run again")
        return INTERRUPTED


def _run(argv: Sequence[str] | None, console: Console) -> int:
    parser = parser_of()
    apply_settings(parser, "run", os.environ, Path.cwd())
    options = parser.parse_args(argv)
    policies = Policies(read_policy(options, os.environ))
    folder, task = _prepare(options)
    episode = Episode(task)
    try:
        with _ended_by_signals():
            with Ticker(console) as ticker:
                result = anyio.run(_episode, options, policies, episode, folder, ticker)
            write_run(folder, episode, result)
            if (folder / "session" / LOG_NAME).exists():
                write_report(folder)
    except OSError as error:
        console.print(f"error: {folder} cannot be written ({error.strerror}): the session in it is kept")
        return FAILED
    _announce(options, result, folder)
    if result["mask"] is None or result["status"] == "failed":
        console.print(f"error: {result['error'] or 'no usable sample was made'}")
        if episode.made:
            console.print(f"what was made so far is kept in {folder}")
        interrupted = episode.stop_reason is StopReason.CANCELLED
        return INTERRUPTED if interrupted else FAILED if episode.original else INPUT_UNUSABLE
    if not result["passed"]:
        console.print(f"the sample scores {result['score']:g}, below the threshold {task.threshold:g}: look before use")
    return 0


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Within, SIGTERM ends a run as Ctrl-C does: recorded; and both do where a script's job was told to ignore them."""
    interrupt, terminate = signal.default_int_handler, lambda *_: signal.raise_signal(signal.SIGINT)
    before = {
        signal.SIGINT: signal.signal(signal.SIGINT, interrupt),
        signal.SIGTERM: signal.signal(signal.SIGTERM, terminate),
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _prepare(options: argparse.Namespace) -> tuple[Path, Task]:
    """Check the input and make the run's folder. Raises InputError."""
    if options.demo:
        if options.image or options.item:
            raise InputError("--demo brings its own photo of a flange: leave out the photo and --item")
        options.item, options.anomaly = "flange", options.anomaly or "scratch"
    elif not options.image:
        raise InputError("no photo given: name one, or use --demo")
    for name in ("item", "anomaly"):
        if not (getattr(options, name) or "").strip():
            raise InputError(f"--{name} is missing: say what the photo shows and which defect it should get")
    for field, (low, high) in LIMITS.items():
        name = "mask_margin" if field == "margin" else field
        value = getattr(options, name)
        if not low <= value <= high:
            raise InputError(f"--{name.replace('_', '-')} {value} is out of range: choose {low} to {high}")
    timeout_of(options)
    for role in BACKEND_ROLES:
        if WITH_PASSWORD.search(getattr(options, f"{role}_base_url") or ""):
            cure = f"put the key into ANOMALY_AGENT_{role.upper()}_API_KEY"
            raise InputError(f"--{role}-base-url holds a name or password: {cure}")
    if options.server and _backends(options):
        raise InputError(f"{_backends(options)[0]} is the built-in server's: leave it or --server out")
    if bool(options.example) != bool(options.example_mask):
        raise InputError("--example and --example-mask go together: name the photo of a defect and the defect's mask")
    for path in filter(None, ("" if options.demo else options.image, options.example, options.example_mask)):
        if not Path(path).is_file():
            raise InputError(f"{path} {'is a folder' if Path(path).is_dir() else 'does not exist'}: name an image file")
    try:
        region = read_roi(options.roi, None if options.demo else Path(options.image))
        options.recording, options.budget = recording_of(options), budget_of(options)
    except ValueError as error:
        raise InputError(str(error)) from error
    folder = _folder(options)
    if not options.demo and Path(options.image).resolve() in [(folder / name).resolve() for name in RUN_FILES]:
        raise InputError(f"{options.image} would be written over: choose another --out")
    if options.demo:
        photo = folder / "original.png"
        render_demo_photo().save(photo)
        options.image = str(photo)
    task = Task(
        image=str(Path(options.image).resolve()),
        item_name=options.item.strip(),
        anomaly_type=options.anomaly.strip(),
        seed=options.seed,
        region=region,
        example_image=str(Path(options.example).resolve()) if options.example else "",
        example_mask=str(Path(options.example_mask).resolve()) if options.example_mask else "",
        count=options.count,
        margin=options.mask_margin,
        threshold=options.threshold,
        max_images=options.max_images,
        max_turns=options.max_turns,
    )
    return folder, task


def _folder(options: argparse.Namespace) -> Path:
    """The run's folder, made and empty of an earlier run. Raises InputError."""
    name = re.sub(r"[^a-z0-9]+", "_", f"{options.item}-{options.anomaly}".lower()).strip("_") or "run"
    folder = Path(options.out) if options.out else Path("runs") / f"{name}-{options.seed}"
    if not options.out:
        tries = (folder.with_name(f"{folder.name}-{n}") for n in range(2, 10_000))
        folder = folder if not folder.exists() else next(path for path in tries if not path.exists())
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if (folder / "session").exists() or (folder / "result.json").exists():
            if not options.overwrite and not came_to_nothing(folder):
                raise InputError(f"{folder} already holds a run: choose another --out, or add --overwrite")
            if (folder / "session").exists():
                shutil.rmtree(folder / "session")
            for file in RUN_FILES:
                (folder / file).unlink(missing_ok=True)
        probe = folder / ".writable"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise InputError(f"{folder} cannot be written ({error.strerror}): choose another --out") from error
    return folder


async def _episode(
    options: argparse.Namespace, policies: Policies, episode: Episode, folder: Path, ticker: Ticker
) -> dict[str, Any]:
    """Run the episode and give its result, also where it failed or was interrupted."""
    task = episode.task
    files = (Path(name) for name in (task.image, task.region, task.example_image, task.example_mask))
    servers = servers_of(options, {path.parent for path in files if path.is_absolute()})
    policy = policies.make(task, ticker.on_text)
    if note := policies.choice.note():
        episode.notes.append(note)
        ticker.say(f"note: {note}")
    handles: dict[int, str] = {}
    error = None
    try:
        async with policies, Toolbox(servers, timeout_of(options), options.recording) as toolbox:
            policy = policy_of(policy, toolbox, options, options.recording)
            with SessionWriter(folder / "session") as session:
                await run_episode(task, policy, toolbox, session, ticker.say, episode, options.budget)
            handles = {image.index: toolbox.handle_of(image) for image in episode.images}
    except (SessionError, BudgetError) as problem:
        raise InputError(str(problem)) from problem
    except ToolboxError as problem:
        episode.stop_reason, error = StopReason.TOOL_ERROR, str(problem)
    except anyio.get_cancelled_exc_class():  # Ctrl-C: recorded by the loop; what was made is written all the same
        error = "interrupted"
    return result_of(episode, policy.name, handles, error)


def servers_of(options: argparse.Namespace, allow: Collection[Path]) -> list[Server]:
    """The tool servers of the options; the built-in one may read the folders of ``allow``."""
    return [server_of(text) for text in options.server] or [builtin_server(sorted(allow), _backends(options))]


def timeout_of(options: argparse.Namespace) -> float:
    """Seconds that a tool call may take: as chosen, else more where it may wait for a service. Raises InputError."""
    if options.call_timeout is None:
        return SERVICE_TIMEOUT if _backends(options) else CALL_TIMEOUT
    seconds = float(options.call_timeout)
    if not (math.isfinite(seconds) and seconds > 0):
        raise InputError(f"--call-timeout {seconds} is out of range: choose a number of seconds above 0")
    return seconds


def _backends(options: argparse.Namespace) -> list[str]:
    """The options that choose the built-in server's backends, as that server takes them."""
    names = [f"{role}{part}" for role in BACKEND_ROLES for part in ("", "_model", "_base_url")]
    names.append("knowledge_folder")
    given = [(name, getattr(options, name)) for name in names if getattr(options, name) is not None]
    return [argument for name, value in given for argument in (f"--{name.replace('_', '-')}", str(value))]


def _announce(options: argparse.Namespace, result: dict[str, Any], folder: Path) -> None:
    if options.json:
        print((folder / "result.json").read_text(encoding="utf-8"), end="")
        return
    mask = result["mask"]
    score = "none" if result["score"] is None else f"{result['score']:g}"
    print(f"{result['task']['anomaly_type']} on {result['task']['item_name']}: {result['status']}, score {score} of 10")
    if mask:
        print(f"mask: {100 * mask['area_fraction']:.2g}% of the image, confidence {mask['confidence']:.2f}")
    print(f"folder: {folder}")
    if (folder / "report.html").exists():
        print(f"report: {folder / 'report.html'}")


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.exit(main())
