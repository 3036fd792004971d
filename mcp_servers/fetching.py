"""Images from URLs, for servers whose owner names hosts with ``--allow-url``: those hosts, and never a private address.

The name is resolved here, once; the connection goes to the very address that was checked (so that a name which changes
its address in between gains nothing), and every redirect is a new request that is checked like the first.
"""

from __future__ import annotations

import ipaddress
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias
from urllib.parse import SplitResult, urljoin, urlsplit

import anyio

from mcp_servers.errors import ToolInputError
from mcp_servers.images import MAX_BYTES, ImageError
from mcp_servers.paths import short

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address

SCHEMES = {"http": 80, "https": 443}
MAX_REDIRECTS = 3
SECONDS = 30.0
"""Longest time of one download, redirects included."""
NAT64 = ipaddress.ip_network("64:ff9b::/96")


def resolve(host: str, port: int) -> list[Address]:
    """The addresses of a host by the system's resolver. Raises OSError."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [ipaddress.ip_address(str(entry[4][0]).partition("%")[0]) for entry in found]


def is_public(address: Address) -> bool:
    """Whether an address is one of the open internet's, also by the IPv4 address that it may carry inside."""
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return is_public(address.ipv4_mapped)
        if address.sixtofour is not None or address.teredo is not None or address in NAT64:
            return False
    return address.is_global and not address.is_multicast


@dataclass(frozen=True, slots=True)
class Fetcher:
    """Downloads from the named hosts ("example.org", "*.example.org", "example.org:8443"; the usual ports else)."""

    hosts: Sequence[str]
    resolve: Callable[[str, int], list[Address]] = resolve
    is_public: Callable[[Address], bool] = is_public
    max_bytes: int = MAX_BYTES
    seconds: float = SECONDS

    def fetch(self, url: str) -> bytes:
        """The body behind a URL, from a thread without an event loop.

        Raises ImageError where it may not or cannot be had.
        """
        deadline = time.monotonic() + self.seconds
        for _ in range(MAX_REDIRECTS + 1):
            parts = self._checked(url)
            address = self._address(parts)
            data, location = anyio.run(self._get, parts, address, deadline - time.monotonic())
            if location is None:
                return data
            try:
                url = urljoin(url, location)
            except ValueError:
                raise ImageError(f"{short(url)} is redirected to what is no URL: give the image's own URL") from None
        raise ImageError(f"{short(url)} is redirected more than {MAX_REDIRECTS} times: give the image's own URL")

    def _checked(self, url: str) -> SplitResult:
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            raise ImageError(f"{short(url)} is not a usable URL: check it") from None
        host = (parts.hostname or "").rstrip(".")
        if parts.scheme not in SCHEMES or not host:
            raise ImageError(f"{short(url)}: only http:// and https:// URLs of a host are fetched")
        if parts.username is not None or parts.password is not None:
            raise ImageError("a URL with a user name or password is not fetched: leave them out")
        if not any(_matches(host, port or SCHEMES[parts.scheme], allowed) for allowed in self.hosts):
            raise ImageError(f"{short(host)} is not a host this server may fetch from: start it with --allow-url HOST")
        return parts

    def _address(self, parts: SplitResult) -> Address:
        host = (parts.hostname or "").rstrip(".")
        try:
            addresses = self.resolve(host, parts.port or SCHEMES[parts.scheme])
        except (OSError, UnicodeError, ValueError):
            addresses = []
        if not addresses:
            raise ImageError(f"{short(host)} cannot be found: check the URL and the network")
        if not all(self.is_public(address) for address in addresses):
            raise ImageError(
                f"{short(host)} is at a private address, from which nothing is fetched: give a file's path"
            )
        return addresses[0]

    async def _get(self, parts: SplitResult, address: Address, seconds: float) -> tuple[bytes, str | None]:
        """Body and None, or nothing and where the server redirects to; within so many seconds, head and body."""
        import httpx2

        host = (parts.hostname or "").rstrip(".")
        port = parts.port or SCHEMES[parts.scheme]
        literal = f"[{address}]" if address.version == 6 else str(address)
        target = f"{parts.scheme}://{literal}:{port}{parts.path or '/'}" + (f"?{parts.query}" if parts.query else "")
        named = host if port == SCHEMES[parts.scheme] else f"{host}:{port}"
        headers = {"Host": named, "Accept": "image/*", "Accept-Encoding": "identity", "User-Agent": "anomaly-agent"}
        try:
            with anyio.fail_after(seconds):
                async with (
                    httpx2.AsyncClient(trust_env=False, follow_redirects=False, timeout=None) as client,
                    client.stream("GET", target, headers=headers, extensions={"sni_hostname": host}) as answer,
                ):
                    if answer.is_redirect:
                        return b"", answer.headers.get("location", "")
                    if answer.status_code != 200:
                        raise ImageError(f"{short(host)} answers with status {answer.status_code}: check the URL")
                    data = bytearray()
                    async for part in answer.aiter_raw():
                        data += part
                        if len(data) > self.max_bytes:
                            raise ImageError(f"the image at {short(host)} is larger than {self.max_bytes >> 20} MiB")
                    return bytes(data), None
        except TimeoutError as error:
            raise ImageError(f"{short(host)} took over {self.seconds:g} s: try again, or give a file") from error
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError) as error:
            raise ImageError(f"{short(host)} cannot be reached ({type(error).__name__}): check the URL") from error


def _matches(host: str, port: int, allowed: str) -> bool:
    name, _, own_port = allowed.partition(":")
    if port != int(own_port) if own_port else port not in SCHEMES.values():
        return False
    return host.endswith(name[1:]) and host != name[2:] if name.startswith("*.") else host == name


def read_hosts(named: Sequence[str]) -> list[str]:
    """The hosts of ``--allow-url``. Raises ToolInputError for what is no host name."""
    hosts = [host.strip().lower().rstrip(".") for host in named if host.strip()]
    for host in hosts:
        name, colon, port = host.partition(":")
        plain = name.removeprefix("*.")
        if not plain or any(c in plain for c in "/*@[] ") or (colon and not port.isdecimal()):
            raise ToolInputError(f"--allow-url {host[:80]}: name a host, such as example.org or *.example.org:8443")
    return hosts
