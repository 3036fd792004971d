"""Servers over HTTP for tests: started on a free port, stopped at the end."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent


@dataclass(slots=True)
class Running:
    """A server that listens: its process and the URL that it told."""

    process: subprocess.Popen[str]
    url: str

    @property
    def base(self) -> str:
        return self.url.removesuffix("/mcp")

    @property
    def port(self) -> int:
        return int(self.base.rpartition(":")[2])

    def read_line(self) -> str:
        """The next line that the server writes to stderr."""
        assert self.process.stderr is not None
        return self.process.stderr.readline()


@contextmanager
def running(
    arguments: Sequence[str], module: Sequence[str] = ("-m", "mcp_servers"), env: dict[str, str] | None = None
) -> Iterator[Running]:
    """``python -m mcp_servers --http --port 0 ARGUMENTS`` until the block ends; its stderr is read by the test."""
    command = [sys.executable, *module, "--http", "--port", "0", *arguments]
    environment = os.environ | {"PYTHONPATH": str(ROOT)} | (env or {})
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True, env=environment)
    try:
        assert process.stderr is not None
        said = []
        for line in process.stderr:
            said.append(line)
            if match := re.search(r"running on (http://\S+)", line):
                yield Running(process, match[1])
                break
        else:
            raise AssertionError("the server did not start: " + "".join(said))
    finally:
        process.terminate()
        process.communicate(timeout=60)
