"""Streamable HTTP as a service meets it: who may call, how much, and how it stops."""

from __future__ import annotations

import base64
import json
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import httpx2
import numpy as np
import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from mcp_servers.errors import ToolInputError
from mcp_servers.http import read_token, security_for
from mcp_servers.images import Photo, decode
from mcp_servers.store import Store
from tests.servers.running import Running, running

TOKEN = "0123456789abcdef0123456789abcdef"
GATED = str(Path(__file__).parent / "servers" / "gated.py")
JSON = {"content-type": "application/json", "accept": "application/json, text/event-stream"}
PING = {"jsonrpc": "2.0", "id": 1, "method": "ping"}


@pytest.fixture(scope="module")
def private_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def guarded(private_home: Path) -> Iterator[Running]:
    """A server with a token and a small limit of the body."""
    env = {"ANOMALY_AGENT_HOME": str(private_home), "ANOMALY_AGENT_TOKEN": TOKEN}
    with running(["--allow", str(private_home), "--max-body-mb", "0.01"], env=env) as server:
        yield server


def post(server: Running, body: Any, **headers: str) -> httpx2.Response:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    sent = (
        JSON | {"authorization": f"Bearer {TOKEN}"} | {key.replace("_", "-"): value for key, value in headers.items()}
    )
    return httpx2.post(server.url, content=content, headers=sent, timeout=60, trust_env=False)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"authorization": ""}, 401),
        ({"authorization": "Bearer wrong-wrong-wrong-wrong"}, 401),
        ({"authorization": f"Basic {TOKEN}"}, 401),
        ({"authorization": f"Bearer {TOKEN}x"}, 401),
        ({"host": "evil.example"}, 421),
        ({"host": "evil.example", "authorization": ""}, 421),
        ({"origin": "https://evil.example"}, 403),
        ({"origin": "null"}, 403),
    ],
)
def test_requests_that_may_not_pass_are_answered_before_they_are_read(
    guarded: Running, headers: dict[str, str], status: int
) -> None:
    answer = post(guarded, PING, **headers)
    assert answer.status_code == status
    assert TOKEN not in answer.text
    assert ("Authorization: Bearer" if status == 401 else "--allow-host NAME") in answer.text, "it names the cure"
    if status == 401:
        assert answer.headers["www-authenticate"].startswith("Bearer")


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"{", 400),
        (b"[" * 9000, 400),
        (b'{"a":' * 1500, 400),
        ([PING, PING], 400),
        (b"\xff\xfe", 400),
        (b"", 400),
        ("x" * 20_000, 413),
    ],
)
def test_bodies_that_are_no_request_are_refused(guarded: Running, body: Any, status: int) -> None:
    answer = post(guarded, body)
    assert answer.status_code == status
    assert "Traceback" not in answer.text
    assert str(Path(__file__).parent.parent) not in answer.text


def test_the_token_opens_the_server_to_a_client_in_both_eras(guarded: Running) -> None:
    async def main(mode: str) -> int:
        async with (
            httpx2.AsyncClient(headers={"authorization": f"Bearer {TOKEN}"}, trust_env=False) as web,
            Client(streamable_http_client(guarded.url, http_client=web), mode=mode) as client,
        ):
            return len((await client.list_tools()).tools)

    assert anyio.run(main, "auto") == anyio.run(main, "legacy") == 5


@pytest.mark.parametrize("mode", ["auto", "legacy"])
def test_a_full_size_image_reaches_clients_of_both_eras(guarded: Running, private_home: Path, mode: str) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (700, 700, 3), dtype=np.uint8)
    handle = Store(home=private_home).put(Photo(noise))

    async def main() -> str:
        async with (
            httpx2.AsyncClient(headers={"authorization": f"Bearer {TOKEN}"}, trust_env=False) as web,
            Client(streamable_http_client(guarded.url, http_client=web, max_sse_event_size=None), mode=mode) as client,
        ):
            return str((await client.read_resource(f"image://{handle}")).contents[0].blob)  # type: ignore[union-attr]

    png = base64.b64decode(anyio.run(main))
    assert len(png) > 2**20
    assert np.array_equal(decode(png, "image").pixels, noise)


def test_health_says_that_the_server_runs_and_needs_no_token(guarded: Running) -> None:
    answer = httpx2.get(f"{guarded.base}/health", trust_env=False)
    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})
    assert httpx2.get(f"{guarded.base}/health", headers={"host": "evil.example"}, trust_env=False).status_code == 421
    assert httpx2.get(f"{guarded.base}/elsewhere", trust_env=False).status_code == 401


def test_a_token_file_that_others_may_read_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\n")
    file.chmod(0o644)
    with pytest.raises(ToolInputError, match="chmod 600"):
        read_token(str(file), {})
    file.chmod(0o600)
    assert read_token(str(file), {"ANOMALY_AGENT_TOKEN": "another"}) == TOKEN


