"""What a client may read: images by handle, photos by path, pages of the knowledge base, reports of recorded runs."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Sequence
from importlib.resources import files
from typing import ParamSpec, TypeVar

import anyio
from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.exceptions import ResourceError, ResourceNotFoundError
from mcp.server.mcpserver.resources.templates import ResourceSecurity
from mcp_types import Completion, CompletionArgument, CompletionContext, PromptReference, ResourceTemplateReference

from mcp_servers.errors import ToolInputError
from mcp_servers.images import ImageError
from mcp_servers.knowledge.catalogue import pages
from mcp_servers.knowledge.page_format import Entry
from mcp_servers.limits import BusyError, Traffic
from mcp_servers.store import Store
from mcp_servers.threads import compute

P = ParamSpec("P")
R = TypeVar("R")

MAX_REPORT = 64 * 2**20
"""Largest report that is served, in bytes."""


def add_resources(server: MCPServer, store: Store, traffic: Traffic) -> None:
    """``image://HANDLE``, ``photo://PATH``, ``knowledge://index``, ``knowledge://PAGE`` and ``report://PATH``.

    A read counts as a call of ``traffic``: it takes a place, a computing thread, and no longer than a call may.
    """
    limited = functools.partial(as_call, traffic)
    by_store = ResourceSecurity(exempt_params={"path"})  # the store's own rules decide which paths may be read

    @server.resource(
        "image://{handle}",
        name="image",
        title="Full-size image",
        description="The image behind a handle, as a lossless PNG.",
        mime_type="image/png",
    )
    @limited
    def image(handle: str) -> bytes:
        try:
            return store.png(handle)
        except ImageError as error:
            raise ResourceNotFoundError(str(error)) from error

    @server.resource(
        "photo://{path}",
        name="photo",
        title="Photo as the tools see it",
        description="The photo at a URL-encoded path in an allowed folder: upright, without metadata, lossless PNG.",
        mime_type="image/png",
        security=by_store,
    )
    @limited
    def photo(path: str) -> bytes:
        try:
            return store.png(store.resolve(path)[0])
        except ToolInputError as error:
            raise ResourceError(str(error)) from error

    @server.resource(
        "report://{path}",
        name="report",
        title="Report of a recorded run",
        description="The HTML report in the URL-encoded path of a run's folder, which must be in an allowed folder.",
        mime_type="text/html",
        security=by_store,
    )
    @limited
    def report(path: str) -> str:
        try:
            return read_report(store, path)
        except ToolInputError as error:
            raise ResourceNotFoundError(str(error)) from error

    @server.resource(
        "knowledge://index",
        name="knowledge",
        title="Knowledge base",
        description="The objects and materials that the knowledge base has a page on, with the defects on each.",
        mime_type="text/markdown",
    )
    @limited
    def index() -> str:
        return "\n".join(f"- knowledge://{page.file.removesuffix('.md')}: {_defects(page.entries)}" for page in pages())

    @server.resource(
        "knowledge://{page}",
        name="knowledge page",
        title="Page of the knowledge base",
        description="How each defect looks on one object or material, where it occurs and what betrays a fake.",
        mime_type="text/markdown",
    )
    @limited
    def knowledge(page: str) -> str:
        if page not in page_names():
            raise ResourceNotFoundError(f"there is no page {page[:60]!r}: knowledge://index lists them")
        return (files("mcp_servers.knowledge") / "pages" / f"{page}.md").read_text("utf-8")

    @server.completion()  # type: ignore[no-untyped-call, untyped-decorator]
    async def complete(
        ref: PromptReference | ResourceTemplateReference,
        argument: CompletionArgument,
        context: CompletionContext | None,
    ) -> Completion | None:
        if isinstance(ref, ResourceTemplateReference) and ref.uri == "knowledge://{page}":
            names = page_names()
        elif argument.name == "item_name":
            names = [page.name for page in pages() if not page.general]
        else:
            return None
        begun = [name for name in names if name.startswith(argument.value.lower())]
        return Completion(values=begun[:100], total=len(begun), has_more=len(begun) > 100)


def as_call(traffic: Traffic, function: Callable[P, R]) -> Callable[P, Awaitable[R]]:
    """The function as one that keeps to the limits of a call; raises ResourceError that names the limit it met."""

    @functools.wraps(function)
    async def read(*args: P.args, **kwargs: P.kwargs) -> R:
        seconds = traffic.limits.call_seconds
        try:
            with traffic.admitted("reading"), anyio.fail_after(seconds):
                return await compute(functools.partial(function, *args, **kwargs))
        except BusyError as error:
            raise ResourceError(str(error)) from error
        except TimeoutError as error:
            cure = "name a smaller one, or start the server with a longer --call-timeout"
            raise ResourceError(f"reading took over {seconds:g} s and was given up: {cure}") from error

    return read


def page_names() -> list[str]:
    """The pages of the knowledge base, as ``knowledge://`` names them."""
    return [page.file.removesuffix(".md") for page in pages()]


def read_report(store: Store, path: str) -> str:
    """The ``report.html`` of a run. Raises ToolInputError for what is outside the allowed folders or is no report."""
    real = store.allowed_path(path)
    file = real / "report.html" if real.is_dir() else real
    try:
        if file.name != "report.html" or file.resolve() != file or not file.is_file():
            raise ToolInputError(f"{real.name} holds no report.html: name the folder of a run")
        if file.stat().st_size > MAX_REPORT:
            raise ToolInputError(f"the report is larger than {MAX_REPORT >> 20} MiB: open it in a browser")
        return file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ToolInputError(f"the report in {real.name} cannot be read: make it again") from error


def _defects(entries: Sequence[Entry]) -> str:
    return ", ".join(entry.name for entry in entries)
