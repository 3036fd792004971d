"""Streamable HTTP: on loopback for anybody on this machine, on any other address only for holders of the token.

Every request passes ``Gate`` first: Host and Origin, then the token. Then the SDK's own checks follow, the limit of the
body among them. ``/health`` tells that the server runs, and nothing else.
"""

from __future__ import annotations

import hmac
import ipaddress
import logging
import os
import socket
import stat
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import uvicorn
from mcp.server.mcpserver import MCPServer
from mcp.server.transport_security import TransportSecurityMiddleware, TransportSecuritySettings
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from mcp_servers.connections import LAST_SECONDS, PromptProtocol
from mcp_servers.errors import ToolInputError
from mcp_servers.limits import Traffic
from mcp_servers.stopping import GracefulServer

TOKEN_VARIABLE = "ANOMALY_AGENT_TOKEN"
SHORTEST_TOKEN = 16
GRACE = 20.0
"""Seconds that calls under way have to finish when the server is told to stop."""
CONNECTIONS = 1024
MAX_BODY = 96 * 2**20

CURES = {
    403: "this server does not take requests from that Origin: start it with --allow-host NAME to accept it",
    421: "this server is not known by that Host: start it with --allow-host NAME to accept it",
}
"""What is said in place of the SDK's words for a Host or an Origin that is not accepted."""

logger = logging.getLogger("mcp_servers.http")


@dataclass(frozen=True, slots=True)
class HttpOptions:
    """``hosts``: names under which clients may address the server besides its own. ``max_body``: bytes of a request."""

    host: str = "127.0.0.1"
    port: int = 8000
    token: str = ""
    hosts: Sequence[str] = ()
    max_body: int = MAX_BODY
    grace: float = GRACE