@pytest.mark.parametrize("token", ["short", "with spaces in the middle", "ümlaut-ümlaut-ümlaut"])
def test_a_token_that_cannot_protect_anything_is_refused(token: str) -> None:
    with pytest.raises(ToolInputError, match="openssl rand"):
        read_token(None, {"ANOMALY_AGENT_TOKEN": token})


def test_host_names_are_those_of_loopback_or_those_that_the_owner_named() -> None:
    assert {"127.0.0.1:80", "127.0.0.1", "localhost"} <= set(security_for("127.0.0.1", 80, []).allowed_hosts)
    assert "127.0.0.1" not in security_for("127.0.0.1", 8000, []).allowed_hosts
    elsewhere = security_for("0.0.0.0", 8000, ["Tools.example", "other.example:8443"])
    names = ["tools.example", "tools.example:80", "tools.example:443", "tools.example:8000", "other.example:8443"]
    assert elsewhere.allowed_hosts == names
    assert "https://tools.example" in elsewhere.allowed_origins
    assert elsewhere.enable_dns_rebinding_protection


def test_host_names_are_the_same_in_capitals(guarded: Running) -> None:
    named = {"host": f"LocalHost:{guarded.port}", "origin": f"HTTP://LOCALHOST:{guarded.port}"}
    hello = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}
    answer = post(guarded, {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": hello}, **named)
    assert answer.status_code == 200


IMPATIENT = """
import sys
from mcp_servers import connections
from mcp_servers.cli import main
from mcp_servers.suite import SPECS
connections.HEAD_SECONDS = 0.3
sys.exit(main("mcp_servers", SPECS, ""))
"""


def test_a_connection_that_sends_no_request_is_closed(home: Path) -> None:
    answered = b"GET /health HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n\r\n"
    with running(["--allow", str(home.parent)], module=["-c", IMPATIENT]) as server:
        for sent in (b"", b"POST /mcp HTTP/1.1\r\nHost: 127", answered % server.port + b"GET /hea"):
            with socket.create_connection(("127.0.0.1", server.port), timeout=30) as silent:
                silent.sendall(sent)
                received = b""
                while part := silent.recv(4096):  # a connection that stays open runs into the timeout
                    received += part
            assert received.count(b"200 OK") == sent.count(b"/health")


def let_go(pipe: Path) -> None:
    """Let the waiting call go on."""
    pipe.write_text("go\n")


def test_a_call_beyond_the_limit_is_told_that_the_server_is_busy(home: Path, pipe: Path) -> None:
    with running(["--max-calls", "1", "--allow", str(pipe.parent)], module=[GATED, str(pipe)]) as server:

        async def main() -> tuple[Any, Any]:
            begun = anyio.Event()

            async def began(done: float, total: float | None, message: str | None) -> None:
                begun.set()

            results: list[Any] = []
            async with Client(server.url) as first, Client(server.url) as second:

                async def call() -> None:
                    results.append(await first.call_tool("image_gen", {"prompt": "a"}, progress_callback=began))

                async with anyio.create_task_group() as group:
                    group.start_soon(call)
                    await begun.wait()
                    busy = await second.call_tool("image_gen", {"prompt": "b"})
                    await anyio.to_thread.run_sync(let_go, pipe)
            return results[0], busy

        answered, busy = anyio.run(main)
    assert busy.is_error
    assert "busy, 1 calls are under way; call again" in busy.content[0].text
    assert json.loads(answered.content[0].text) == {"prompt": "a", "said": "go"}


VICTIM = """
import sys, anyio
from mcp import Client
async def main():
    async with Client(sys.argv[1], mode=sys.argv[2]) as client:
        await client.call_tool("image_gen", {"prompt": "never answered"})
anyio.run(main)
"""


@pytest.mark.parametrize("mode", ["auto", "legacy"])
def test_a_client_that_is_killed_in_a_call_leaves_its_place_to_the_next(home: Path, pipe: Path, mode: str) -> None:
    with running(["--max-calls", "1", "--allow", str(pipe.parent)], module=[GATED, str(pipe)]) as server:
        victim = subprocess.Popen([sys.executable, "-c", VICTIM, server.url, mode])
        with pipe.open("w"):  # opens once the victim's call reads the pipe
            victim.kill()
            victim.wait()

        async def began(done: float, total: float | None, message: str | None) -> None:
            if done == 1:
                threading.Thread(target=let_go, args=(pipe,)).start()

        async def main() -> Any:
            async with Client(server.url) as client:
                while True:  # busy until the server has seen that the victim is gone
                    answer = await client.call_tool("image_gen", {"prompt": "next"}, progress_callback=began)
                    if not answer.is_error:
                        return answer
                    assert "busy" in answer.content[0].text  # type: ignore[union-attr]

        answered = anyio.run(main)
    assert json.loads(answered.content[0].text) == {"prompt": "next", "said": "go"}
