"""Results that were paid for once are kept, and taken from where they are kept: record, replay, replay-else-live.

A result is kept under a key of everything that it depends on: the tool, its arguments (images and files by content),
and the backend's name, model and version. A seed that the tool takes is one of the arguments; the photo is keyed by its
file's content. Results and the refusals that another prompt may mend are kept, failures that may pass are not.

``record`` makes every call once and keeps it, in place of what an earlier recording kept; the same call again in the
same recording is answered with the first result, since a replay could give only one. ``replay`` starts no server:
signatures and backends are those of the recording, and a call that it lacks is an error. ``replay_else_live`` starts
the servers at the first call that is missing, makes it and keeps it.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeVar
from weakref import WeakValueDictionary

import anyio
from anyio import to_thread

from agent.hosted import Hosted
from agent.protocol import ImageRef
from agent.recording_store import Entry, RecordingError, RecordingStore, key_of
from agent.transport import Handles, ToolboxError, ToolInfo, ToolRequest, ToolResult, Transport, image_ref

T = TypeVar("T")
FILES = ("region", "example_image", "example_mask")
"""Arguments that may name a file, which is then keyed by its content."""

logger = logging.getLogger(__name__)


class Mode(StrEnum):
    """What a recording is used for; see the module's text."""

    RECORD = "record"
    REPLAY = "replay"
    REPLAY_ELSE_LIVE = "replay-else-live"


@dataclass(slots=True)
class Recording:
    """A folder and what it is used for; one object for all that takes part in a run.

    ``made``: keys of what this run recorded itself. ``locks`` let two tasks that ask the same at once make one call.
    """

    folder: Path
    mode: Mode
    store: RecordingStore = field(init=False)
    made: set[str] = field(default_factory=set)
    locks: WeakValueDictionary[str, anyio.Lock] = field(default_factory=WeakValueDictionary)

    def __post_init__(self) -> None:
        self.store = RecordingStore(self.folder)

    def answers(self, key: str) -> bool:
        """Whether a call under this key would be answered from the folder."""
        return key in self.made or (self.mode is not Mode.RECORD and self.store.has(key))

    def lock(self, key: str) -> anyio.Lock:
        """The lock to hold while a call under this key is looked up or made."""
        return self.locks.setdefault(key, anyio.Lock())

    async def get(self, key: str, read: Callable[[Entry], T]) -> T | None:
        """The recorded answer as ``read`` takes it, None where the call is to be made. Raises RecordingError."""

        def look_up() -> T | None:
            entry = self.store.get(key)
            try:
                return None if entry is None else read(entry)
            except (KeyError, TypeError, AttributeError, ToolboxError) as error:
                raise self.store.damaged(self.store.path(key), f"it lacks {error}") from error

        return await to_thread.run_sync(look_up) if self.answers(key) else None

    def missing(self, what: str, key: str) -> str:
        """What to say of a call that is not recorded."""
        return (
            f"{what} (key {key[:12]}…) is not recorded in {self.folder}: use --replay-else-live {self.folder} to have "
            f"it made now, or --record {self.folder} to make all anew (a training: tools.mode)"
        )

    async def put(self, entry: Entry) -> None:
        """Keep an answer that was paid for, even while the run is being cancelled."""
        with anyio.CancelScope(shield=True):
            self.made.add(await to_thread.run_sync(self.store.put, entry))


