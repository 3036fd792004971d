"""The image store keeps its size: what was used longest ago goes, what an open session uses stays."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from mcp_servers.cleaning import GRACE, clean
from mcp_servers.images import ImageError, Photo
from mcp_servers.leases import Lease, in_use
from mcp_servers.store import Store

ROOT = Path(__file__).resolve().parent.parent
USER = """
import sys
from pathlib import Path
from mcp_servers.store import Store
store = Store(home=Path(sys.argv[1]))
store.get(sys.argv[2])
print("in use", flush=True)
sys.stdin.readline()
"""


def picture(seed: int) -> Photo:
    return Photo(np.random.default_rng(seed).integers(0, 256, (64, 64), dtype=np.uint8))


def filled(home: Path, count: int) -> list[str]:
    """Images put by a session that is over, the first one the oldest; all past the grace."""
    store = Store(home=home)
    handles = [store.put(picture(seed)) for seed in range(count)]
    for age, handle in enumerate(reversed(handles)):
        then = time.time() - GRACE - 60 - age
        os.utime(store.path(handle), (then, then))
    del store
    for file in (home / "leases").iterdir():
        file.unlink()  # as if the session's process had ended
    return handles


def kept(home: Path, handles: list[str]) -> list[bool]:
    return [Store(home=home).path(handle).exists() for handle in handles]


def size_of_one(home: Path, handle: str) -> int:
    return Store(home=home).path(handle).stat().st_size


def test_the_images_that_were_used_longest_ago_go_first(home: Path) -> None:
    handles = filled(home, 6)
    done = clean(home, int(size_of_one(home, handles[0]) * 3.5))
    assert done is not None
    assert done.images == 3
    assert kept(home, handles) == [False] * 3 + [True] * 3
    assert not list(home.glob("images/*/.*"))
    with pytest.raises(ImageError, match="no longer stored"):
        Store(home=home).get(handles[0])


def test_what_a_killed_writer_left_goes_once_it_is_old(home: Path) -> None:
    folder = Store(home=home).path(filled(home, 1)[0]).parent
    old, fresh = folder / ".img_a.png.1.2.tmp", folder / ".img_b.png.1.2.tmp"
    for file in (old, fresh):
        file.write_bytes(b"half an image")
    then = time.time() - GRACE - 60
    os.utime(old, (then, then))
    clean(home, 10**9)
    assert (old.exists(), fresh.exists()) == (False, True)


def test_what_another_living_process_uses_is_never_removed(home: Path) -> None:
    handles = filled(home, 5)
    command = [sys.executable, "-c", USER, str(home), handles[0]]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as user:
        assert user.stdout is not None
        assert user.stdin is not None
        assert user.stdout.readline() == "in use\n"
        then = time.time() - GRACE - 1000
        os.utime(Store(home=home).path(handles[0]), (then, then))
        clean(home, 1)
        assert kept(home, handles) == [True, False, False, False, False]
        user.stdin.write("\n")
    clean(home, 1)
    assert kept(home, handles)[0] is False
    assert not list((home / "leases").glob("*.txt"))


def test_a_process_that_was_killed_holds_nothing(home: Path) -> None:
    handles = filled(home, 2)
    command = [sys.executable, "-c", USER, str(home), handles[0]]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as user:
        assert user.stdout is not None
        user.stdout.readline()
        assert in_use(home) == {handles[0]}
        user.kill()
    assert in_use(home) == set()


def test_a_lasting_server_holds_an_image_for_as_long_as_it_keeps_it(home: Path) -> None:
    long, short = Lease(home, keep=3600), Lease(home, keep=0)
    long.note("img_a")
    short.note("img_b")
    assert in_use(home) == {"img_a"}


def test_images_used_within_the_grace_stay_whoever_used_them(home: Path) -> None:
    handles = filled(home, 3)
    os.utime(Store(home=home).path(handles[1]))
    clean(home, 1)
    assert kept(home, handles) == [False, True, False]


def test_a_store_over_its_limit_cleans_itself_when_an_image_is_put(home: Path) -> None:
    handles = filled(home, 6)
    store = Store(home=home, limit=int(size_of_one(home, handles[0]) * 3.5))
    fresh = store.put(picture(99))
    assert store.path(fresh).exists()
    assert kept(home, handles).count(True) == 2


def test_an_image_that_was_removed_is_stored_again_when_it_is_made_again(home: Path) -> None:
    store = Store(home=home)
    handle = store.put(picture(1))
    store.path(handle).unlink()
    assert store.put(picture(1)) == handle
    assert store.path(handle).exists()
