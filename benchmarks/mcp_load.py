"""Many clients at once over HTTP: is every result the right one, how long does it take, what does it cost in memory?

    python -m benchmarks.mcp_load [--clients 32] [--calls 20]

Every client has a photo of its own and calls prompt_gen, image_gen and knowledge_retrieval in turn; each answer must
name the client's photo, its item and the call's own seed. Then three clients are killed in the middle of a call, on a
server that admits three calls: how long until it answers again. Prints JSON; exit code 1 where anything was lost.
"""

from __future__ import annotations

import argparse
import json
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anyio
import cv2
import numpy as np
import psutil
from mcp import Client
from mcp_types import TextContent

PROMPT = "Using the provided image, change only the surface of the plate to introduce one pronounced scratch."
ITEMS = ("bottle", "screw", "tile", "wood", "zipper", "capsule", "leather", "carpet")
KILLED = 3
VICTIM = """
import sys, anyio
from mcp import Client
async def told(done, total, message):
    print("under way", flush=True)
async def main():
    async with Client(sys.argv[1]) as client:
        asked = {"prompt": sys.argv[2], "target_image": "large.png"}
        await client.call_tool("image_gen", asked, progress_callback=told)
anyio.run(main)
"""


def plate(width: int, height: int, seed: int) -> np.ndarray:
    """A photo of its own for every seed: (height, width, 3) BGR uint8."""
    rng = np.random.default_rng(seed)
    pixels = np.full((height, width, 3), 40, np.float32)
    pixels[height // 8 : -height // 8, width // 8 : -width // 8] = (120 + seed % 40, 140, 150)
    grain = cv2.resize(rng.normal(0, 5, (height // 4, width // 4, 1)).astype(np.float32), (width, height))
    return np.clip(pixels + grain[:, :, None], 0, 255).astype(np.uint8)


@contextmanager
def served(folder: Path, *options: str) -> Iterator[tuple[str, psutil.Process]]:
    """A server over HTTP on a free port, with a store of its own: URL and process."""
    command = [sys.executable, "-m", "mcp_servers", "--http", "--port", "0", "--allow", str(folder), *options]
    env = {"ANOMALY_AGENT_HOME": str(folder / "store")}
    process = psutil.Popen(command, stderr=subprocess.PIPE, text=True, env=dict(psutil.Process().environ()) | env)
    try:
        found = next(match for line in process.stderr if (match := re.search(r"http://\S+", line)))
        yield found[0], process
    finally:
        process.terminate()
        process.communicate(timeout=60)


def facts(result: Any) -> dict[str, Any]:
    """What a tool said, wherever it said it; the error's text under "error"."""
    text = next((block.text for block in result.content if isinstance(block, TextContent)), "")
    if result.is_error:
        return {"error": text}
    return dict(result.structured_content or json.loads(text))


class Load:
    """The run of all clients: latencies in seconds, and what was wrong."""

    def __init__(self, url: str, clients: int, calls: int) -> None:
        self.url, self.clients, self.calls = url, clients, calls
        self.seconds: dict[str, list[float]] = {}
        self.wrong: list[str] = []

    async def run(self) -> None:
        """All clients at once."""
        async with anyio.create_task_group() as group:
            for number in range(self.clients):
                group.start_soon(self._client, number)

    async def _client(self, number: int) -> None:
        photo, item = f"{number}.png", ITEMS[number % len(ITEMS)]
        mine = ""
        async with Client(self.url, read_timeout_seconds=600) as client:
            for call in range(self.calls):
                seed = number * 1000 + call
                if call % 3 == 0:
                    said = await self._timed(client, "prompt_gen", image=photo, item_name=item, anomaly_type="scratch")
                    mine = mine or str(said.get("image"))
                    expected = {"image": mine, "item_name": item, "anomaly_type": "scratch"}
                elif call % 3 == 1:
                    said = await self._timed(client, "image_gen", prompt=PROMPT, target_image=mine, seed=seed)
                    expected = {"target_image": mine, "seed": seed}
                else:
                    said = await self._timed(
                        client, "knowledge_retrieval", item_name=item, anomaly_type=f"crack {seed}"
                    )
                    expected = {"item_name": item, "anomaly_type": f"crack {seed}"}
                if any(said.get(key) != value for key, value in expected.items()):
                    self.wrong.append(f"client {number} call {call}: {json.dumps(said)[:300]}")

    async def _timed(self, client: Client, tool: str, **arguments: Any) -> dict[str, Any]:
        started = time.perf_counter()
        result = await client.call_tool(tool, arguments)
        self.seconds.setdefault(tool, []).append(time.perf_counter() - started)
        return facts(result)


async def sampled(process: psutil.Process, into: list[int]) -> None:
    """Resident memory of a process, ten times a second, until cancelled."""
    while True:
        into.append(process.memory_info().rss)
        await anyio.sleep(0.1)


async def load(folder: Path, clients: int, calls: int) -> dict[str, Any]:
    """The load itself."""
    with served(folder) as (url, process):
        async with Client(url) as client:  # what is loaded at the first call is not load
            await client.call_tool("prompt_gen", {"image": "0.png", "item_name": "tile", "anomaly_type": "scratch"})
        before = process.memory_info().rss
        memory: list[int] = []
        run = Load(url, clients, calls)
        started = time.perf_counter()
        async with anyio.create_task_group() as group:
            group.start_soon(sampled, process, memory)
            await run.run()
            group.cancel_scope.cancel()
        took = time.perf_counter() - started
        after = process.memory_info().rss
    answered = sum(map(len, run.seconds.values()))
    return {
        "clients": clients,
        "calls": clients * calls,
        "answered": answered,
        "wrong": len(run.wrong),
        "examples": run.wrong[:5],
        "seconds": round(took, 1),
        "calls_per_second": round(answered / took, 1),
        "latency_ms": {
            tool: {f"p{q}": round(1000 * float(np.percentile(times, q))) for q in (50, 95)}
            for tool, times in sorted(run.seconds.items())
        },
        "memory_mb": {"before": before // 10**6, "peak": max(memory) // 10**6, "after": after // 10**6},
    }


async def killed(folder: Path) -> dict[str, Any]:
    """Clients killed in the middle of a call, on a server that admits no more calls than they make."""
    with served(folder, "--max-calls", str(KILLED)) as (url, _):
        command = [sys.executable, "-c", VICTIM, url, PROMPT]
        victims = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(KILLED)]
        for victim in victims:
            assert victim.stdout is not None
            await anyio.to_thread.run_sync(victim.stdout.readline)
        for victim in victims:
            victim.send_signal(signal.SIGKILL)
            victim.wait()
        started, busy, answered = time.perf_counter(), 0, 0
        async with Client(url, read_timeout_seconds=120) as client:
            while answered < KILLED:
                said = facts(await client.call_tool("image_gen", {"prompt": PROMPT, "target_image": "0.png"}))
                if "error" not in said:
                    answered += 1
                elif "busy" in said["error"] and time.perf_counter() - started < 60:
                    busy += 1
                    await anyio.sleep(0.1)
                else:
                    break
        free = round(time.perf_counter() - started, 2)
    return {"killed": KILLED, "answered_afterwards": answered, "busy_answers": busy, "seconds_until_free": free}


async def measure(clients: int, calls: int) -> dict[str, Any]:
    """Both parts on photos made for it."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        for number in range(clients):
            cv2.imwrite(str(folder / f"{number}.png"), plate(128, 96, number))
        cv2.imwrite(str(folder / "large.png"), plate(4000, 3000, 7))
        return {"load": await load(folder, clients, calls), "killed_clients": await killed(folder)}


def main() -> int:
    """Print what was measured."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--calls", type=int, default=20)
    options = parser.parse_args()
    result = anyio.run(measure, options.clients, options.calls)
    print(json.dumps(result, indent=2))
    lost = result["load"]["wrong"] or result["load"]["answered"] != result["load"]["calls"]
    return 1 if lost or result["killed_clients"]["answered_afterwards"] != KILLED else 0


if __name__ == "__main__":
    sys.exit(main())
