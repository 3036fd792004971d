"""Shared fixtures: small textured photos, a private image store, and the real data where it is present."""

from __future__ import annotations

import faulthandler
import os
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from mcp_servers.store import Store

ROOT = Path(__file__).resolve().parent.parent
os.environ.setdefault("OMP_NUM_THREADS", "1")
LEAVING_SECONDS = 120


def pytest_unconfigure(config: pytest.Config) -> None:
    """A thread that keeps the interpreter from ending is shown and the run fails, instead of lasting for ever.

    One of pytest-xdist's workers waits here for the others, and is ended by the process that started it.
    """
    if not hasattr(config, "workerinput"):
        faulthandler.dump_traceback_later(LEAVING_SECONDS, exit=True, file=sys.__stderr__)


def make_photo(width: int = 160, height: int = 128, seed: int = 0) -> NDArray[np.uint8]:
    """A brushed grey-blue plate on a dark bench: (height, width, 3) RGB uint8."""
    rng = np.random.default_rng(seed)
    bench = np.full((height, width, 3), (38, 36, 34), np.float32)
    plate = np.full((height, width, 3), (128, 138, 150), np.float32)
    brushed = cv2.GaussianBlur(rng.normal(0, 26, (height, width)).astype(np.float32), (0, 0), sigmaX=6, sigmaY=0.6)
    plate += brushed[:, :, None] + np.linspace(14, -14, height, dtype=np.float32)[:, None, None]
    inside = np.zeros((height, width), np.float32)
    cv2.rectangle(inside, (width // 8, height // 8), (width - width // 8, height - height // 8), 1.0, -1)
    inside = cv2.GaussianBlur(inside, (0, 0), 0.8)[:, :, None]
    photo = bench * (1 - inside) + plate * inside + rng.normal(0, 1.5, (height, width, 3))
    return np.clip(np.rint(photo), 0, 255).astype(np.uint8)


@pytest.fixture
def photo() -> NDArray[np.uint8]:
    return make_photo()


@pytest.fixture
def photo_file(tmp_path: Path, photo: NDArray[np.uint8]) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    path = folder / "plate.png"
    cv2.imwrite(str(path), photo[:, :, ::-1])
    return path


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A private image store, also for servers that a test starts."""
    folder = tmp_path / "home"
    monkeypatch.setenv("ANOMALY_AGENT_HOME", str(folder))
    return folder


@pytest.fixture
def store(home: Path, tmp_path: Path) -> Store:
    return Store(home=home, allowed=[tmp_path])


@pytest.fixture
def pipe(tmp_path: Path) -> Path:
    """A named pipe: whoever opens it for reading waits until the test writes."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    return path


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real inspection photos (MVTec layout); skips where it is absent."""
    folder = Path(os.environ.get("ANOMALY_AGENT_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real photos in {folder}: set ANOMALY_AGENT_DATA to a folder in MVTec layout")
    return folder
