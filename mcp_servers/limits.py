"""What one server allows: time and number of calls, the size of results; and the count of calls under way."""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from mcp_servers.errors import ToolInputError


class BusyError(ToolInputError):
    """The server cannot take another call now; the same call may be made again."""


HTTP_CALLS = 64
"""Calls under way at once over HTTP, unless told otherwise; the one client of a stdio server paces itself."""


@dataclass(frozen=True, slots=True)
class Limits:
    """``call_seconds``: longest time of one call. ``calls``: how many may be under way at once, computing or waiting.

    ``result_bytes``: largest tool result as it travels; previews are scaled down to it (Claude Desktop takes about
    1 MB). ``inline_images``: whether results carry a preview at all; the full image stays behind its handle.
    """

    call_seconds: float = 300.0
    calls: int = 1024
    result_bytes: int = 1_000_000
    inline_images: bool = True


def add_limit_options(parser: argparse.ArgumentParser) -> None:
    """The options that ``read_limits`` reads."""
    usual = Limits()
    parser.add_argument(
        "--call-timeout", metavar="SECONDS", help=f"longest time of one tool call (default {usual.call_seconds:g})"
    )
    parser.add_argument(
        "--max-calls", metavar="N", help=f"tool calls under way at once (default {HTTP_CALLS} over HTTP)"
    )
    parser.add_argument(
        "--result-kb", metavar="KB", help=f"largest tool result, in 1000 bytes (default {usual.result_bytes // 1000})"
    )
    parser.add_argument("--no-inline-images", action="store_true", help="results name images but show no preview")


def read_limits(options: argparse.Namespace, environ: Mapping[str, str]) -> Limits:
    """From the command line, else from ``ANOMALY_AGENT_CALL_TIMEOUT``, ``..._MAX_CALLS``, ``..._RESULT_KB`` and
    ``..._INLINE_IMAGES`` (0: none). Raises ToolInputError for what is no number in range."""
    usual = Limits()
    inline = environ.get("ANOMALY_AGENT_INLINE_IMAGES", "").strip().lower()
    if inline not in ("", "0", "1", "false", "true", "no", "yes"):
        raise ToolInputError(f"ANOMALY_AGENT_INLINE_IMAGES={inline[:40]}: choose 1 or 0")
    return Limits(
        call_seconds=number_from(options, environ, "call_timeout", usual.call_seconds, 1, 86_400),
        calls=int(number_from(options, environ, "max_calls", HTTP_CALLS if options.http else usual.calls, 1, 100_000)),
        result_bytes=int(number_from(options, environ, "result_kb", usual.result_bytes / 1000, 16, 100_000) * 1000),
        inline_images=not options.no_inline_images and inline not in ("0", "false", "no"),
    )


def number_from(
    options: argparse.Namespace, environ: Mapping[str, str], name: str, usual: float, least: float, most: float
) -> float:
    """A number from an option, else from the environment. Raises ToolInputError where it is not in [least, most]."""
    given, variable = getattr(options, name), f"ANOMALY_AGENT_{name.upper()}"
    source = "--" + name.replace("_", "-") if given is not None else variable
    text = str(given if given is not None else environ.get(variable, "")).strip()
    try:
        value = float(text) if text else usual
    except ValueError:
        value = math.nan
    if not least <= value <= most:
        raise ToolInputError(f"{source} {text[:40]}: choose a number from {least:g} to {most:g}")
    return value


@dataclass(slots=True)
class Traffic:
    """The calls that are under way in one server. Only the event loop touches it."""

    limits: Limits
    running: int = 0
    stopping: bool = False

    @contextmanager
    def admitted(self, tool: str) -> Iterator[None]:
        """Count a call while it lasts. Raises BusyError where there are too many or the server is about to stop."""
        if self.stopping:
            raise BusyError(f"{tool}: the server is stopping; call again when it is back")
        if self.running >= self.limits.calls:
            raise BusyError(f"{tool}: busy, {self.running} calls are under way; call again in a few seconds")
        self.running += 1
        try:
            yield
        finally:
            self.running -= 1
