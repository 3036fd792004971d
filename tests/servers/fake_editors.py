"""Stand-ins for image editors behind an API: loopback servers that speak the wire formats of Gemini, OpenAI, ComfyUI
(HTTP) and xAI (gRPC), so that the real SDKs talk to them.

An editor answers request after request from a script of behaviours; the last one repeats. "ok" draws a defect into the
picture that was posted and treats the rest as real editors do: shifted, zoomed, recoloured, recompressed.
"""

from __future__ import annotations

import base64
import io
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import anyio
import cv2
import grpc
import numpy as np
import uvicorn
from numpy.typing import NDArray
from PIL import Image as PILImage
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from xai_sdk.proto import image_pb2, image_pb2_grpc, usage_pb2

Picture = NDArray[np.uint8]
AT_ONCE = {"retry-after": "0"}
FOREVER = 600.0
"""Seconds after which a slow editor would answer."""
HTTP_FAILURES = {"500": 500, "429": 429, "401": 401, "404": 404}
GRPC_FAILURES = {
    "500": grpc.StatusCode.INTERNAL,
    "429": grpc.StatusCode.RESOURCE_EXHAUSTED,
    "401": grpc.StatusCode.UNAUTHENTICATED,
    "404": grpc.StatusCode.NOT_FOUND,
}


