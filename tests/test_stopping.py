"""How servers end: at Ctrl-C and SIGTERM, with calls under way or none, and when their client is gone. Quietly."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest
from mcp import Client
from mcp.shared.exceptions import MCPError

from tests.servers.running import ROOT, Running, running

GATED = str(ROOT / "tests" / "servers" / "gated.py")
HURRIED = """
import functools, runpy, sys
from mcp_servers import http
http.HttpOptions = functools.partial(http.HttpOptions, grace=0.1)
del sys.argv[0]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
HELLO = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}
INITIALIZE = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": HELLO}
INITIALIZED = {"jsonrpc": "2.0", "method": "notifications/initialized"}
WAIT = {"name": "image_gen", "arguments": {"prompt": "a"}, "_meta": {"progressToken": 1}}
CALL = {"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": WAIT}
INTERRUPTS_ITSELF = "import os, signal\nos.kill(os.getpid(), signal.SIGINT)\n"


@contextmanager
def started(command: Sequence[str], **env: str) -> Iterator[subprocess.Popen[str]]:
    """A command of Python whose stdin stays open."""
    pipe, environment = subprocess.PIPE, os.environ | {"PYTHONPATH": str(ROOT)} | env
    with subprocess.Popen(
        [sys.executable, *command], cwd=ROOT, env=environment, text=True, stdin=pipe, stdout=pipe, stderr=pipe
    ) as process:
        try:
            yield process
        finally:
            process.kill()


@contextmanager
def waiting_for_the_pipe(pipe: Path) -> Iterator[subprocess.Popen[str]]:
    """A server over stdio with a call under way."""
    with started([GATED, str(pipe), "--allow", str(pipe.parent)]) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        for message in (INITIALIZE, INITIALIZED, CALL):
            server.stdin.write(json.dumps(message) + "\n")
            server.stdin.flush()
        assert '"id":1' in server.stdout.readline()
        assert "notifications/progress" in server.stdout.readline()
        yield server


def ended(server: subprocess.Popen[str]) -> tuple[int, str]:
    """The exit code and what was left on stderr, of a server that ends by itself."""
    assert server.stderr is not None
    return server.wait(timeout=60), server.stderr.read()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stdio_server_ends_at_a_signal_while_its_client_is_there(number: int, home: Path, pipe: Path) -> None:
    with waiting_for_the_pipe(pipe) as server:
        server.send_signal(number)
        assert ended(server) == (-number, "")


def test_a_stdio_server_whose_client_was_killed_in_a_call_ends_quietly(home: Path, pipe: Path) -> None:
    with waiting_for_the_pipe(pipe) as server:
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
    with started(["-m", module], PYTHONPATH=os.pathsep.join([str(tmp_path), str(ROOT)])) as command:
        assert ended(command) == (code, "")


def in_a_call(server: Running, mode: str, then: Callable[[], None]) -> list[Any]:
    """Call the waiting tool, do something once it waits, and give its answer where one comes."""
    answers = []

    async def main() -> None:
        async def began(done: float, total: float | None, message: str | None) -> None:
            if done == 1:
                threading.Thread(target=then).start()

        async with Client(server.url, mode=mode) as client:
            await client.list_tools()  # which the client asks for after a call, and nobody answers any more
            answers.append(await client.call_tool("image_gen", {"prompt": "last"}, progress_callback=began))

    with suppress(ExceptionGroup, MCPError, OSError, httpx2.TransportError):  # its goodbye may find the server gone
        anyio.run(main)
    return [json.loads(answer.content[0].text) for answer in answers]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("mode", ["auto", "legacy"])
def test_a_server_that_is_told_to_stop_finishes_its_calls_first(mode: str, number: int, home: Path, pipe: Path) -> None:
    with running(["--allow", str(pipe.parent)], module=[GATED, str(pipe)]) as server:

        def stop() -> None:
            server.process.send_signal(number)
            told.append(server.read_line())
            pipe.write_text("go\n")

        told: list[str] = []
        assert in_a_call(server, mode, stop) == [{"prompt": "last", "said": "go"}]
        assert ended(server.process) == (-number, "")
    assert "have 20 s to finish; another signal ends them at once" in told[0]


@pytest.mark.parametrize("mode", ["auto", "legacy"])
def test_a_second_signal_ends_the_calls_at_once(mode: str, home: Path, pipe: Path) -> None:
    with running(["--allow", str(pipe.parent)], module=[GATED, str(pipe)]) as server:

        def stop() -> None:
            server.process.send_signal(signal.SIGTERM)
            server.read_line()
            server.process.send_signal(signal.SIGINT)

        assert in_a_call(server, mode, stop) == []
        assert ended(server.process) == (-signal.SIGINT, "")


@pytest.mark.parametrize("mode", ["auto", "legacy"])
def test_calls_that_do_not_finish_in_time_are_given_up_without_a_traceback(mode: str, home: Path, pipe: Path) -> None:
    with running(["--allow", str(pipe.parent)], module=["-c", HURRIED, GATED, str(pipe)]) as server:
        assert in_a_call(server, mode, lambda: server.process.send_signal(signal.SIGTERM)) == []
        code, said = ended(server.process)
    assert code == -signal.SIGTERM
    assert "1 calls did not finish within 0.1 s and were given up" in said
    assert "Traceback" not in said
    assert "ERROR" not in said


def test_an_open_event_stream_does_not_disturb_the_end(home: Path) -> None:
    with running(["--allow", str(home.parent)]) as server:
        headers = {"accept": "application/json, text/event-stream"}
        answer = httpx2.post(server.url, json=INITIALIZE, headers=headers, timeout=60, trust_env=False)
        headers["mcp-session-id"] = answer.headers["mcp-session-id"]
        with httpx2.stream("GET", server.url, headers=headers, timeout=60, trust_env=False) as events:
            assert events.status_code == 200
            server.process.send_signal(signal.SIGTERM)
            assert ended(server.process) == (-signal.SIGTERM, "")
