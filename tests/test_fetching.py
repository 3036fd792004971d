"""Images from URLs: from the hosts that the owner named, never from a private address, also after a redirect."""

from __future__ import annotations

import ipaddress
import os
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import anyio
import cv2
import numpy as np
import pytest

from mcp_servers.errors import ToolInputError
from mcp_servers.fetching import Address, Fetcher, is_public, read_hosts
from mcp_servers.images import ImageError
from mcp_servers.store import Store
from mcp_servers.threads import compute
from tests.conftest import make_photo

LOOPBACK = ipaddress.ip_address("127.0.0.1")
PNG = cv2.imencode(".png", make_photo())[1].tobytes()


class Pictures(BaseHTTPRequestHandler):
    """A web server of pictures and of redirects."""

    def do_GET(self) -> None:
        moved = {
            "/moved": "/plate.png",
            "/metadata": "http://169.254.169.254/latest/meta-data/",
            "/inside": "http://localhost:1/",
            "/elsewhere": "http://evil.example/plate.png",
            "/file": "file:///etc/passwd",
            "/round": "/round",
            "/broken": "http://[::1/x",
        }
        self.server.asked.append((self.path, self.headers["Host"]))  # type: ignore[attr-defined]
        if self.path in moved:
            self.send_response(302)
            self.send_header("Location", moved[self.path])
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        if self.path.startswith("/dribble"):
            self.dribble()
            return
        self.send_response(404 if self.path == "/none" else 200)
        body = PNG if self.path.startswith("/plate.png") else b"no picture" * 1000
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def dribble(self) -> None:
        """A head that grows for 3 s, every line of it in time; whoever waits that long gets the picture."""
        with suppress(OSError):
            self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n" % len(PNG))
            for number in range(150):
                self.wfile.write(b"X-%d: on\r\n" % number)
                self.server.stopped.wait(0.02)  # type: ignore[attr-defined]
            self.wfile.write(b"\r\n" + PNG)

    def log_message(self, *_: object) -> None:
        """Nothing to stderr."""


@pytest.fixture
def pictures() -> Iterator[ThreadingHTTPServer]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Pictures)
    server.asked = []  # type: ignore[attr-defined]
    server.stopped = threading.Event()  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.stopped.set()  # type: ignore[attr-defined]
    server.shutdown()
    thread.join()
    server.server_close()


def fetcher_of(server: ThreadingHTTPServer, max_bytes: int = 10**6) -> Fetcher:
    """Knows photos.example as the test's server, which stands for one at a public address."""
    return Fetcher(
        [f"photos.example:{server.server_address[1]}"],
        resolve=lambda host, port: [LOOPBACK],
        is_public=lambda address: address == LOOPBACK,
        max_bytes=max_bytes,
    )


def url_of(server: ThreadingHTTPServer, path: str) -> str:
    return f"http://photos.example:{server.server_address[1]}{path}"


def test_a_picture_of_a_named_host_becomes_a_handle(store: Store, pictures: ThreadingHTTPServer) -> None:
    store.fetcher = fetcher_of(pictures)
    for path in ("/plate.png", "/moved", "/plate.png?size=1"):
        handle, photo = store.resolve(url_of(pictures, path))
        assert np.array_equal(photo.view()[:, :, ::-1], make_photo())
        assert store.get(handle).width == photo.width
    assert {host for _, host in pictures.asked} == {f"photos.example:{pictures.server_address[1]}"}  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("/elsewhere", "evil.example is not a host"),
        ("/file", "only http"),
        ("/round", "redirected more than"),
        ("/broken", "redirected to what is no URL"),
        ("/none", "status 404"),
        ("/text", "not an image"),
    ],
)
def test_what_is_no_picture_of_a_named_host_is_refused(
    store: Store, pictures: ThreadingHTTPServer, path: str, says: str
) -> None:
    store.fetcher = fetcher_of(pictures)
    with pytest.raises(ImageError, match=says) as refusal:
        store.resolve(url_of(pictures, path))
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("path", ["/metadata", "/inside"])
def test_a_redirect_to_a_private_address_is_not_followed_even_where_the_host_is_named(
    pictures: ThreadingHTTPServer, path: str
) -> None:
    asked: list[str] = []

    def resolve(host: str, port: int) -> list[Address]:
        asked.append(host)
        return [LOOPBACK if host in ("photos.example", "localhost") else ipaddress.ip_address(host)]

    fetcher = Fetcher(
        [f"photos.example:{pictures.server_address[1]}", "localhost:1", "169.254.169.254"],
        resolve=resolve,
        is_public=lambda address: asked == ["photos.example"] or is_public(address),
    )
    with pytest.raises(ImageError, match="private address"):
        fetcher.fetch(url_of(pictures, path))


def test_a_head_that_never_ends_is_waited_for_no_longer_than_a_download_may_take(
    store: Store, pictures: ThreadingHTTPServer
) -> None:
    store.fetcher = replace(fetcher_of(pictures), seconds=0.3)

    async def main() -> None:
        await compute(store.resolve, url_of(pictures, "/dribble"))

    with pytest.raises(ImageError, match=r"took over 0\.3 s"):
        anyio.run(main)


def test_a_body_over_the_limit_is_not_read_to_its_end(pictures: ThreadingHTTPServer) -> None:
    with pytest.raises(ImageError, match="larger than"):
        fetcher_of(pictures, max_bytes=100).fetch(url_of(pictures, "/plate.png"))


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("http://other.example/a.png", "--allow-url"),
        ("http://photos.example:8080/a.png", "--allow-url"),
        ("http://photos.example@evil.example/a.png", "user name"),
        ("ftp://photos.example/a.png", "only http"),
        ("http://[::1/a.png", "not a usable URL"),
        ("http://photos.example:99999/a.png", "not a usable URL"),
        ("http:///a.png", "only http"),
    ],
)
def test_urls_that_are_not_of_a_named_host_are_never_resolved(url: str, says: str) -> None:
    def never(host: str, port: int) -> list[Address]:
        raise AssertionError(host)

    with pytest.raises(ImageError, match=says):
        Fetcher(["photos.example"], resolve=never).fetch(url)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "224.0.0.1",
        "::1", "fe80::1", "fd00::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::", "::",
    ],
)  # fmt: skip
def test_private_addresses_are_known_in_every_dress(address: str) -> None:
    assert not is_public(ipaddress.ip_address(address))
    with pytest.raises(ImageError, match="private address"):
        Fetcher(["a.example"], resolve=lambda host, port: [ipaddress.ip_address(address)]).fetch("http://a.example/x")


def test_one_private_address_among_public_ones_is_enough_to_refuse() -> None:
    both = [ipaddress.ip_address("1.1.1.1"), LOOPBACK]
    with pytest.raises(ImageError, match="private address"):
        Fetcher(["a.example"], resolve=lambda host, port: both).fetch("https://a.example/x")


def test_hosts_are_named_plainly_or_with_a_star_for_all_below() -> None:
    assert read_hosts([" Example.org. ", "*.cdn.example:8443"]) == ["example.org", "*.cdn.example:8443"]
    for bad in ("https://example.org", "a/b", "*", "host:port", "user@host"):
        with pytest.raises(ToolInputError, match="--allow-url"):
            read_hosts([bad])


def test_without_a_named_host_no_url_is_fetched(store: Store) -> None:
    with pytest.raises(ImageError, match="URLs are not fetched"):
        store.resolve("https://example.org/a.png")


def test_a_pipe_in_an_allowed_folder_is_refused_instead_of_waited_for(store: Store, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(ImageError, match="not a regular file"):
        store.resolve("pipe.png")
