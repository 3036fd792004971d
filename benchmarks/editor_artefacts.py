"""What becomes of an editor's artefacts: real defects through image_gen on an editor that spoils the rest of the photo.

    python -m benchmarks.editor_artefacts --data DIR [--category NAME ...] [--half even|odd|all] [--limit 8] [--out DIR]

A loopback server with OpenAI's API is the editor. It is sent a photo whose real defect was painted over and hands back
the photo with the defect, but shifted, zoomed, recoloured, recompressed or resized as real editors do; every sample
goes through the MCP tool and the real SDK. Prints JSON, for each artefact: the smallest share of pixels away from the
defect that are identical to the original (it must be 1), mean IoU of the sample's mask with the true one, recall of the
visible change, edits that were not accepted, and good photos redrawn without a defect that were accepted all the same.
"""

from __future__ import annotations

import argparse
import base64
import json
import sys
import tempfile
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from statistics import fmean
from typing import Any, TypeAlias

import anyio
import cv2
import numpy as np
from mcp import Client

from evaluation.data import Image, Mask
from evaluation.errors import EvaluationError
from evaluation.folders import prepare
from evaluation.masks import VISIBLE, compare, difference
from evaluation.pairs import RealPair, add_options, choice_of, find_masked, good_photos, real_pairs, seeded
from evaluation.sheets import GREEN, RED, fit, outlined, tile, write_sheet
from mcp_servers.backends import BackendChoice
from mcp_servers.image_gen.composite_back import FADE, KEPT, UNIT
from mcp_servers.image_gen.geometry import free_size
from mcp_servers.image_gen.server import SPEC
from mcp_servers.images import Photo
from mcp_servers.mask_gen.local import find_mask
from mcp_servers.serving import build_server
from mcp_servers.store import Store

Spoil: TypeAlias = Callable[[Image, np.random.Generator], Image]
SHIFT, ZOOM = (2.0, 6.0), 0.01
"""Displacement in px of the editor's picture (about 1 megapixel), and change of scale."""


def nothing(image: Image, rng: np.random.Generator) -> Image:
    """The picture as it is."""
    return image


def resize(image: Image, rng: np.random.Generator) -> Image:
    """Five sixths of the size."""
    return np.asarray(cv2.resize(image, None, fx=5 / 6, fy=5 / 6, interpolation=cv2.INTER_AREA), np.uint8)


def recolour(image: Image, rng: np.random.Generator) -> Image:
    """Another gamma, white balance and brightness."""
    bent = 255 * (image / 255) ** rng.uniform(0.92, 1.08) * rng.uniform(0.94, 1.06, 3) + rng.uniform(-8, 8, 3)
    return np.clip(np.rint(bent), 0, 255).astype(np.uint8)


def recompress(image: Image, rng: np.random.Generator) -> Image:
    """JPEG at quality 80."""
    code = cv2.imencode(".jpg", image[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 80])[1]
    return np.asarray(cv2.imdecode(code, cv2.IMREAD_COLOR_RGB), np.uint8)


def shift(image: Image, rng: np.random.Generator) -> Image:
    """Moved by ``SHIFT`` px in any direction."""
    angle, length = rng.uniform(0, 2 * np.pi), rng.uniform(*SHIFT)
    return moved(image, 1.0, length * np.cos(angle), length * np.sin(angle))


def zoom(image: Image, rng: np.random.Generator) -> Image:
    """Larger or smaller by ``ZOOM`` around the middle."""
    return moved(image, 1 + ZOOM * float(rng.choice([-1, 1])), 0.0, 0.0)


def everything(image: Image, rng: np.random.Generator) -> Image:
    """All of these, and softer."""
    soft = cv2.GaussianBlur(recolour(zoom(shift(image, rng), rng), rng), (0, 0), 0.6)
    return recompress(resize(np.asarray(soft, np.uint8), rng), rng)


def moved(image: Image, scale: float, dx: float, dy: float) -> Image:
    """Scaled around the middle, then shifted."""
    height, width = image.shape[:2]
    x, y = width / 2 * (1 - scale) + dx, height / 2 * (1 - scale) + dy
    move = np.array([[scale, 0, x], [0, scale, y]], np.float32)
    out = cv2.warpAffine(image, move, (width, height), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT)
    return np.asarray(out, np.uint8)


ARTEFACTS: dict[str, Spoil] = {
    spoil.__name__: spoil for spoil in (nothing, resize, recolour, recompress, shift, zoom, everything)
}


@dataclass(slots=True)
class Tally:
    """What was measured for one artefact."""

    identical: list[float] = field(default_factory=list)
    iou: list[float] = field(default_factory=list)
    recall: list[float] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    good: int = 0
    invented: int = 0

    def summary(self) -> dict[str, Any]:
        """Means over the accepted samples; shares in [0, 1]."""
        return {
            "samples": len(self.iou),
            "identical_outside": min(self.identical, default=None),
            "iou": round(fmean(self.iou), 4) if self.iou else None,
            "recall": round(fmean(self.recall), 4) if self.recall else None,
            "refused": self.refused,
            "good_photos": self.good,
            "defects_invented": self.invented,
        }