class RecordedTransport:
    """A ``Transport`` that records another one's results, or answers from what was recorded.

    ``asked``: what names the servers in the recording, on any machine.
    """

    def __init__(self, live: Transport, recording: Recording, asked: Sequence[str]) -> None:
        self._recording, self._asked = recording, list(asked)
        self._live = Hosted[Transport](lambda: live, (ToolboxError,))
        self._described_by_live = False
        self._connecting = anyio.Lock()
        self._stack = AsyncExitStack()
        self._handles = Handles()
        self.described: list[dict[str, Any]] = []
        self.tools: dict[str, ToolInfo] = {}

    async def __aenter__(self) -> RecordedTransport:
        group = await self._stack.enter_async_context(anyio.create_task_group())
        group.start_soon(self._live.run)
        self._stack.callback(self._live.stop)
        try:
            if self._recording.mode is Mode.RECORD:
                await self._connect()
            else:
                await self._describe()
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._stack.aclose()

    def handle_of(self, image: ImageRef) -> str:
        return self._handles.of(image)

    async def photo(self, path: str) -> ImageRef:
        content = await to_thread.run_sync(_digest_of_file, path)
        if content is None:
            raise ToolboxError(f"{path[:200]} cannot be read here, so nothing can be recorded of it: name a file")
        question = {"tool": "photo", "content": content}

        async def make(live: Transport) -> ToolResult:
            return ToolResult({}, 0.0, images={"photo": await live.photo(path)})

        result = await self._answer(question, make)
        return replace(result.images["photo"], index=1, handle=path)

    async def max_cost_usd(self, request: ToolRequest) -> float | None:
        if self._recording.mode is Mode.REPLAY or self._recording.answers(key_of(await self._question(request))):
            return 0.0
        return self.tools[request.tool].max_cost_usd

    async def call(self, request: ToolRequest) -> ToolResult:
        question = await self._question(request)
        if self._recording.mode is not Mode.REPLAY and not self._recording.answers(key_of(question)):
            await self._connect()
            question = await self._question(request)  # of the live backend, where that is newer than the recorded one
        result = await self._answer(question, lambda live: live.call(request))
        self._handles.learn(request, result)
        return result

    async def _question(self, request: ToolRequest) -> dict[str, Any]:
        arguments = {}
        for name, value in request.arguments.items():
            if isinstance(value, ImageRef):
                arguments[name] = f"sha256:{value.sha256}"
            elif name in FILES and (content := await to_thread.run_sync(_digest_of_file, value)):
                arguments[name] = f"sha256:{content}"
            else:
                arguments[name] = value
        backend = self.tools[request.tool].backend
        identity = {name: backend.get(name) or "" for name in ("name", "model", "version")}
        return {"tool": request.tool, "arguments": arguments, "backend": identity}

    async def _answer(self, question: dict[str, Any], make: Callable[[Transport], Awaitable[ToolResult]]) -> ToolResult:
        """The recorded result, else a live one that is recorded. Raises ToolboxError."""
        started = time.perf_counter()
        key = key_of(question)
        try:
            async with self._recording.lock(key):
                if replayed := await self._recording.get(key, lambda entry: _replayed(key, entry)):
                    return replace(replayed, seconds=time.perf_counter() - started)
                if self._recording.mode is Mode.REPLAY:
                    raise ToolboxError(self._recording.missing(f"this call of {question['tool']}", key), "not_recorded")
                result = await make(await self._connect())
                answer = {
                    "payload": result.payload,
                    "error": result.error,
                    "kind": result.kind,
                    "handles": {name: image.handle for name, image in result.images.items()},
                    "sent": result.sent,
                }
                images = {name: image.png for name, image in result.images.items()}
                await self._recording.put(Entry(question, answer, result.seconds, result.cost_usd, images))
                return replace(result, key=key)
        except RecordingError as error:
            raise ToolboxError(str(error), "recording") from error

    async def _connect(self) -> Transport:
        """The live servers, started now where they were not yet."""
        live = await self._live.get()
        async with self._connecting:
            if not self._described_by_live:
                self._compare(live.tools)
                self.described, self.tools = live.described, dict(live.tools)
                described = {"described": live.described, "tools": [tool.to_json() for tool in live.tools.values()]}
                try:
                    await to_thread.run_sync(self._recording.store.put_servers, self._asked, described)
                except RecordingError as error:
                    raise ToolboxError(str(error), "recording") from error
                self._described_by_live = True
        return live

    def _compare(self, live: Mapping[str, ToolInfo]) -> None:
        """Raise ToolboxError where a policy was told of other tools than the servers have; say what is newer."""
        for name, told in self.tools.items():
            tool = live.get(name)
            if tool is None or (tool.description, tool.input_schema) != (told.description, told.input_schema):
                raise ToolboxError(
                    f"{name} is described in another way than it was recorded in {self._recording.folder}: "
                    "replay with the version that recorded it, or begin anew with --record"
                )
            if tool.backend != told.backend:
                logger.warning("%s was recorded with %s and is %s now", name, told.backend, tool.backend)

    async def _describe(self) -> None:
        """Take the tools from the recording. Raises ToolboxError where it holds none."""
        folder = self._recording.folder
        try:
            found = await to_thread.run_sync(self._recording.store.get_servers, self._asked)
        except RecordingError as error:
            raise ToolboxError(str(error), "recording") from error
        if found is None and self._recording.mode is Mode.REPLAY_ELSE_LIVE:
            await self._connect()
            return
        if found is None:
            raise ToolboxError(
                f"{folder} holds no recording made with these servers and backends: record one with --record {folder} "
                "(a training: tools.mode)"
            )
        self.described = list(found["described"])
        self.tools = {fields["name"]: ToolInfo(**fields) for fields in found["tools"]}


def _replayed(key: str, entry: Entry) -> ToolResult:
    answer = entry.answer
    return ToolResult(
        payload=answer["payload"],
        seconds=0.0,
        sent=answer["sent"],
        error=answer["error"],
        kind=answer["kind"],
        images={name: image_ref(answer["handles"][name], png) for name, png in entry.images.items()},
        key=key,
        replayed=True,
        recorded_cost_usd=entry.cost_usd,
        recorded_seconds=entry.seconds,
    )


def _digest_of_file(name: object) -> str | None:
    """SHA-256 of a file's content, of a data URI itself; None for what is neither."""
    if not isinstance(name, str) or "\0" in name:
        return None
    if name.startswith("data:"):
        return hashlib.sha256(name.encode()).hexdigest()
    try:
        return hashlib.sha256(Path(name).read_bytes()).hexdigest()
    except OSError:
        return None
