"""Which files a caller may name: those in the allowed folders and in the store, after symbolic links are resolved."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path

from mcp_servers.images import MAX_BYTES, ImageError

MAX_PATH = 4096
SHOWN = 120
"""Characters of a caller's words that a message repeats."""


def named_folders(allow: Sequence[str], environ: Mapping[str, str]) -> list[str]:
    """The folders of ``--allow``, else those of ``ANOMALY_AGENT_ALLOW``, as they were written."""
    return list(allow) or [part for part in environ.get("ANOMALY_AGENT_ALLOW", "").split(os.pathsep) if part]


def allowed_path(reference: str, allowed: Sequence[Path], home: Path) -> Path:
    """The real path of an existing file or folder that ``reference`` names.

    Relative paths are looked up in the allowed folders in order. Raises ImageError for what lies outside of them and
    of the store, or does not exist.
    """
    if "\0" in reference or len(reference) > MAX_PATH:
        raise ImageError("the image argument is not a usable path: give a handle, a file's path or a data URI")
    inside = None
    try:
        given = Path(reference).expanduser() if reference.startswith("~") else Path(reference)
        candidates = [given] if given.is_absolute() else [folder / given for folder in allowed]
        roots = [folder.resolve() for folder in (*allowed, home)]
        for candidate in candidates:
            real = candidate.resolve()
            if any(real.is_relative_to(root) for root in roots) and real.name != ".key":
                if real.exists():
                    return real
                inside = inside or real
    except (OSError, RuntimeError, ValueError) as error:
        raise ImageError(f"{short(reference)} is not a usable path: check it") from error
    if inside is not None:
        raise ImageError(f"{short(reference)} does not exist: check the path (or start the server with --allow)")
    raise ImageError(
        f"{short(reference)} is outside the folders this server may read: start it with --allow FOLDER, "
        "or pass a handle or a data URI"
    )


def file_key(path: Path, reference: str) -> tuple[str, int, int]:
    """What identifies a file's content: path, time of change, size. Raises ImageError for what is no readable file."""
    try:
        status = path.stat()
    except OSError as error:
        raise unreadable(reference, error) from None
    if stat.S_ISDIR(status.st_mode):
        raise ImageError(f"{short(reference)} is a folder: give an image file")
    if not stat.S_ISREG(status.st_mode):  # a pipe or a device would be waited for
        raise ImageError(f"{short(reference)} is not a regular file: give an image file")
    if status.st_size > MAX_BYTES:
        raise ImageError(f"{path.name} is larger than {MAX_BYTES >> 20} MiB: give a smaller file")
    return str(path), status.st_mtime_ns, status.st_size


def unreadable(reference: str, error: OSError) -> ImageError:
    """The refusal of a file that the system does not let us read."""
    if isinstance(error, FileNotFoundError):
        return ImageError(f"{short(reference)} does not exist: check the path")
    return ImageError(f"{short(reference)} cannot be read ({error.strerror}): check its rights")


def short(text: str) -> str:
    """A caller's words as a message repeats them: in printable characters, cut short."""
    text = "".join(c if c.isprintable() else "?" for c in text)
    return text if len(text) <= SHOWN else text[: SHOWN - 3] + "..."
