"""A server on loopback that speaks vLLM's wire format as TRL 1.16's ``VLLMClient`` knows it, around the tiny model.

It really generates (``training.generation``), from the ids, images and sampling parameters that a request brings; a
request's seed draws its tokens. ``faults`` are taken in order, one a generate request, before it answers at all;
``alter`` changes its replies; ``at_once`` lets no request be answered before so many are there.
"""

from __future__ import annotations

import base64
import io
import json
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from random import Random
from typing import Any

import torch
from PIL import Image

from tests.tiny_model import tiny_model, tiny_processor
from training.encoding import Encoded
from training.generation import Sampling, generate

GENERATE, RENDER = "/inference/v1/generate", "/v1/chat/completions/render"


class Drops:
    """The connection ends without a reply."""


class Hangs:
    """No reply until the server is closed."""


class FakeVllm:
    """A context manager; ``requests`` are the (path, body) of what was asked, in order."""

    def __init__(
        self,
        faults: Sequence[int | bytes | Drops | Hangs] = (),
        *,
        alter: Callable[[dict[str, Any]], object] = lambda reply: None,
        at_once: int = 1,
        logprobs_mode: str | None = "processed_logprobs",
        missing: Sequence[str] = (),
        max_model_len: int = 4096,
        pixels: int | None = None,
    ) -> None:
        self.faults, self.alter, self.pixels = list(faults), alter, pixels
        self.requests: list[tuple[str, dict[str, Any]]] = []
        self._together, self._closing, self._lock = threading.Barrier(at_once), threading.Event(), threading.Lock()
        settings = {"model_config": {"logprobs_mode": logprobs_mode}, "weight_transfer_config": {"backend": "nccl"}}
        pages: dict[str, Any] = {
            "/health": "",
            "/v1/models": {"data": [{"id": "tiny", "max_model_len": max_model_len}]},
            "/server_info": {"vllm_config": settings},
        }
        if logprobs_mode is None:
            del pages["/server_info"]
        fake = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                page = pages.get(self.path.partition("?")[0])
                fake.send(self, 404 if page is None else 200, json.dumps(page or "").encode())

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers.get("content-length", 0))) or b"{}")
                with fake._lock:
                    fake.requests.append((self.path, body))
                if self.path in missing:
                    fake.send(self, 404, b"Not Found")
                elif self.path == RENDER:
                    fake.send(self, 200, json.dumps({"features": fake.render(body)}).encode())
                elif self.path == GENERATE:
                    fake.answer(self, body)
                else:
                    fake.send(self, 200, b"")

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> FakeVllm:
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        self._server.shutdown()
        self._server.server_close()

    @property
    def counts(self) -> Counter[str]:
        """How often each path was asked."""
        return Counter(path for path, _ in self.requests)

    def bodies(self, path: str) -> list[dict[str, Any]]:
        """The requests to a path."""
        return [body for asked, body in self.requests if asked == path]

    @staticmethod
    def send(handler: BaseHTTPRequestHandler, status: int, data: bytes) -> None:
        handler.send_response(status)
        handler.send_header("content-type", "application/json")
        handler.send_header("content-length", str(len(data)))
        handler.end_headers()
        handler.wfile.write(data)

    def answer(self, handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        self._together.wait()
        with self._lock:
            fault = self.faults.pop(0) if self.faults else None
        match fault:
            case Drops():
                handler.close_connection = True
            case Hangs():
                self._closing.wait()
            case int():
                self.send(handler, fault, b"the engine is dead")
            case bytes():
                self.send(handler, 200, fault)
            case None:
                with self._lock:
                    reply = self.generate(body)
                self.alter(reply)
                self.send(handler, 200, json.dumps(reply).encode())

    def render(self, body: dict[str, Any]) -> dict[str, Any]:
        """The images of a conversation as vLLM prepares them: hash, place and tensors of each."""
        urls = [part["image_url"]["url"] for part in body["messages"][0]["content"]]
        images: dict[str, list[Any]] = {"hashes": [], "places": [], "data": []}
        processor, offset = tiny_processor().image_processor, 4
        for url in urls:
            image = Image.open(io.BytesIO(base64.b64decode(url.partition("base64,")[2]))).convert("RGB")
            if self.pixels:
                image = image.resize((self.pixels, self.pixels))
            out = processor(images=[image], return_tensors="pt")
            memory = io.BytesIO()
            torch.save((out["pixel_values"], out["image_grid_thw"][0].tolist()), memory)
            length = int(out["image_grid_thw"][0].prod()) // processor.merge_size**2
            images["hashes"].append(str(hash(url)))
            images["places"].append({"offset": offset, "length": length})
            images["data"].append(base64.b64encode(memory.getvalue()).decode())
            offset += length + 2
        return {
            "mm_hashes": {"image": images["hashes"]},
            "mm_placeholders": {"image": images["places"]},
            "kwargs_data": {"image": images["data"]},
        }

    def generate(self, body: dict[str, Any]) -> dict[str, Any]:
        """One completion, with the log-probability of every sampled token."""
        ids, features, asked = body["token_ids"], body["features"], body["sampling_params"]
        tensors = [torch.load(io.BytesIO(base64.b64decode(data))) for data in features["kwargs_data"]["image"]]
        image_id = tiny_processor().image_token_id
        for place in features["mm_placeholders"]["image"]:
            run = ids[place["offset"] : place["offset"] + place["length"]]
            assert run == [image_id] * place["length"]
        prompt = Encoded(ids, [patches for patches, _ in tensors], [tuple(grid) for _, grid in tensors])
        sampling = Sampling(asked["temperature"], asked["max_tokens"])
        (turn,) = generate(tiny_model(), tiny_processor(), [prompt], sampling, [Random(asked.get("seed"))])
        content = [
            {"token": f"token_id:{token}", "logprob": logprob, "top_logprobs": []}
            for token, logprob in zip(turn.ids, turn.logprobs, strict=True)
        ]
        choice = {"index": 0, "token_ids": turn.ids, "logprobs": {"content": content}}
        return {"request_id": "1", "choices": [choice | {"finish_reason": turn.finish_reason}]}
