"""A version for the local backends that changes with their code, so that recorded results are never taken for new."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent
SHARED = ("vision", "knowledge")
"""Folders that several local backends read."""


@cache
def local_version(tool: str, *others: str) -> str:
    """Twelve hexadecimal digits over the code and pages of ``mcp_servers/TOOL`` and of what the tools share.

    ``others``: further folders of ``mcp_servers`` that the backend is made of.
    """
    digest = hashlib.sha256()
    for folder in dict.fromkeys((tool, *others, *SHARED)):
        for path in sorted((PACKAGE / folder).rglob("*")):
            if path.suffix in (".py", ".md"):
                digest.update(f"{path.relative_to(PACKAGE).as_posix()}\0".encode())
                digest.update(path.read_bytes())
    return digest.hexdigest()[:12]
