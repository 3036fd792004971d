"""The command line of every server: ``python -m mcp_servers`` and ``python -m mcp_servers.TOOL``."""

from __future__ import annotations

import argparse
import math
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress

from mcp_servers import http
from mcp_servers.backends import Choices, ToolSpec, add_options, read_choices
from mcp_servers.errors import ToolInputError
from mcp_servers.fetching import Fetcher, read_hosts
from mcp_servers.hosts import config_command
from mcp_servers.limits import Traffic, add_limit_options, number_from, read_limits
from mcp_servers.logs import log_to_stderr, secrets_in
from mcp_servers.serving import build_server, store_from
from mcp_servers.store import Store
from mcp_servers.threads import thread_count

STORE_GB = 10.0
"""Size of the image store unless told otherwise, in 10^9 bytes."""
HTTP_KEEP = 3600.0
"""Seconds for which a server over HTTP, whose sessions come and go, counts an image that was used as in use."""


OVER_HTTP = ("host", "port", "token_file", "allow_host", "max_body_mb")
"""Options that mean nothing over stdio."""


def main(name: str, specs: Sequence[ToolSpec], instructions: str, argv: Sequence[str] | None = None) -> int:
    """Serve the tools over stdio, with ``--http`` over streamable HTTP; ``config`` prints a host's entry instead."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    parser = server_parser(name, specs, instructions)
    environ = dict(os.environ)
    if arguments[:1] == ["config"]:

        def check(given: argparse.Namespace) -> Choices:
            refuse_without_http(parser, given)
            return read_setup(given, specs, environ)[1]

        return config_command(name, parser, check, arguments[1:])
    options = parser.parse_args(arguments)
    try:
        refuse_without_http(parser, options)
        token = http.read_token(options.token_file, environ) if options.http else ""
        log_to_stderr([*secrets_in(environ), token])
        store, choices, traffic = read_setup(options, specs, environ)
        store.check()
        web = read_http(options, environ, token)
        server_name = name.replace("_", "-").replace("mcp-servers.", "anomaly-")
        server = build_server(server_name, store, specs, instructions, choices=choices, traffic=traffic)
        with suppress(KeyboardInterrupt):
            if options.http:
                http.serve(server, web, traffic)
            else:
                server.run("stdio")
    except ToolInputError as error:
        parser.exit(2, f"{parser.prog}: error: {error}\n")
    return 0


def server_parser(name: str, specs: Sequence[ToolSpec], instructions: str) -> argparse.ArgumentParser:
    """All options of a server."""
    parser = argparse.ArgumentParser(
        prog=f"python -m {name}",
        description=instructions,
        epilog=f"python -m {name} config --host claude-desktop|claude-code|cursor|vscode prints the entry for a host.",
    )
    parser.add_argument("--allow", action="append", default=[], metavar="DIR", help="folder that paths may name")
    parser.add_argument(
        "--allow-url", action="append", default=[], metavar="HOST", help="host that images may be fetched from"
    )
    parser.add_argument(
        "--store-gb", metavar="GB", help=f"size of the image store, 0 for no limit (default {STORE_GB:g})"
    )
    add_limit_options(parser)
    web = parser.add_argument_group("over HTTP")
    web.add_argument("--http", action="store_true", help="serve streamable HTTP instead of stdio")
    web.add_argument("--host", default="127.0.0.1", help="address to serve on (default 127.0.0.1)")
    web.add_argument("--port", type=int, default=8000, help="port to serve on, 0 for a free one (default 8000)")
    web.add_argument(
        "--token-file", metavar="FILE", help=f"bearer token that clients must send (or {http.TOKEN_VARIABLE})"
    )
    web.add_argument(
        "--allow-host", action="append", default=[], metavar="NAME", help="name that clients may address it by"
    )
    web.add_argument("--max-body-mb", metavar="MB", help=f"largest request, in MiB (default {http.MAX_BODY >> 20})")
    add_options(parser, specs)
    return parser


def refuse_without_http(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """Raise ToolInputError for an option that only a server over HTTP heeds, where this is none."""
    given = [name for name in OVER_HTTP if getattr(options, name) != parser.get_default(name)]
    if given and not options.http:
        option = f"--{given[0].replace('_', '-')}"
        raise ToolInputError(f"{option} is for servers over HTTP: add --http, or leave {option} out")


def read_setup(
    options: argparse.Namespace, specs: Sequence[ToolSpec], environ: Mapping[str, str]
) -> tuple[Store, Choices, Traffic]:
    """What a server is made of, apart from HTTP. Raises ToolInputError for the first option that it cannot take."""
    thread_count(environ)  # says now what is wrong with it
    choices = read_choices(options, specs, environ)
    return read_store(options, environ), choices, Traffic(read_limits(options, environ))


def read_store(options: argparse.Namespace, environ: Mapping[str, str]) -> Store:
    """The image store with its folders, hosts and size. Raises ToolInputError."""
    store = store_from(options.allow, dict(environ))
    hosts = read_hosts(options.allow_url or environ.get("ANOMALY_AGENT_ALLOW_URL", "").split(","))
    store.fetcher = Fetcher(hosts) if hosts else None
    size = number_from(options, environ, "store_gb", STORE_GB, 0, 1e6)
    store.limit = int(size * 1e9) or None
    store.keep = HTTP_KEEP if options.http else math.inf
    return store


def read_http(options: argparse.Namespace, environ: Mapping[str, str], token: str) -> http.HttpOptions:
    """What concerns HTTP alone. Raises ToolInputError."""
    if not 0 <= options.port < 65536:
        raise ToolInputError(f"--port {options.port}: choose a port from 1 to 65535, or 0 for a free one")
    body = number_from(options, environ, "max_body_mb", http.MAX_BODY / 2**20, 0.001, 4096)
    return http.HttpOptions(options.host, options.port, token, options.allow_host, int(body * 2**20))
