"""Random arguments for every tool and damaged image files, until something breaks.

    python -m benchmarks.fuzzing [--calls 2000] [--files 2000] [--seed 0]

Arguments are drawn by hypothesis from each tool's own schema, right ones and wrong ones mixed, and go to the real
server through the in-memory client. Files are whole ones of every format with bytes flipped, cut out, repeated or
overwritten. A refusal is right; a crash ("Error executing tool X" without a reason), any other exception, a message of
several lines or a result without text is a failure. Prints JSON: counts, failures, memory after a tenth, half and all.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from anyio.from_thread import start_blocking_portal
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import seed as seeded
from hypothesis import strategies as st
from mcp import Client
from PIL import Image as PILImage

from mcp_servers.images import ImageError, decode
from mcp_servers.serving import build_server
from mcp_servers.store import Store
from mcp_servers.suite import SPECS

PROMPTS = (
    "Using the provided image, change only the surface of the plate to introduce a large, pronounced scratch.",
    "Add a small hole at the upper left of the plate.",
    "Introduce three faint brown stains near the centre.",
    "Make it pretty.",
)
WORDS = ("plate", "bottle", "screw", "", "scratch", "hairline crack", "missing part", "nonsense", "n\x00", "x" * 99)
REGIONS = ("", "10,10,40,40", "0,0,0,0", "-5,-5,20,20", "1e9,1,1,1", "nan,0,1,1", "9,9,9999,9999", "1,2,3", "other.png")
NAMES = ("other.png", "nowhere.png", "../x.png", "img_" + "0" * 32, "http://localhost/", "data:,x", "/etc/passwd")
FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP", "PPM")

RUN = 250
"""Draws in one run of hypothesis."""


@dataclass(slots=True)
class Outcome:
    """What came of all tries. ``memory_mb``: resident after a tenth, half and all."""

    tries: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    memory_mb: list[float] = field(default_factory=list)

    def count(self, what: str, total: int) -> None:
        """One more try, and memory where it is time to look."""
        self.tries += 1
        self.outcomes[what] += 1
        if self.tries in (max(1, total // 10), total // 2, total):
            self.memory_mb.append(round(psutil.Process().memory_info().rss / 1e6, 1))

    def to_json(self) -> dict[str, Any]:
        return {
            "tries": self.tries,
            "outcomes": dict(self.outcomes),
            "failures": self.failures[:20],
            "memory_mb": self.memory_mb,
        }


def small_photo() -> PILImage.Image:
    """A grey plate with grain, 96x80."""
    rng = np.random.default_rng(3)
    pixels = np.full((80, 96, 3), 40.0)
    pixels[12:68, 14:82] = (130, 140, 150)
    return PILImage.fromarray(np.clip(pixels + rng.normal(0, 4, pixels.shape), 0, 255).astype(np.uint8))


def right_for(name: str, schema: dict[str, Any], images: list[str]) -> st.SearchStrategy[Any]:
    """Values that one argument should take."""
    if name == "prompt":
        return st.sampled_from(PROMPTS)
    if name == "region":
        return st.sampled_from(("", "10,10,60,50", "20,15,30,30"))
    if "image" in name or "mask" in name:
        return st.sampled_from(images)
    if name in ("item_name", "anomaly_type"):
        return st.sampled_from(("plate", "bottle") if name == "item_name" else ("scratch", "hole", "stain"))
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    if schema.get("type") == "integer":
        return st.integers(0, 12)
    return st.floats(0, 10)


def wrong_for(name: str) -> st.SearchStrategy[Any]:
    """Values that one argument should not take, or hardly ever: words, boxes, paths and numbers at their edges."""
    anything = (st.none(), st.booleans(), st.integers(), st.floats(), st.lists(st.integers(), max_size=3))
    if name == "region":
        return st.one_of(st.sampled_from(REGIONS), st.text(alphabet="0123456789,.-e ", max_size=24), *anything)
    return st.one_of(st.sampled_from((*WORDS, *NAMES)), st.text(max_size=200), *anything)


@st.composite
def arguments_for(draw: st.DrawFn, schema: dict[str, Any], images: list[str]) -> dict[str, Any]:
    """Arguments of one tool: right ones in half of the draws, else one or two are wrong, absent or unknown."""
    properties = schema["properties"]
    optional = draw(st.sets(st.sampled_from(sorted(properties)), max_size=2))
    named = {name for name in (*schema["required"], *optional) if not name.startswith("example")}
    arguments = {name: draw(right_for(name, properties[name], images)) for name in sorted(named)}
    for _ in range(draw(st.sampled_from((0, 0, 1, 2)))):
        name = draw(st.sampled_from((*sorted(properties), "steps")))
        if draw(st.booleans()) or name not in arguments:
            arguments[name] = draw(wrong_for(name))
        else:
            del arguments[name]
    return arguments


def drawn(total: int, seed: int, strategy: st.SearchStrategy[Any], trial: Callable[[Any], None]) -> None:
    """Run ``trial`` on ``total`` draws; failures are collected by the trial, so nothing is shrunk.

    hypothesis remembers every draw of a run, so a run is short: the memory that is measured should be the tools'.
    """
    health = list(HealthCheck)
    for first in range(0, total, RUN):

        @seeded(seed + first)
        @settings(
            max_examples=min(RUN, total - first),
            database=None,
            deadline=None,
            phases=[Phase.generate],
            suppress_health_check=health,
        )
        @given(strategy)
        def run(value: Any) -> None:
            trial(value)

        run()


def fuzz_arguments(total: int, seed: int = 0) -> Outcome:
    """``total`` calls in all, shared out over the five tools."""
    outcome = Outcome()
    with tempfile.TemporaryDirectory() as name, start_blocking_portal() as portal:
        folder = Path(name).resolve()
        small_photo().save(folder / "plate.png")
        small_photo().rotate(180).save(folder / "turned.png")
        small_photo().resize((64, 64)).save(folder / "other.png")
        store = Store(home=folder / "store", allowed=[folder])
        handle = store.resolve("plate.png")[0]
        images = [handle, "plate.png", "turned.png"]
        client = Client(build_server("fuzzed", store, SPECS, ""))
        with portal.wrap_async_context_manager(client):
            tools = portal.call(client.list_tools).tools
            each = -(-total // len(tools))
            for tool in tools:

                def trial(arguments: dict[str, Any], tool: Any = tool) -> None:
                    if outcome.tries >= total:
                        return
                    try:
                        result = portal.call(client.call_tool, tool.name, arguments)
                    except Exception as error:  # noqa: BLE001 - whatever it is, it is what we look for
                        outcome.failures.append(f"{tool.name} {arguments}: {error!r}"[:600])
                        outcome.count("exception", total)
                        return
                    text = getattr(result.content[0], "text", "") if result.content else ""
                    crashed = result.is_error and text == f"Error executing tool {tool.name}"
                    if crashed or not text or (result.is_error and "\n" in text):
                        outcome.failures.append(f"{tool.name} {arguments}: {text!r}"[:600])
                    outcome.count("crash" if crashed else "refused" if result.is_error else "answered", total)

                drawn(each, seed, arguments_for(tool.input_schema, images), trial)
    return outcome


def whole_files() -> list[bytes]:
    """The small photo in every format and in the modes that each knows."""
    photo = small_photo()
    deep = PILImage.fromarray(np.asarray(photo)[:, :, 0].astype(np.uint16) * 257)
    pictures = [(photo, kind) for kind in FORMATS]
    pictures += [(photo.convert("L"), kind) for kind in FORMATS]
    pictures += [(photo.convert("RGBA"), "PNG"), (photo.quantize(32), "PNG"), (photo.convert("1"), "TIFF")]
    pictures += [(deep, "PNG"), (deep, "TIFF"), (photo.convert("CMYK"), "JPEG"), (photo.convert("LA"), "PNG")]
    files = []
    for picture, kind in pictures:
        buffer = io.BytesIO()
        picture.save(buffer, kind)
        files.append(buffer.getvalue())
    return files


@st.composite
def damaged(draw: st.DrawFn, files: list[bytes]) -> bytes:
    """A file with one to six injuries, most of them in its head, where formats keep their sizes and tables."""
    data = bytearray(draw(st.sampled_from(files)))
    for _ in range(draw(st.integers(1, 6))):
        if not data:
            break
        end = len(data) if draw(st.booleans()) else min(len(data), 200)
        at = draw(st.integers(0, end - 1))
        injury = draw(st.sampled_from(("flip", "set", "cut", "drop", "repeat", "overwrite")))
        length = draw(st.integers(1, 64))
        if injury == "flip":
            data[at] ^= 1 << draw(st.integers(0, 7))
        elif injury == "set":
            data[at] = draw(st.sampled_from((0, 1, 0x7F, 0x80, 0xFF)))
        elif injury == "cut":
            del data[at:]
        elif injury == "drop":
            del data[at : at + length]
        elif injury == "repeat":
            data[at:at] = data[at : at + length]
        else:
            data[at : at + length] = draw(st.binary(min_size=length, max_size=length))
    return bytes(data)


def fuzz_files(total: int, seed: int = 0) -> Outcome:
    """``total`` damaged files, decoded; what still is a picture must also have a view and a PNG."""
    outcome = Outcome()

    def trial(data: bytes) -> None:
        try:
            photo = decode(data, "damaged file")
            assert photo.view().shape == (photo.height, photo.width, 3)
            photo.to_png()
            said = "decoded"
        except ImageError as refusal:
            said = "refused"
            if "\n" in str(refusal):
                outcome.failures.append(f"several lines: {refusal!r}"[:600])
        except Exception as error:  # noqa: BLE001 - whatever it is, it is what we look for
            outcome.failures.append(f"{error!r} on {data[:80].hex()}"[:600])
            said = "exception"
        outcome.count(said, total)

    drawn(total, seed, damaged(whole_files()), trial)
    return outcome


def main() -> int:
    """Both, and 1 where anything failed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--calls", type=int, default=2000)
    parser.add_argument("--files", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    files = fuzz_files(options.files, options.seed)
    calls = fuzz_arguments(options.calls, options.seed)
    print(json.dumps({"files": files.to_json(), "calls": calls.to_json()}, indent=2))
    return 1 if files.failures or calls.failures else 0


if __name__ == "__main__":
    sys.exit(main())
