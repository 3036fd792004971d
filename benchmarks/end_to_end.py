"""Time and memory of one sample through the command a user types, by photo size.

    python -m benchmarks.end_to_end [--sizes 512x512,4000x3000] [--runs 5]

Starts ``python -m agent.run`` as a process (which starts the tool servers as another), and prints JSON: median
and range of wall seconds, and the peak resident memory of both processes together, in MB.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from agent.demo import render_demo_photo


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Time and memory of one sample, end to end.")
    parser.add_argument("--sizes", default="512x512,1024x1024,4000x3000", help="WIDTHxHEIGHT, comma-separated")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--anomaly", default="scratch")
    options = parser.parse_args()
    sizes = options.sizes.split(",")
    if not all(re.fullmatch(r"[1-9]\d+x[1-9]\d+", size) for size in sizes) or options.runs < 1:
        parser.error(
            f"--sizes {options.sizes} --runs {options.runs}: sizes are WIDTHxHEIGHT, as 512x512, and runs 1 on"
        )
    with tempfile.TemporaryDirectory() as folder:
        report = {size: measure(size, options.runs, options.anomaly, Path(folder)) for size in sizes}
    print(json.dumps({"command": "agent.run", "cores": os.cpu_count(), "sizes": report}, indent=2))


def measure(size: str, runs: int, anomaly: str, folder: Path) -> dict[str, Any]:
    """Figures of one photo size over several seeds."""
    width, height = (int(part) for part in size.split("x"))
    photo = folder / f"{size}.png"
    render_demo_photo(768).resize((width, height)).save(photo)
    seconds, peaks, images, exits = [], [], [], []
    for seed in range(runs):
        out = folder / f"{size}-{seed}"
        command = [sys.executable, "-m", "agent.run", str(photo), "--item", "flange", "--anomaly", anomaly]
        command += ["--seed", str(seed), "--out", str(out), "--json"]
        env = os.environ | {"ANOMALY_AGENT_HOME": str(folder / "home")}
        started = time.perf_counter()
        process = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        peaks.append(watch(process))
        seconds.append(time.perf_counter() - started)
        exits.append(process.returncode)
        if not (out / "result.json").is_file():
            raise SystemExit(
                f"agent.run made nothing of a photo of {size} (exit code {process.returncode}): other --sizes"
            )
        images.append(len(json.loads((out / "result.json").read_text())["images"]))
    return {
        "seconds": {"median": round(statistics.median(seconds), 2), "min": round(min(seconds), 2)}
        | {"max": round(max(seconds), 2)},
        "peak_memory_mb": round(max(peaks)),
        "images_per_sample": round(statistics.mean(images), 2),
        "exit_codes": exits,
        "runs": runs,
    }


def watch(process: subprocess.Popen[bytes]) -> float:
    """Wait for a process; the sum of the peak resident sizes (MB) of it and its children, seen every 20 ms."""
    peaks: dict[int, int] = {}
    while process.poll() is None:
        for pid in [process.pid, *children(process.pid)]:
            try:
                status = Path(f"/proc/{pid}/status").read_text()
            except OSError:
                continue
            peak = next((line for line in status.splitlines() if line.startswith("VmHWM")), "VmHWM: 0 kB")
            peaks[pid] = max(peaks.get(pid, 0), int(peak.split()[1]))
        time.sleep(0.02)
    return sum(peaks.values()) / 1024


def children(pid: int) -> list[int]:
    """Process ids of the direct children."""
    try:
        return [int(part) for part in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


if __name__ == "__main__":
    main()
