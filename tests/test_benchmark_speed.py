"""The benchmarks through their commands, on a few small photos."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest

from benchmarks import contact_sheet
from mcp_servers.errors import RegionError
from tests.conftest import ROOT, make_photo


def run(*options: str, name: str = "speed") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", f"benchmarks.{name}", *options]
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


def plate(folder: Path, kind: str) -> Path:
    """A category ``metal_plate`` of two good photos and two defects of a kind."""
    for number in range(2):
        mask = np.zeros((160, 160), np.uint8)
        mask[60:90, 70:90] = 255
        files = {"train/good": make_photo(160, 160, number), "test/good": make_photo(160, 160, 5 + number)}
        files |= {f"test/{kind}": make_photo(160, 160, 9 + number), f"ground_truth/{kind}": mask}
        for place, picture in files.items():
            (folder / "metal_plate" / place).mkdir(parents=True, exist_ok=True)
            ending = "_mask" if place.startswith("ground_truth") else ""
            cv2.imwrite(str(folder / "metal_plate" / place / f"{number}{ending}.png"), picture)
    return folder


def test_a_sheet_shows_the_usual_defects_beside_real_ones_of_a_kind_that_names_none(tmp_path: Path) -> None:
    data, out = plate(tmp_path / "data", "bad"), tmp_path / "sheets"
    done = run("--data", str(data), "--out", str(out), "--count", "3", name="contact_sheet")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["sheet"] == str(out / "metal_plate.png")
    assert {path.name for path in out.iterdir()} == {"metal_plate.png", "metal_plate_real.png"}


def test_samples_that_no_photo_can_carry_are_counted_with_the_reason(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_: object) -> None:
        raise RegionError("no room for it")

    monkeypatch.setattr(contact_sheet, "render", refuse)
    refused: Counter[str] = Counter()
    assert list(contact_sheet.samples([make_photo()], "metal plate", ["scratch"] * 2, 0, refused)) == []
    assert refused == {"scratch: no room for it": 2}


@pytest.mark.parametrize(
    ("name", "options", "complaint"),
    [
        ("closed_loop", ["--skip", "2"], "--skip 2 leaves no photo of a category: 0 to 1"),
        ("closed_loop", ["--category", "cable"], "holds no photo in CATEGORY/train/good"),
        ("contact_sheet", ["--category", "cable", "--out", "sheets"], "holds no category 'cable'"),
    ],
)
def test_options_that_leave_nothing_are_refused_in_words(
    tmp_path: Path, name: str, options: list[str], complaint: str
) -> None:
    done = run("--data", str(plate(tmp_path, "scratch")), *options, name=name)
    assert done.returncode == 2
    assert complaint in done.stderr
    assert "Traceback" not in done.stderr


def test_sizes_that_are_none_are_refused_in_words() -> None:
    done = run("--sizes", "200", name="end_to_end")
    assert done.returncode == 2
    assert "sizes are WIDTHxHEIGHT" in done.stderr
