"""Samples a second and core, beside other generators, on the same photos in one run.

    python -m benchmarks.speed --data DIR [--sizes 256,512,1024] [--samples 29] [--loop-samples 8]

``--data`` is a folder in MVTec layout with the categories of closed_loop.py; photos are brought to size x size px. One
thread. Prints JSON: for each size and generator the samples a second of CPU time, and CPU and wall milliseconds of an
attempt (median, 10th and 90th percentile; a first one is left out). ``generation`` is the picture alone (with its mask
where the generator knows it); ``accepted`` counts only samples that pass our judge, against all time spent: ours with
up to three draws and with mask_gen, the others with one. ``closed_loop`` is the built-in planner over MCP, in processes
as ``agent.run`` starts them, without that command's own start.

defect-synthesis takes part where it is installed (``pip install --no-deps defect-synthesis==0.1.0``).
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from benchmarks.speed_generators import (
    SYNTHESIS,
    Generate,
    Job,
    accepted,
    baselines,
    defect_synthesis,
    jobs,
    judged,
    local,
)
from benchmarks.speed_loop import time_loop


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Samples a second and core, beside other generators.")
    parser.add_argument("--data", type=Path, required=True, help="folder in MVTec layout")
    parser.add_argument("--sizes", default="256,512,1024", help="sides in px, comma-separated")
    parser.add_argument("--samples", type=int, default=29, help="samples of each generator and size")
    parser.add_argument("--loop-samples", type=int, default=8, help="samples over MCP of each size, 0 for none")
    options = parser.parse_args(argv)
    sides = [int(side) for side in options.sizes.split(",") if side.isdigit() and int(side) >= 64]
    if not sides or options.samples < 1:
        parser.error("--sizes takes sides of at least 64 px, --samples at least 1")
    if not jobs(options.data, 64, 1):
        parser.error(f"{options.data} holds no photo of a category of closed_loop.py in CATEGORY/train/good")
    cv2.setNumThreads(1)
    library = defect_synthesis()
    report: dict[str, Any] = {
        "cores": os.cpu_count(),
        "threads": 1,
        "samples": options.samples,
        "sizes": {str(side): measure(options, side, library) for side in sides},
    }
    if library is None:
        report["not_measured"] = {"defect-synthesis": f"not installed: pip install --no-deps {SYNTHESIS}"}
    print(json.dumps(report, indent=2))
    return 0


def measure(options: argparse.Namespace, side: int, library: Generate | None) -> dict[str, Any]:
    """All generators at one size."""
    work = jobs(options.data, side, options.samples + 1)
    others = baselines() | ({"defect-synthesis": library} if library else {})
    out: dict[str, Any] = {"local": {"generation": timed(local, work), "accepted": timed(accepted, work)}}
    say(f"{side} px: local done")
    for name, generate in others.items():
        out[name] = {"generation": timed(generate, work), "accepted": timed(judged(generate), work)}
        say(f"{side} px: {name} done")
    if options.loop_samples > 0:
        out["local"]["closed_loop"] = time_loop(work[: options.loop_samples])
    return out


def timed(generate: Generate, work: Sequence[Job]) -> dict[str, Any]:
    """Times of a generator over the jobs; the first one only warms up."""
    generate(work[0])
    cpu, wall, made = [], [], 0
    for job in work[1:]:
        started = time.process_time(), time.perf_counter()
        made += generate(job) is not None
        cpu.append(time.process_time() - started[0])
        wall.append(time.perf_counter() - started[1])
    return {
        "samples_per_cpu_second": round(made / sum(cpu), 2),
        "made": f"{made} of {len(cpu)}",
        "cpu_ms": spread(cpu),
        "wall_ms": spread(wall),
    }


def spread(seconds: Sequence[float]) -> dict[str, float]:
    """Median, 10th and 90th percentile in milliseconds."""
    shares = {"median": 50, "p10": 10, "p90": 90}
    return {name: round(1000 * float(np.percentile(seconds, share)), 2) for name, share in shares.items()}


def say(line: str) -> None:
    """Progress to stderr."""
    sys.stderr.write(line + "\n")


if __name__ == "__main__":
    sys.exit(main())
