"""image_gen by a workflow of one's own on a ComfyUI server (``--editor comfyui --editor-model WORKFLOW.json``).

The photo (and the region as a mask) is uploaded, the workflow's placeholders are filled in, and its first output image
is fetched. See ``examples/comfyui_qwen_image_edit.json``.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import anyio
import numpy as np

from mcp_servers.backends import BackendChoice
from mcp_servers.errors import BackendError, FailureKind
from mcp_servers.image_gen.editor import Edited, EditRequest
from mcp_servers.image_gen.geometry import Frame, free_size
from mcp_servers.image_gen.pictures import mask_png, png_of
from mcp_servers.image_gen.workflow import Workflow, WorkflowError, read_workflow
from mcp_servers.remote import ask
from mcp_servers.remote.errors import Fault, one_line, unreadable

if TYPE_CHECKING:
    from httpx2 import AsyncClient, Response

URL = "http://127.0.0.1:8188"
WORKFLOW = "ANOMALY_AGENT_COMFYUI_WORKFLOW"
TIMEOUT = "ANOMALY_AGENT_EDITOR_TIMEOUT"
FIRST_POLL, LONGEST_POLL = 0.1, 2.0
"""Seconds between looks at a running workflow: doubled each time up to the longest."""


class ComfyEditor:
    """Edits by running a workflow."""

    takes_seed = True

    def __init__(self, choice: BackendChoice, workflow: Workflow) -> None:
        self.choice = choice
        self.workflow = workflow
        self.model = workflow.name
        self.service = f"ComfyUI at {urlsplit(choice.base_url or URL).netloc}"
        self.takes_region = "mask" in workflow.placeholders
        self.takes_example = "example" in workflow.placeholders

    def frame(self, width: int, height: int) -> Frame:
        return free_size(width, height)

    async def edit(self, request: EditRequest) -> Edited:
        """One edit; ``choice.timeout`` bounds the whole run of the workflow. Raises BackendError."""
        import httpx2

        key = self.choice.api_key
        async with httpx2.AsyncClient(
            base_url=self.choice.base_url or URL,
            timeout=self.choice.timeout,
            headers={"Authorization": f"Bearer {key}"} if key else {},
        ) as http:
            started = await ask(lambda: self.start(http, request), self.service, self.choice, [key])
            try:
                with anyio.fail_after(self.choice.timeout):
                    entry = await self.outcome(http, started.value)
            except TimeoutError as error:
                text = f"{self.service} did not finish within {self.choice.timeout:g} s: allow more time with {TIMEOUT}"
                raise BackendError(text, FailureKind.TIMEOUT, attempts=started.attempts) from error
            fetched = await ask(lambda: self.fetch(http, entry), self.service, self.choice, [key])
        return Edited(fetched.value, self.model, 0.0, started.attempts + fetched.attempts - 1)

    async def start(self, http: AsyncClient, request: EditRequest) -> str:
        """Upload the pictures and queue the workflow; returns its number. Raises BackendError, HTTP client's errors."""
        height, width = request.photo.shape[:2]
        region = request.region if request.region is not None else np.ones((height, width), bool)
        values: dict[str, str | int] = {
            "prompt": request.prompt,
            "seed": request.seed,
            "width": width,
            "height": height,
        }
        uploads: dict[str, Callable[[], bytes]] = {
            "image": lambda: png_of(request.photo),
            "mask": lambda: mask_png(region),
            "example": lambda: png_of(request.photo if request.example is None else request.example),
        }
        for name, picture in uploads.items():
            if name in self.workflow.placeholders:
                values[name] = await self.upload(http, picture())
        body = {"prompt": self.workflow.filled(values), "client_id": uuid.uuid4().hex}
        response = await http.post("/prompt", json=body)
        if response.status_code == 400:
            raise BackendError(self.rejected(response), FailureKind.REJECTED)
        return str(self.entry(self.json(response), "prompt_id"))

    async def upload(self, http: AsyncClient, png: bytes) -> str:
        """Put a picture among the server's inputs; returns the name under which workflows load it."""
        files = {"image": (f"anomaly-agent-{uuid.uuid4().hex}.png", png, "image/png")}
        stored = self.json(await http.post("/upload/image", files=files, data={"overwrite": "true"}))
        folder = str(stored.get("subfolder") or "")
        return f"{folder}/{self.entry(stored, 'name')}" if folder else str(self.entry(stored, "name"))

    async def outcome(self, http: AsyncClient, number: str) -> dict[str, Any]:
        """Wait for the workflow to end; returns its entry in the history."""
        pause = FIRST_POLL

        async def look() -> dict[str, Any]:
            return self.json(await http.get(f"/history/{number}"))

        while True:
            history = (await ask(look, self.service, self.choice, [self.choice.api_key])).value
            if entry := history.get(number):
                return dict(entry)
            await anyio.sleep(pause)
            pause = min(2 * pause, LONGEST_POLL)

    async def fetch(self, http: AsyncClient, entry: Mapping[str, Any]) -> bytes:
        """The first picture among a workflow's outputs."""
        status = entry.get("status") or {}
        if status.get("status_str") == "error":
            raise BackendError(f"{self.service}: the workflow failed ({failure(status)})", FailureKind.REJECTED)
        images = [i for output in (entry.get("outputs") or {}).values() for i in output.get("images") or []]
        images.sort(key=lambda image: image.get("type") != "output")  # saved pictures before previews
        if not images:
            text = f"{self.service}: the workflow put out no picture: end it with a Save Image node"
            raise BackendError(text, FailureKind.EMPTY)
        params = {name: str(images[0].get(name, "")) for name in ("filename", "subfolder", "type")}
        response = await http.get("/view", params=params)
        response.raise_for_status()
        return bytes(response.content)

    def json(self, response: Response) -> dict[str, Any]:
        """The JSON object of an answer. Raises the HTTP client's error, or BackendError (MALFORMED)."""
        response.raise_for_status()
        body = response.json()
        if not isinstance(body, dict):
            raise self.garbled.error()
        return body

    def entry(self, body: Mapping[str, Any], name: str) -> Any:
        """A field that must be there. Raises BackendError (MALFORMED)."""
        if not body.get(name):
            raise self.garbled.error()
        return body[name]

    @property
    def garbled(self) -> Fault:
        return unreadable(self.service)

    def rejected(self, response: Response) -> str:
        """What ComfyUI says of a workflow that it does not run."""
        said = response.text
        try:
            body = response.json()
            errors = [
                f"node {number} {node.get('class_type', '')}: {problem.get('message', '')} {problem.get('details', '')}"
                for number, node in (body.get("node_errors") or {}).items()
                for problem in node.get("errors") or []
            ]
            said = errors[0] if errors else str(body["error"]["message"])
        except (ValueError, KeyError, TypeError, AttributeError):
            pass  # another version's form: its text as it is
        return f"{self.service} does not run the workflow ({one_line(said)}): check its nodes and model files"


def failure(status: Mapping[str, Any]) -> str:
    """What went wrong in which node of a workflow, in one line."""
    for kind, facts in (message for message in status.get("messages") or [] if len(message) == 2):
        if kind == "execution_error":
            return one_line(f"node {facts.get('node_id')} {facts.get('node_type')}: {facts.get('exception_message')}")
    return "no reason given; see its log"


def workflow_of(choice: BackendChoice, environ: Mapping[str, str] = os.environ) -> Workflow:
    """The workflow that the user chose. Raises WorkflowError."""
    named = choice.model or environ.get(WORKFLOW, "")
    if not named:
        raise WorkflowError(f"no workflow is named: give its file with --editor-model, or in {WORKFLOW}")
    return read_workflow(Path(named).expanduser())
