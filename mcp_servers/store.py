"""The image store that all servers on one machine share, and the rules for what a caller may name.

An image argument is a *handle* (minted here: a keyed hash of the pixels, so it cannot be guessed and the same
picture has one handle), a *path* inside an allowed folder, or a *data URI*. Files are written to a temporary
name and renamed, so servers in several processes can share one folder.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import logging
import math
import os
import re
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mcp_servers.cleaning import clean
from mcp_servers.fetching import Fetcher
from mcp_servers.images import ImageError, Photo, decode
from mcp_servers.leases import Lease
from mcp_servers.paths import allowed_path, file_key, short, unreadable

HANDLE = re.compile(r"img_[0-9a-f]{32}\Z")
LIKE_HANDLE = re.compile(r"img_\w*\Z")
SHORTEST_KEY = 16
CACHE_BYTES = 256 * 2**20
RESTORED = 0.05
"""Seconds after which an image that a cleaner took aside and put back is there again."""

logger = logging.getLogger(__name__)


def default_home(environ: Mapping[str, str] = os.environ) -> Path:
    """The folder of the store: ``ANOMALY_AGENT_HOME``, else the user's cache folder."""
    if configured := environ.get("ANOMALY_AGENT_HOME"):
        return Path(configured).expanduser()
    cache = environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "anomaly-agent"