def read_token(file: str | None, environ: Mapping[str, str]) -> str:
    """The bearer token from a file, else from ``ANOMALY_AGENT_TOKEN``; "" where there is none.

    Raises ToolInputError for a file that cannot be read or that others may read, and for a token that is too short or
    could not be sent in a header.
    """
    token, source = environ.get(TOKEN_VARIABLE, "").strip(), TOKEN_VARIABLE
    if file is not None:
        path, source = Path(file).expanduser(), "--token-file"
        try:
            if os.name == "posix" and stat.S_IMODE(path.stat().st_mode) & 0o077:
                raise ToolInputError(f"--token-file {path} may be read by others: chmod 600 {path}")
            token = path.read_text("utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ToolInputError(f"--token-file {path} cannot be read: check the path and its rights") from error
        if not token:
            raise ToolInputError(f"--token-file {path} is empty: write a token into it, e.g. of openssl rand -hex 32")
    if token and (len(token) < SHORTEST_TOKEN or not token.isascii() or any(c <= " " for c in token)):
        raise ToolInputError(
            f"the token of {source} is not usable: at least {SHORTEST_TOKEN} ASCII characters without spaces, e.g. of "
            "openssl rand -hex 32"
        )
    return token


def is_loopback(host: str) -> bool:
    """Whether an address can be reached from this machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def security_for(host: str, port: int, hosts: Sequence[str]) -> TransportSecuritySettings:
    """Which Host and Origin headers are accepted: loopback's names on loopback, else the address and ``hosts``.

    All in lower case. A host named without a port is also reached at the usual ports, where a proxy stands before us.
    """
    if is_loopback(host):
        names = ["127.0.0.1", "localhost", "[::1]"]
    else:
        names = [] if host in ("0.0.0.0", "::") else [f"[{host}]" if ":" in host else host]
    accepted = [f"{name}:{port}" for name in names] + (names if port == 80 else [])
    for name in hosts:
        ports = [] if _has_port(name) else sorted({80, 443, port})
        accepted += [name, *(f"{name}:{one}" for one in ports)]
    accepted = [name.lower() for name in accepted]
    origins = [f"{scheme}://{name}" for name in accepted for scheme in ("http", "https")]
    return TransportSecuritySettings(allowed_hosts=accepted, allowed_origins=origins)


def _has_port(name: str) -> bool:
    return name.rpartition(":")[2].isdecimal() and not name.endswith("]")


def _named(key: bytes, value: bytes) -> bytes:
    """A header's value; names of hosts in lower case, since no case of theirs means anything."""
    return value.lower() if key in (b"host", b"origin") else value


class Gate:
    """ASGI middleware before everything else: Host and Origin, then the token, then ``/health``."""

    def __init__(self, app: ASGIApp, security: TransportSecuritySettings, token: str) -> None:
        self._app = app
        self._security = TransportSecurityMiddleware(security)
        self._token = token.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer what may not pass; hand on the rest."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        scope = {**scope, "headers": [(key, _named(key, value)) for key, value in scope["headers"]]}
        request = Request(scope)
        refusal = await self._security.validate_request(request)
        if refusal is not None and (cure := CURES.get(refusal.status_code)):
            refusal = PlainTextResponse(cure, refusal.status_code)
        if refusal is None and request.url.path == "/health":
            refusal = JSONResponse({"status": "ok"})
        if refusal is None and not self._may_pass(request):
            refusal = PlainTextResponse(
                "a bearer token is needed: send the header Authorization: Bearer TOKEN",
                401,
                {"WWW-Authenticate": 'Bearer realm="anomaly-agent"'},
            )
        answer: ASGIApp | Response = self._app if refusal is None else refusal
        await answer(scope, receive, send)

    def _may_pass(self, request: Request) -> bool:
        if not self._token:
            return True
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        return scheme.lower() == "bearer" and hmac.compare_digest(given.strip().encode(), self._token)


def bound_socket(host: str, port: int) -> socket.socket:
    """A socket on the address; port 0 takes a free one. Raises ToolInputError where it cannot be had."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        opened = socket.socket(family, kind, protocol)
    except OSError as error:
        raise ToolInputError(f"--host {host} is not an address of this machine: choose another") from error
    try:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.bind(address)
        opened.listen(CONNECTIONS)  # from now on clients wait instead of being turned away
    except OSError as error:
        opened.close()
        raise ToolInputError(
            f"port {port} on {host} is taken or not to be had: choose another with --port, or stop what runs there"
        ) from error
    return opened


def app_for(server: MCPServer, options: HttpOptions, port: int) -> ASGIApp:
    """The ASGI application: the gate, and the SDK's streamable HTTP behind it."""
    security = security_for(options.host, port, options.hosts)
    inner = server.streamable_http_app(
        host=options.host, max_request_body_size=options.max_body, transport_security=security
    )
    return Gate(inner, security, options.token)


def serve(server: MCPServer, options: HttpOptions, traffic: Traffic) -> None:
    """Serve until told to stop (SIGINT, SIGTERM). Raises ToolInputError where the options do not allow it."""
    if not is_loopback(options.host):
        if not options.token:
            raise ToolInputError(
                f"--host {options.host} can be reached from elsewhere: give a token with --token-file FILE or "
                f"{TOKEN_VARIABLE}, or serve 127.0.0.1"
            )
        if options.host in ("0.0.0.0", "::") and not options.hosts:
            raise ToolInputError(f"--host {options.host}: say with --allow-host NAME how clients address this server")
    listening = bound_socket(options.host, options.port)
    port = int(listening.getsockname()[1])
    config = uvicorn.Config(
        app_for(server, options, port),
        http=PromptProtocol,
        log_config=None,
        access_log=False,
        limit_concurrency=CONNECTIONS,
        timeout_graceful_shutdown=LAST_SECONDS + 1,
        lifespan="on",
    )
    shown = f"[{options.host}]" if ":" in options.host else options.host
    sys.stderr.write(f"running on http://{shown}:{port}/mcp (stop with Ctrl+C)\n")
    sys.stderr.flush()
    if not is_loopback(options.host):
        logger.warning("the token travels unencrypted over HTTP: put a TLS proxy in front of any open network")
    GracefulServer(config, traffic, options.grace).run([listening])
