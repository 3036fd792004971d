"""What a tool call over MCP costs beside the function it calls: milliseconds and bytes, on a 12-megapixel photo.

    python -m benchmarks.mcp_overhead [--repeat 7]

image_gen (heavy) and prompt_gen (light: what it finds out about a photo is remembered) as plain functions, through the
in-memory client, over stdio and over HTTP, with the photo named by its handle and sent along as a data URI. The places
take turns, so that they share whatever else the machine does; every edit has been made once before, so that all find
its result in the store. Prints JSON with medians: "ms" is a whole call, "around_the_tool_ms" what is left of it when
the time that the tool tells for itself, in the same call, is taken off: protocol, transport, preview, checks.
"""

from __future__ import annotations

import argparse
import base64
import json
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import cv2
from mcp import Client
from mcp.client.stdio import StdioServerParameters

from benchmarks.mcp_load import PROMPT, plate, served
from mcp_servers.image_gen.local_edit import edit_locally
from mcp_servers.image_gen.wish import Wish
from mcp_servers.prompt_gen.local import generate_prompt
from mcp_servers.results import facts_of, size_of
from mcp_servers.serving import build_server
from mcp_servers.store import Store
from mcp_servers.suite import SPECS

PLACES = ("in memory", "stdio", "HTTP")


def wish(reference: str, seed: int) -> Wish:
    """The edit that is measured."""
    return Wish(PROMPT, reference, seed, "", "", "", 0, "", "")


@asynccontextmanager
async def client_at(place: str, folder: Path) -> AsyncIterator[Client]:
    """A client of the five tools, all with the same store and folder."""
    home = folder / "store"
    if place == "in memory":
        store = Store(home=home, allowed=[folder])
        async with Client(build_server("suite", store, SPECS, "")) as client:
            yield client
    elif place == "stdio":
        env = {"ANOMALY_AGENT_HOME": str(home), "PYTHONPATH": str(Path(__file__).resolve().parent.parent)}
        command = ["-m", "mcp_servers", "--allow", str(folder)]
        async with Client(StdioServerParameters(command=sys.executable, args=command, env=env)) as client:
            yield client
    else:
        with served(folder) as (url, _):
            async with Client(url, read_timeout_seconds=300) as client:
                yield client


async def timed(work: Callable[[], Awaitable[Any]]) -> tuple[float, Any]:
    """Milliseconds, and what came."""
    started = time.perf_counter()
    result = await work()
    return 1000 * (time.perf_counter() - started), result


async def compare(tool: str, folder: Path, reference: str, clients: dict[str, Client], repeat: int) -> dict[str, Any]:
    """One tool with one way to name the photo, in every place."""
    store = Store(home=folder / "store", allowed=[folder])

    async def function(seed: int) -> None:
        if tool == "image_gen":
            edit_locally(store, wish(reference, seed))
        else:
            generate_prompt(store.resolve(reference)[1].view(), "plate", "scratch")

    def arguments(seed: int) -> dict[str, Any]:
        if tool == "image_gen":
            return {"prompt": PROMPT, "target_image": reference, "seed": seed}
        return {"image": reference, "item_name": "plate", "anomaly_type": "scratch"}

    times: dict[str, list[float]] = {place: [] for place in ("function", *clients)}
    around: dict[str, list[float]] = {place: [] for place in clients}
    results: dict[str, Any] = {}
    for turn in range(-1, repeat):  # the first turn loads and stores, and does not count
        seed = max(turn, 0) % 2
        for place in times:
            work = partial(function, seed)
            if place != "function":
                work = partial(clients[place].call_tool, tool, arguments(seed))
            took, result = await timed(work)
            results[place] = result
            if turn >= 0:
                times[place].append(took)
                if place != "function":
                    around[place].append(took - 1000 * float(facts_of(result)["seconds"]))
    report: dict[str, Any] = {"request_bytes": len(json.dumps(arguments(0)))}
    for place, taken in times.items():
        report[place] = {"ms": round(statistics.median(taken), 1)}
        if place != "function":
            report[place] |= {
                "around_the_tool_ms": round(statistics.median(around[place]), 1),
                "result_bytes": size_of(results[place]),
            }
    return report


async def measure(repeat: int) -> dict[str, Any]:
    """Both tools, by handle and by data URI; and the reading of the full image."""
    report: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        ok, encoded = cv2.imencode(".jpg", plate(4000, 3000, 7), [cv2.IMWRITE_JPEG_QUALITY, 92])
        assert ok
        (folder / "photo.jpg").write_bytes(encoded.tobytes())
        handle = Store(home=folder / "store", allowed=[folder]).resolve("photo.jpg")[0]
        uri = f"data:image/jpeg;base64,{base64.b64encode(encoded.tobytes()).decode()}"
        async with AsyncExitStack() as stack:
            clients = {place: await stack.enter_async_context(client_at(place, folder)) for place in PLACES}
            for tool in ("prompt_gen", "image_gen"):
                for way, reference in (("by handle", handle), ("by data URI", uri)):
                    report[f"{tool} {way}"] = await compare(tool, folder, reference, clients, repeat)
            read: dict[str, Any] = {}
            for place, client in clients.items():
                taken = [await timed(partial(client.read_resource, f"image://{handle}")) for _ in range(repeat)]
                size = len(taken[0][1].contents[0].blob)
                read[place] = {"ms": round(statistics.median(took for took, _ in taken), 1), "bytes": size}
            report["reading the full image"] = read
    return report


def main() -> None:
    """Print what was measured."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repeat", type=int, default=7)
    print(json.dumps(anyio.run(measure, parser.parse_args().repeat), indent=2))


if __name__ == "__main__":
    main()