@dataclass(slots=True)
class Store:
    """Images by handle, and the folders from which paths may be read.

    ``allowed``: existing folders; relative paths are looked up in them in order. Symbolic links are resolved
    before a path is compared with them. ``fetcher``: how URLs are fetched, None where they are not. ``limit``: bytes
    of images that are kept, None for any number. ``keep``: seconds for which an image that was used counts as in use;
    infinite for a process that serves one session.
    """

    home: Path
    allowed: Sequence[Path] = ()
    fetcher: Fetcher | None = None
    limit: int | None = None
    keep: float = math.inf
    _lease: Lease | None = None
    _written: int = 0
    _cleaned: bool = False
    _key: bytes = b""
    _photos: OrderedDict[str, Photo] = field(default_factory=OrderedDict)
    _paths: dict[tuple[str, int, int], str] = field(default_factory=dict)
    _lock: threading.RLock = field(default_factory=threading.RLock)

    def check(self) -> None:
        """Raise ImageError where the store cannot be used."""
        self._secret()

    def put(self, photo: Photo) -> str:
        """Keep an image and return its handle. Raises ImageError where the store cannot be written."""
        png = photo.to_png()
        handle = "img_" + hmac.new(self._secret(), png, hashlib.sha256).hexdigest()[:32]
        if not self._use(handle):
            self._write(self.path(handle), png)
            self._make_room(len(png))
        self._remember(handle, photo)
        return handle

    def get(self, handle: str) -> Photo:
        """The image behind a handle. Raises ImageError where the handle is malformed or unknown."""
        with self._lock:
            kept = self._photos.get(handle)
            if kept is not None:
                self._photos.move_to_end(handle)
        if kept is not None:
            self._use(handle)
            return kept
        photo = decode(self.png(handle), f"image {handle}")
        self._remember(handle, photo)
        return photo

    def png(self, handle: str) -> bytes:
        """PNG bytes behind a handle. Raises ImageError where the handle is malformed or unknown."""
        if not HANDLE.match(handle):
            raise no_handle(handle)
        try:
            if not self._use(handle):
                time.sleep(RESTORED)  # a cleaner puts back what it took while we noted the use
            return self.path(handle).read_bytes()
        except FileNotFoundError:
            raise ImageError(
                f"image {handle} is unknown or no longer stored: pass the file's path, or make the image again"
            ) from None
        except OSError as error:
            raise ImageError(f"image {handle} cannot be read ({error.strerror}): check the image store") from error

    def path(self, handle: str) -> Path:
        """Where the image behind a well-formed handle is kept."""
        return self.home / "images" / handle[4:6] / f"{handle}.png"

    def resolve(self, reference: str) -> tuple[str, Photo]:
        """Handle and image of a handle, a path or a data URI.

        Raises ImageError for an unknown handle, a path outside the allowed folders, a missing file, an URL, or
        anything that is not an image within the limits.
        """
        reference = reference.strip()
        if not reference:
            raise ImageError("the image argument is empty: give a handle, a file's path or a data URI")
        if reference.startswith("image://"):
            reference = reference.removeprefix("image://")
        if HANDLE.match(reference):
            return reference, self.get(reference)
        if reference[:5].lower() == "data:":
            photo = decode(_data_uri(reference), "the data URI")
            return self.put(photo), photo
        if re.match(r"[a-zA-Z][a-zA-Z0-9+.-]*://", reference):
            if self.fetcher is None:
                raise ImageError(
                    f"{short(reference)}: URLs are not fetched; give a handle, a file's path or a data URI"
                )
            photo = decode(self.fetcher.fetch(reference), "the image at this URL")
            return self.put(photo), photo
        return self._from_file(reference)

    def allowed_path(self, reference: str) -> Path:
        """The real path that ``reference`` names. Raises ImageError as ``paths.allowed_path`` does."""
        return allowed_path(reference, self.allowed, self.home)

    def _from_file(self, reference: str) -> tuple[str, Photo]:
        if LIKE_HANDLE.match(reference) and not any(os.path.exists(folder / reference) for folder in self.allowed):
            raise no_handle(reference)
        path = self.allowed_path(reference)
        key = file_key(path, reference)
        with self._lock:
            handle = self._paths.get(key)
        if handle and self._use(handle):
            return handle, self.get(handle)
        try:
            data = path.read_bytes()
        except OSError as error:
            raise unreadable(reference, error) from None
        photo = decode(data, path.name)
        handle = self.put(photo)
        with self._lock:
            self._paths[key] = handle
        return handle, photo

    def _use(self, handle: str) -> bool:
        """Note that this session uses an image, and whether its file is there."""
        path = self.path(handle)
        with suppress(OSError):  # a store that cannot be written is not cleaned either
            if self._lease is None:
                self._lease = Lease(self.home, self.keep)
            if self._lease.note(handle):
                os.utime(path)
        return path.exists()

    def _make_room(self, written: int) -> None:
        """Clean the store once at first, then whenever a sixteenth of its limit was written."""
        with self._lock:
            self._written += written
            due = self.limit is not None and (not self._cleaned or self._written > self.limit / 16)
            if due:
                self._cleaned, self._written = True, 0
        if due and self.limit is not None:
            try:
                clean(self.home, self.limit)
            except OSError as error:
                logger.warning("the image store cannot be cleaned (%s): check %s", error.strerror, self.home)

    def _secret(self) -> bytes:
        """The store's key, made once; all servers on the machine read the same file."""
        if self._key:
            return self._key
        path = self.home / ".key"
        try:
            if not path.exists():
                self.home.mkdir(parents=True, exist_ok=True)
                temporary = path.with_name(f".key.{os.getpid()}.{secrets.token_hex(4)}")
                descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
                with os.fdopen(descriptor, "wb") as stream:
                    stream.write(secrets.token_bytes(32))
                try:
                    os.link(temporary, path)
                except FileExistsError:
                    pass  # another server was first; its key counts
                finally:
                    temporary.unlink()
            key = path.read_bytes()
        except OSError as error:
            raise self._unwritable(error) from error
        if len(key) < SHORTEST_KEY:  # with it anybody could work out handles
            raise ImageError(f"the key of the image store is damaged: remove {path}, and a new one is made")
        self._key = key
        return key

    def _write(self, path: Path, data: bytes) -> None:
        temporary = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}.tmp")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_bytes(data)
            os.replace(temporary, path)
        except OSError as error:
            raise self._unwritable(error) from error

    def _unwritable(self, error: OSError) -> ImageError:
        return ImageError(
            f"the image store cannot be written ({error.strerror}): set ANOMALY_AGENT_HOME to a writable folder"
        )

    def _remember(self, handle: str, photo: Photo) -> None:
        with self._lock:
            self._photos[handle] = photo
            self._photos.move_to_end(handle)
            while len(self._photos) > 1 and sum(p.pixels.nbytes for p in self._photos.values()) > CACHE_BYTES:
                self._photos.popitem(last=False)


def no_handle(text: str) -> ImageError:
    """The refusal of what is written like a handle and is none."""
    return ImageError(f"{short(text)} is not an image handle: use one that a tool returned (img_...)")


def same_scale_views(normal: Photo, anomaly: Photo) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """8-bit RGB views of two images of the same size, 16-bit ones on one common scale.

    Raises ImageError where the sizes differ.
    """
    if (normal.width, normal.height) != (anomaly.width, anomaly.height):
        raise ImageError(
            f"the images differ in size ({normal.width}x{normal.height} and {anomaly.width}x{anomaly.height}): "
            "compare an edited image with the very photo it was made from"
        )
    if normal.pixels.dtype != anomaly.pixels.dtype:
        return normal.view(), anomaly.view()
    scale = max(normal.full_scale, anomaly.full_scale)
    return normal.view(scale), anomaly.view(scale)


def _data_uri(reference: str) -> bytes:
    header, comma, payload = reference.partition(",")
    if not comma or not header.lower().endswith(";base64"):
        raise ImageError("the data URI is not of the form data:image/png;base64,...: encode the file in base64")
    try:
        return base64.b64decode("".join(payload.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise ImageError("the data URI's base64 is damaged: encode the file again") from error