class Editor(ThreadingHTTPServer):
    """OpenAI's ``images/edits`` on loopback, which answers with whatever picture was laid out for it."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.picture = b""

    @property
    def choice(self) -> BackendChoice:
        return BackendChoice("openai", "spoiler", f"http://127.0.0.1:{self.server_port}/v1", attempts=1)


class Answer(BaseHTTPRequestHandler):
    """One edit."""

    server: Editor

    def do_POST(self) -> None:
        """Read the request and send the picture."""
        self.rfile.read(int(self.headers["content-length"]))
        body = json.dumps({"created": 1, "data": [{"b64_json": base64.b64encode(self.server.picture).decode()}]})
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@dataclass(slots=True)
class Bench:
    """The tool over MCP, the editor behind it, and what has been measured."""

    client: Client
    store: Store
    editor: Editor
    tallies: dict[str, Tally] = field(default_factory=lambda: {name: Tally() for name in ARTEFACTS})

    async def sample(self, normal: Image, wanted: Image, spoil: str, seed: np.random.Generator) -> Image | str:
        """The tool's sample (H, W, 3) where the editor makes ``wanted`` of ``normal``, or why there is none."""
        frame = free_size(normal.shape[1], normal.shape[0])
        self.editor.picture = Photo(np.ascontiguousarray(ARTEFACTS[spoil](frame.enter(wanted), seed))).to_png()
        asked = {"prompt": "Introduce a defect.", "target_image": self.store.put(Photo(normal))}
        result = await self.client.call_tool("image_gen", asked)
        text: Any = result.content[0]
        return str(text.text) if result.is_error else self.store.get(json.loads(text.text)["image"]).view()

    async def pair(self, pair: RealPair) -> Image:
        """Measure one real defect with every artefact; returns a line of pictures."""
        seen = pair.mask & (difference(pair.normal, pair.anomaly) >= VISIBLE)
        pictures = [fit(pair.normal), outlined(pair.anomaly, {RED: pair.mask})]
        for name, tally in self.tallies.items():
            out = await self.sample(pair.normal, pair.anomaly, name, seeded(pair.category, pair.kind, pair.index, name))
            if isinstance(out, str):
                tally.refused.append(f"{pair.name}: {out}")
                pictures.append(np.zeros_like(pictures[0]))
                continue
            mask = find_mask(pair.normal, out).mask
            iou, _, recall = compare(mask, pair.mask, seen)
            tally.iou.append(iou)
            tally.recall.append(recall)
            tally.identical.append(identical_outside(pair.normal, out, mask))
            pictures.append(outlined(out, {GREEN: mask}))
        return tile(pair.name, pictures)

    async def good(self, photo: Image, category: str, index: int) -> None:
        """Measure one photo that comes back without a defect."""
        for name, tally in self.tallies.items():
            out = await self.sample(photo, photo, name, seeded(category, "good", index, name))
            tally.good += 1
            tally.invented += not isinstance(out, str)


def identical_outside(normal: Image, sample: Image, mask: Mask) -> float:
    """Share of the pixels beyond the mask (H, W) and its soft rim that are the original's."""
    reach = int(np.ceil((KEPT + FADE) * max(1.0, max(mask.shape) / UNIT))) + 2
    near = cv2.dilate(mask.astype(np.uint8), cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1,) * 2)) > 0
    return float((normal == sample).all(axis=2)[~near].mean())


async def measure(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """All chosen photos. Raises EvaluationError."""
    choice, store, editor = choice_of(options), Store(home=folder), Editor()
    threading.Thread(target=editor.serve_forever, daemon=True).start()
    server = build_server("artefacts", store, [SPEC], "", choices={"editor": editor.choice})
    async with Client(server) as client:
        bench = Bench(client, store, editor)
        for category in find_masked(options.data, options.category):
            tiles = [await bench.pair(pair) for pair in real_pairs(category, choice)]
            for index, photo in list(good_photos(category, choice))[: len(tiles)]:
                await bench.good(photo, category.name, index)
            if options.out:
                write_sheet(options.out / f"{category.name}.png", tiles, 1)
            print(f"{category.name}: {len(tiles)} defects", file=sys.stderr, flush=True)
    editor.shutdown()
    return {"photos": str(choice), "artefacts": {name: tally.summary() for name, tally in bench.tallies.items()}}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Real defects through image_gen on an editor that spoils the photo.")
    add_options(parser)
    options = parser.parse_args()
    try:
        prepare("--out", options.out)
        with tempfile.TemporaryDirectory() as folder:
            print(json.dumps(anyio.run(measure, options, Path(folder)), indent=2))
    except EvaluationError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
