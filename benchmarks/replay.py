"""What recording saves: a run over slow, paid tools, recorded, replayed, and replayed with half of the record lost.

    python -m benchmarks.replay [--editor-wait 3] [--judge-wait 2] [--side 512]

The real tools, of which image_gen waits 3 s and quality_eval 2 s and both have a price; the server counts every call.
Prints JSON: seconds of the three runs, whether the replay gave the same bytes, how many live calls each made, how much
was paid, and how much faster the replay was (the whole command without Python's own start, reports included).
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import shlex
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from agent.demo import render_demo_photo
from agent.run import main as agent_run
from agent.session import read_session
from benchmarks.concurrency import SERVER

PICTURES = ("original", "anomaly", "mask", "overlay")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="A recorded run, replayed.")
    parser.add_argument("--editor-wait", type=float, default=3.0, help="seconds that image_gen waits")
    parser.add_argument("--judge-wait", type=float, default=2.0, help="seconds that quality_eval waits")
    parser.add_argument("--side", type=int, default=512, help="photo's width and height in pixels")
    options = parser.parse_args()
    if options.side < 128 or min(options.editor_wait, options.judge_wait) < 0:
        parser.error("--side is at least 128, waits are at least 0")
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(measure(options, Path(folder)), indent=2))


def measure(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Record, replay, lose half and replay with live calls."""
    os.environ["ANOMALY_AGENT_HOME"] = str(folder / "home")
    photo, calls, record = folder / "photo.png", folder / "calls.txt", folder / "record"
    render_demo_photo(options.side).save(photo)
    tools = [f"image_gen=price:0.039,wait:{options.editor_wait}"]
    tools.append(f"quality_eval=price:0.008,wait:{options.judge_wait},strict")
    server = shlex.join([sys.executable, str(SERVER), "--allow", str(folder), "--calls", str(calls), *tools])

    made_of: dict[str, Any] = {}

    def run(name: str, *how: str) -> dict[str, Any]:
        """One run of the command: seconds, live calls, what was paid; pictures, conversation, scores in made_of."""
        before = Counter(calls.read_text().split()) if calls.exists() else Counter[str]()
        named = ["--item", "flange", "--anomaly", "scratch", "--server", server, "--out", str(folder / name), *how]
        started = time.perf_counter()
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()) as said:
            code = agent_run([str(photo), *named])
        seconds = time.perf_counter() - started
        if code != 0:
            raise SystemExit(f"agent.run ended with {code}: {said.getvalue().strip().splitlines()[-1]}")
        result = json.loads((folder / name / "result.json").read_text())
        made = Counter(calls.read_text().split()) - before
        same = {picture: (folder / name / f"{picture}.png").read_bytes() for picture in PICTURES}
        messages = [(e["role"], e["content"]) for e in read_session(folder / name).of_type("message")]
        scores = [(image["prompt"], image["score"]) for image in result["images"]]
        made_of[name] = (same, messages, scores)
        return {"seconds": round(seconds, 3), "live_calls": dict(made), "paid_usd": result["cost_usd"]}

    recorded = run("recorded", "--record", str(record))
    replayed = run("replayed", "--replay", str(record))
    entries = sorted(record.glob("calls/*/*.json"))
    lost = entries[::2]
    lost_tools = Counter(json.loads(path.read_text())["question"]["tool"] for path in lost)
    for path in lost:
        path.unlink()
    half = run("half", "--replay-else-live", str(record))
    return {
        "recorded": recorded,
        "replayed": replayed,
        "same_bytes": made_of["replayed"] == made_of["recorded"],
        "speed_up": round(recorded["seconds"] / replayed["seconds"], 1),
        "half_lost": {"entries": len(lost), "of": len(entries), "lost": dict(lost_tools)},
        "half_replayed": half,
        "half_made_only_what_was_lost": Counter(half["live_calls"])
        == Counter(lost_tools) - Counter(photo=1) + Counter(started=1),
        "half_same_bytes": made_of["half"] == made_of["recorded"],
    }


if __name__ == "__main__":
    main()
