"""The speed benchmark through its command, on two small photos."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import cv2

from tests.conftest import ROOT, make_photo


def run(*options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks.speed", *options]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)


def test_every_generator_is_timed_on_the_same_photos(tmp_path: Path) -> None:
    good = tmp_path / "metal_plate" / "train" / "good"
    good.mkdir(parents=True)
    for number in range(2):
        cv2.imwrite(str(good / f"{number}.png"), make_photo(160, 160, number))
    done = run("--data", str(tmp_path), "--sizes", "96", "--samples", "2", "--loop-samples", "0")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    measured = report["sizes"]["96"]
    assert {"local", "cutpaste", "draem", "nsa"} <= set(measured)
    assert ("defect-synthesis" in measured) != ("not_measured" in report)
    for name in ("local", "cutpaste", "draem", "nsa"):
        assert measured[name]["generation"]["samples_per_cpu_second"] > 0
        assert measured[name]["accepted"]["made"].endswith(" of 2")


def test_a_folder_without_photos_is_refused_in_words(tmp_path: Path) -> None:
    done = run("--data", str(tmp_path), "--samples", "1")
    assert done.returncode == 2
    assert "holds no photo" in done.stderr
