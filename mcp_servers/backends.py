"""Which implementation stands behind each tool: the choice, where it comes from, and how a client hears of it.

Options ``--editor gemini --editor-model M --editor-base-url URL`` or the environment (``ANOMALY_AGENT_EDITOR``,
``..._EDITOR_MODEL``, ``..._EDITOR_BASE_URL``, ``..._EDITOR_API_KEY``); likewise for the other roles. Without a choice
every tool uses ``local``: no key, no network, no GPU.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias
from urllib.parse import urlsplit

from mcp.server.mcpserver.tools import Tool

from mcp_servers.errors import ToolInputError
from mcp_servers.store import Store

META_BACKEND = "anomaly-agent/backend"
"""Key of a tool's ``_meta`` that describes its backend: name, model, version, max_cost_usd, problem."""
META_FAILURE = "anomaly-agent/failure"
"""Key of a failed result's ``_meta``: kind (a FailureKind), cost_usd, attempts."""

TIMEOUT = 120.0
ATTEMPTS = 5


@dataclass(frozen=True, slots=True)
class BackendChoice:
    """One tool's backend as the user chose it; empty fields mean the backend's own defaults.

    ``name`` may join several backends with "+" where the tool combines them. ``folder`` is the user's own folder, for
    a backend that reads one. ``timeout`` (seconds) bounds one request to a service, ``attempts`` how often it is made
    where it fails in a way that may pass (at least 1).
    """

    name: str = "local"
    model: str = ""
    base_url: str = ""
    api_key: str = field(default="", repr=False)
    timeout: float = TIMEOUT
    attempts: int = ATTEMPTS
    folder: str = ""


@dataclass(frozen=True, slots=True)
class BackendFacts:
    """What a client is told of a backend, in the tool's ``_meta``.

    ``version`` changes whenever the same call could give another result; ``max_cost_usd`` is the most that one call
    may cost (None: unknown); ``problem`` says why the backend cannot be used, "" where it can. ``open_world``: it asks
    a service outside this machine's tools (told in the tool's annotations).
    """

    name: str = "local"
    model: str = ""
    version: str = ""
    max_cost_usd: float | None = 0.0
    problem: str = ""
    open_world: bool = False

    def meta(self) -> dict[str, Any]:
        return {
            META_BACKEND: {
                "name": self.name,
                "model": self.model,
                "version": self.version,
                "max_cost_usd": self.max_cost_usd,
                "problem": self.problem,
            }
        }


@dataclass(frozen=True, slots=True)
class ToolSpec:
    """One tool: its name, the role under which its backend is chosen, the backends there are, and how it is built.

    ``combines``: whether several backends may answer together ("local+openai"). ``folder_backend``: the one that reads
    a folder of the user's, "" where none does.
    """

    name: str
    role: str
    backends: Sequence[str]
    build: Callable[[Store, BackendChoice], list[Tool]]
    combines: bool = False
    folder_backend: str = ""


Choices: TypeAlias = Mapping[str, BackendChoice]
"""Backend by role; a role that is absent uses ``local``."""


def add_options(parser: argparse.ArgumentParser, specs: Sequence[ToolSpec]) -> None:
    """Options for the backend of every tool of a server."""
    for spec in specs:
        named = ", ".join(spec.backends) + (", or several joined by +" if spec.combines else "")
        joined = " (for two services: one each, joined by +)" if spec.combines else ""
        parser.add_argument(f"--{spec.role}", metavar="NAME", help=f"backend of {spec.name}: {named} (default local)")
        parser.add_argument(f"--{spec.role}-model", metavar="MODEL", help=f"its model, where it has several{joined}")
        parser.add_argument(
            f"--{spec.role}-base-url", metavar="URL", help=f"where it is served, if not at its vendor's{joined}"
        )
        if spec.folder_backend:
            parser.add_argument(f"--{spec.role}-folder", metavar="DIR", help=f"what {spec.folder_backend} reads")


def problem_of(spec: ToolSpec, name: str) -> str:
    """Why a tool has no backend of this name, which may join several with "+"; "" where it has."""
    parts = name.split("+")
    if not all(part in spec.backends for part in parts):
        return f"{name}: no such backend; choose one of {', '.join(spec.backends)}"
    if len(set(parts)) != len(parts):
        return f"{name}: name each backend once"
    if len(parts) > 1 and not spec.combines:
        return f"{name}: {spec.name} uses one backend; choose {' or '.join(parts)}"
    return ""


def read_choices(
    options: argparse.Namespace, specs: Sequence[ToolSpec], environ: Mapping[str, str]
) -> dict[str, BackendChoice]:
    """The choice for every role, from the command line, else from the environment.

    Raises ToolInputError for a backend that does not exist, for backends that cannot be combined, for a folder that
    no chosen backend reads, for an address that is none or holds a password, and for limits that are no numbers.
    """
    choices = {}
    for spec in specs:

        def value(key: str, role: str = spec.role) -> str:
            name = f"{role}_{key}".rstrip("_")
            given = getattr(options, name, None)
            return str(given if given is not None else environ.get(f"ANOMALY_AGENT_{name.upper()}", "")).strip()

        name = value("") or "local"
        if problem := problem_of(spec, name):
            raise ToolInputError(f"--{spec.role} {problem}")
        parts = name.split("+")
        folder = value("folder") if spec.folder_backend else ""
        if folder and spec.folder_backend not in parts:
            cure = f"choose --{spec.role} {spec.folder_backend} (or {name}+{spec.folder_backend})"
            raise ToolInputError(f"--{spec.role}-folder {folder}: {name} reads no folder; {cure}")
        base_url = value("base_url")
        _check_address(spec.role, base_url)
        choices[spec.role] = BackendChoice(
            name=name,
            model=value("model"),
            base_url=base_url,
            api_key=value("api_key"),
            timeout=_number(spec.role, "timeout", value("timeout"), TIMEOUT, 3600),
            attempts=int(_number(spec.role, "attempts", value("attempts"), ATTEMPTS, 20)),
            folder=folder,
        )
    return choices


def _check_address(role: str, base_url: str) -> None:
    """Raise ToolInputError where an address, or one of several joined by "+", is none or holds a name or password."""
    try:
        places = [urlsplit(part).netloc for part in [base_url, *base_url.split("+")]]
    except ValueError as error:
        raise ToolInputError(f"--{role}-base-url is no address ({error}): write it as http://HOST:PORT/PATH") from error
    if any("@" in place for place in places):
        cure = f"put the key into ANOMALY_AGENT_{role.upper()}_API_KEY"
        raise ToolInputError(f"--{role}-base-url holds a name or password: {cure}")


def _number(role: str, key: str, text: str, default: float, most: float) -> float:
    try:
        number = float(text) if text else default
    except ValueError:
        number = math.nan
    if not 1 <= number <= most:
        raise ToolInputError(f"ANOMALY_AGENT_{role.upper()}_{key.upper()}={text}: choose a number from 1 to {most:g}")
    return number
