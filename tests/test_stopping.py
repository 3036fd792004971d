"""How servers end: at Ctrl-C and SIGTERM, with calls under way or none, and when their client is gone. Quietly."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.servers.running import ROOT

GATED = str(ROOT / "tests" / "servers" / "gated.py")
HELLO = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}
INITIALIZE = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": HELLO}
INITIALIZED = {"jsonrpc": "2.0", "method": "notifications/initialized"}
WAIT = {"name": "image_gen", "arguments": {"prompt": "a"}, "_meta": {"progressToken": 1}}
CALL = {"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": WAIT}
INTERRUPTS_ITSELF = "import os, signal\nos.kill(os.getpid(), signal.SIGINT)\n"


def started(command: Sequence[str], **env: str) -> subprocess.Popen[str]:
    """A command of Python whose stdin stays open."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)} | env
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen([sys.executable, *command], cwd=ROOT, env=environment, text=True, **pipes)  # type: ignore[call-overload, no-any-return]


def waiting_for_the_pipe(pipe: Path) -> subprocess.Popen[str]:
    """A server over stdio with a call under way."""
    server = started([GATED, str(pipe), "--allow", str(pipe.parent)])
    assert server.stdin is not None
    assert server.stdout is not None
    for message in (INITIALIZE, INITIALIZED, CALL):
        server.stdin.write(json.dumps(message) + "\n")
        server.stdin.flush()
    assert '"id":1' in server.stdout.readline()
    assert "notifications/progress" in server.stdout.readline()
    return server


def ended(server: subprocess.Popen[str]) -> tuple[int, str]:
    """The exit code and what was left on stderr, of a server that ends by itself."""
    assert server.stderr is not None
    return server.wait(timeout=60), server.stderr.read()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stdio_server_ends_at_a_signal_while_its_client_is_there(number: int, home: Path, pipe: Path) -> None:
    server = waiting_for_the_pipe(pipe)
    server.send_signal(number)
    assert ended(server) == (-number, "")


def test_a_stdio_server_whose_client_was_killed_in_a_call_ends_quietly(home: Path, pipe: Path) -> None:
    server = waiting_for_the_pipe(pipe)
    assert server.stdin is not None
    assert server.stdout is not None
    server.stdout.close()
    server.stdin.close()
    pipe.write_text("go\n")
    assert ended(server) == (0, "")


@pytest.mark.parametrize(
    ("module", "code"),
    [("mcp_servers", -signal.SIGINT), ("mcp_servers.mask_gen", -signal.SIGINT), ("agent.run", 130)],
)
def test_an_interrupt_while_modules_are_imported_ends_quietly(module: str, code: int, tmp_path: Path) -> None:
    (tmp_path / "numpy.py").write_text(INTERRUPTS_ITSELF)
    command = started(["-m", module], PYTHONPATH=os.pathsep.join([str(tmp_path), str(ROOT)]))
    assert ended(command) == (code, "")