@dataclass
class FakeEditor:
    """What is answered next and what was asked: a dict of headers, fields and pictures for each edit."""

    script: Sequence[str]
    requests: list[dict[str, Any]] = field(default_factory=list)
    closing: threading.Event = field(default_factory=threading.Event)
    queued: dict[str, bytes | str] = field(default_factory=dict)
    inputs: dict[str, bytes] = field(default_factory=dict)
    edit: Callable[[Picture], Picture] | None = None
    url: str = ""

    def next(self, **asked: Any) -> str:
        self.requests.append(asked)
        return self.script[min(len(self.requests), len(self.script)) - 1]

    def drawn(self, png: bytes, behaviour: str) -> bytes:
        """The file that is sent back for a posted picture."""
        if behaviour == "no image":
            return b"this is no picture"
        posted = np.asarray(PILImage.open(io.BytesIO(png)).convert("RGB"))
        if behaviour == "unchanged":
            return encoded(redrawn(posted), ".png")
        if behaviour == "another":
            return encoded(another(posted.shape), ".png")
        made = (self.edit or (lambda picture: redrawn(scratched(picture))))(posted)
        if behaviour == "resized":
            made = np.asarray(cv2.resize(made, (made.shape[1] * 3 // 4, made.shape[0] * 3 // 4)), np.uint8)
        return encoded(made, ".jpg" if behaviour == "jpeg" else ".png")


def scratched(picture: Picture) -> Picture:
    """A dark, ragged line near the middle."""
    out = picture.copy()
    h, w = out.shape[:2]
    points = np.array([(0.38, 0.42), (0.45, 0.5), (0.52, 0.48), (0.6, 0.6)]) * (w, h)
    cv2.polylines(out, [points.astype(np.int32)], False, (25, 20, 20), max(3, w // 60), cv2.LINE_AA)
    return out


def redrawn(picture: Picture) -> Picture:
    """The picture moved by a few px, zoomed by 0.6%, recoloured and recompressed."""
    h, w = picture.shape[:2]
    move = np.array([[1.006, 0, 4.0 - 0.003 * w], [0, 1.006, -3.0 - 0.003 * h]], np.float32)
    moved = cv2.warpAffine(picture, move, (w, h), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT)
    toned = np.clip(moved * np.array([1.04, 1.0, 0.96]) + 4, 0, 255).astype(np.uint8)
    code = cv2.imencode(".jpg", toned[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 85])[1]
    return np.ascontiguousarray(cv2.imdecode(code, cv2.IMREAD_COLOR)[:, :, ::-1])


def another(shape: tuple[int, ...]) -> Picture:
    """A picture that has nothing to do with the one posted."""
    blobs = np.random.default_rng(3).normal(0, 1, shape).astype(np.float32)
    for _ in range(2):
        blobs = cv2.GaussianBlur(blobs, (0, 0), 25)
    return np.clip(128 + 60 * blobs / blobs.std(), 0, 255).astype(np.uint8)


def encoded(picture: Picture, suffix: str) -> bytes:
    return bytes(cv2.imencode(suffix, picture[:, :, ::-1])[1].tobytes())


def app_of(editor: FakeEditor) -> Starlette:
    """The three HTTP APIs over one script."""

    async def trouble(behaviour: str, error: Callable[[int, str], Any]) -> Response | None:
        """The failures that all the APIs have in common."""
        if behaviour in HTTP_FAILURES:
            status = HTTP_FAILURES[behaviour]
            return JSONResponse(error(status, f"as the script says: {status}"), status, AT_ONCE)
        if behaviour == "slow":
            await anyio.sleep(FOREVER)
        if behaviour == "garbled":
            return Response(b"<html>welcome to the proxy", media_type="application/json")
        return None

    async def gemini(request: Request) -> Response:
        body = await request.json()
        parts = body["contents"][0]["parts"]
        images = [base64.urlsafe_b64decode(part["inlineData"]["data"]) for part in parts if "inlineData" in part]
        prompt = " ".join(part["text"] for part in parts if "text" in part)
        config = body["generationConfig"]
        behaviour = editor.next(headers=dict(request.headers), prompt=prompt, images=images, fields=config)

        def error(status: int, message: str) -> Any:
            return {"error": {"code": status, "message": message, "status": "FAILED"}}

        if failed := await trouble(behaviour, error):
            return failed
        usage = {"promptTokenCount": 1300, "candidatesTokenCount": 1120, "totalTokenCount": 2420}
        if behaviour == "block":
            return JSONResponse({"promptFeedback": {"blockReason": "PROHIBITED_CONTENT"}, "usageMetadata": usage})
        if behaviour == "late block":
            return JSONResponse({"candidates": [{"finishReason": "IMAGE_SAFETY"}], "usageMetadata": usage})
        if behaviour == "empty":
            return JSONResponse({"candidates": [{"finishReason": "NO_IMAGE"}], "usageMetadata": usage})
        data = base64.b64encode(editor.drawn(images[0], behaviour)).decode()
        thought = {"thought": True, "inlineData": {"mimeType": "image/png", "data": base64.b64encode(b"-").decode()}}
        picture = {"inlineData": {"mimeType": "image/png", "data": data}}
        content = {"role": "model", "parts": [{"text": "Done."}, thought, picture]}
        return JSONResponse({"candidates": [{"content": content, "finishReason": "STOP"}], "usageMetadata": usage})

    async def openai(request: Request) -> Response:
        async with request.form() as form:
            uploads = [(name, await part.read()) for name, part in form.multi_items() if not isinstance(part, str)]
            fields = {name: part for name, part in form.multi_items() if isinstance(part, str)}
        images = [data for name, data in uploads if name.startswith("image")]
        masks = [data for name, data in uploads if name == "mask"]
        prompt = fields.pop("prompt")
        behaviour = editor.next(headers=dict(request.headers), prompt=prompt, images=images, masks=masks, fields=fields)

        def error(status: int, message: str) -> Any:
            return {"error": {"message": message, "type": "error", "code": None, "param": None}}

        if failed := await trouble(behaviour, error):
            return failed
        if behaviour == "block":
            told = {"message": "Your request was rejected by the safety system.", "code": "moderation_blocked"}
            return JSONResponse({"error": told | {"type": "image_generation_user_error", "param": None}}, 400)
        usage = {"input_tokens": 1000, "output_tokens": 4000, "total_tokens": 5000,
                 "input_tokens_details": {"image_tokens": 900, "text_tokens": 100}}  # fmt: skip
        data = [{"b64_json": base64.b64encode(editor.drawn(images[0], behaviour)).decode()}]
        return JSONResponse({"created": 1, "data": [] if behaviour == "empty" else data, "usage": usage})

    async def upload(request: Request) -> Response:
        async with request.form() as form:
            part: Any = form["image"]
            editor.inputs[part.filename] = await part.read()
        return JSONResponse({"name": part.filename, "subfolder": "", "type": "input"})

    async def prompt(request: Request) -> Response:
        body = await request.json()
        nodes = {node["class_type"]: node["inputs"] for node in reversed(body["prompt"].values())}  # the first counts
        photo = editor.inputs[nodes["LoadImage"]["image"]]
        behaviour = editor.next(
            headers=dict(request.headers), prompt=nodes["TextEncodeQwenImageEditPlus"]["prompt"], images=[photo],
            masks=[editor.inputs[nodes["LoadImageMask"]["image"]]], fields=nodes["KSampler"],
        )  # fmt: skip
        if behaviour != "slow" and (failed := await trouble(behaviour, lambda _, message: {"error": message})):
            return failed
        if behaviour == "404 node":
            problem = {"message": "Value not in list", "details": "unet_name: 'nowhere.safetensors'"}
            errors = {"1": {"class_type": "UNETLoader", "errors": [problem]}}
            return JSONResponse({"error": {"message": "Prompt outputs failed validation"}, "node_errors": errors}, 400)
        number = f"run-{len(editor.requests)}"
        editor.queued[number] = behaviour
        if behaviour not in ("slow", "block", "empty"):
            editor.queued[number] = editor.drawn(photo, behaviour)
        return JSONResponse({"prompt_id": number, "number": 1, "node_errors": {}})

    async def history(request: Request) -> Response:
        number = request.path_params["number"]
        made = editor.queued[number]
        if made == "slow":
            return JSONResponse({})
        status: dict[str, Any] = {"status_str": "success", "completed": True, "messages": []}
        outputs: dict[str, Any] = {"14": {"images": [{"filename": number, "subfolder": "", "type": "output"}]}}
        if made == "block":
            facts = {"node_id": "12", "node_type": "KSampler", "exception_message": "CUDA out of memory"}
            status, outputs = {"status_str": "error", "messages": [["execution_error", facts]]}, {}
        if made == "empty":
            outputs = {}
        return JSONResponse({number: {"status": status, "outputs": outputs}})

    async def view(request: Request) -> Response:
        made = editor.queued[request.query_params["filename"]]
        return Response(made, media_type="image/png")

    return Starlette(
        routes=[
            Route("/{version}/models/{call:path}", gemini, methods=["POST"]),
            Route("/v1/images/edits", openai, methods=["POST"]),
            Route("/upload/image", upload, methods=["POST"]),
            Route("/prompt", prompt, methods=["POST"]),
            Route("/history/{number}", history),
            Route("/view", view),
        ]
    )


@contextmanager
def http_editor(*script: str) -> Iterator[FakeEditor]:
    """The HTTP APIs on a free port; ``url`` has no path (OpenAI's base URL adds ``/v1``)."""
    editor = FakeEditor(script)
    listening = socket.create_server(("127.0.0.1", 0))
    editor.url = f"http://127.0.0.1:{listening.getsockname()[1]}"
    config = uvicorn.Config(app_of(editor), log_level="critical", timeout_graceful_shutdown=0)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, args=([listening],))
    thread.start()
    try:
        yield editor
    finally:
        server.should_exit = server.force_exit = True
        thread.join()
        listening.close()


class ImageService(image_pb2_grpc.ImageServicer):  # type: ignore[misc]
    """xAI's image service over a script."""

    def __init__(self, editor: FakeEditor) -> None:
        self.editor = editor

    def GenerateImage(self, request: Any, context: Any) -> Any:  # noqa: N802 - gRPC's name
        images = [base64.b64decode(request.image.image_url.partition("base64,")[2])]
        headers = {str(key): str(value) for key, value in context.invocation_metadata()}
        fields = {"model": request.model, "aspect_ratio": request.aspect_ratio, "resolution": request.resolution}
        behaviour = self.editor.next(headers=headers, prompt=request.prompt, images=images, fields=fields)
        if behaviour in GRPC_FAILURES:
            context.abort(GRPC_FAILURES[behaviour], f"as the script says: {behaviour}")
        if behaviour == "slow":
            self.editor.closing.wait(FOREVER)
        usage = usage_pb2.SamplingUsage(cost_in_usd_ticks=220_000_000)  # $0.022
        if behaviour == "block":
            image = image_pb2.GeneratedImage(respect_moderation=False)
            return image_pb2.ImageResponse(images=[image], model=request.model, usage=usage)
        if behaviour == "empty":
            return image_pb2.ImageResponse(images=[], model=request.model, usage=usage)
        text = base64.b64encode(self.editor.drawn(images[0], behaviour)).decode()
        if behaviour == "garbled":
            text = "%%%"
        image = image_pb2.GeneratedImage(base64=f"data:image/png;base64,{text}", respect_moderation=True)
        return image_pb2.ImageResponse(images=[image], model=request.model, usage=usage)


@contextmanager
def grpc_editor(*script: str) -> Iterator[FakeEditor]:
    """xAI's API on a free port."""
    editor = FakeEditor(script)
    limits = [("grpc.max_receive_message_length", 64 * 2**20), ("grpc.max_send_message_length", 64 * 2**20)]
    with ThreadPoolExecutor(2) as pool:
        server = grpc.server(pool, options=limits)
        image_pb2_grpc.add_ImageServicer_to_server(ImageService(editor), server)
        editor.url = f"http://127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
        server.start()
        try:
            yield editor
        finally:
            editor.closing.set()
            server.stop(0).wait()
