"""The command as a user types it: what it writes, what it says, and how it fails."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image as PILImage

from agent.run import main
from agent.session import SessionWriter, read_session

from .conftest import make_photo

ROOT = Path(__file__).resolve().parent.parent
FILES = {"original.png", "anomaly.png", "mask.png", "overlay.png", "result.json", "report.html", "session"}
RESULT_KEYS = (
    "task stop_reason score location_score quality_score images mask turns seconds cost_usd policy backends seed files"
)


def run(*arguments: str | Path, cwd: Path | None = None, **env: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "agent.run", *map(str, arguments)]
    environ = os.environ | {"PYTHONPATH": str(ROOT)} | env
    return subprocess.run(command, cwd=cwd or ROOT, capture_output=True, text=True, timeout=120, env=environ)


def result_of(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert done.returncode == 0, done.stderr
    payload = json.loads(done.stdout)
    assert isinstance(payload, dict)
    return payload


def pixels(path: Path) -> np.ndarray:
    return np.asarray(PILImage.open(path))


def test_one_command_makes_the_whole_folder(home: Path, photo_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = run(photo_file, "--item", "metal plate", "--anomaly", "scratch", "--out", out, "--json")
    result = result_of(done)
    assert {path.name for path in out.iterdir()} == FILES
    assert json.loads((out / "result.json").read_text()) == result
    assert set(RESULT_KEYS.split()) <= set(result)
    assert result["stop_reason"] == "answered"
    assert result["cost_usd"] == 0
    assert result["task"]["item_name"] == "metal plate"
    assert [image["index"] for image in result["images"]] == list(range(2, 2 + len(result["images"])))
    assert all(image["prompt"].startswith("Using the provided image, change only") for image in result["images"])
    original, anomaly, mask = (pixels(out / f"{name}.png") for name in ("original", "anomaly", "mask"))
    assert np.array_equal(original, make_photo())
    assert original.shape == anomaly.shape
    assert (mask > 0).mean() == pytest.approx(result["mask"]["area_fraction"], abs=1e-5)
    changed = (original != anomaly).any(axis=2)
    assert changed[mask > 0].mean() > 0.8
    assert read_session(out).complete
    assert "image_gen" in done.stderr


def test_the_same_seed_gives_the_same_files_to_the_byte(home: Path, photo_file: Path, tmp_path: Path) -> None:
    for name, seed, store in (("a", 3, "one"), ("b", 3, "two"), ("c", 4, "one")):
        run(photo_file, "--item", "plate", "--anomaly", "scratch", "--out", tmp_path / name, "--seed", str(seed),
            ANOMALY_AGENT_HOME=str(tmp_path / store))  # fmt: skip
    for file in ("original.png", "anomaly.png", "mask.png", "overlay.png"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes(), file
    assert (tmp_path / "a" / "anomaly.png").read_bytes() != (tmp_path / "c" / "anomaly.png").read_bytes()

    def told(name: str) -> list[tuple[str, str]]:
        return [(event["role"], event["content"]) for event in read_session(tmp_path / name).of_type("message")]

    assert told("a") == told("b")


def test_the_demo_needs_no_input(home: Path, tmp_path: Path) -> None:
    done = run("--demo", "--out", tmp_path / "demo")
    assert done.returncode == 0, done.stderr
    assert {path.name for path in (tmp_path / "demo").iterdir()} == FILES
    assert "scratch on flange" in done.stdout


def test_a_sixteen_bit_photo_comes_back_with_sixteen_bits(home: Path, tmp_path: Path) -> None:
    deep = make_photo()[:, :, 0].astype(np.uint16) * 16
    cv2.imwrite(str(tmp_path / "deep.png"), deep)
    result_of(run(tmp_path / "deep.png", "--item", "plate", "--anomaly", "scratch", "--out", tmp_path / "o", "--json"))
    anomaly = cv2.imread(str(tmp_path / "o" / "anomaly.png"), cv2.IMREAD_UNCHANGED)
    mask = cv2.imread(str(tmp_path / "o" / "mask.png"), cv2.IMREAD_UNCHANGED)
    assert anomaly.dtype == np.uint16
    assert anomaly.shape == deep.shape == mask.shape
    assert np.array_equal(cv2.imread(str(tmp_path / "o" / "original.png"), cv2.IMREAD_UNCHANGED), deep)


def test_a_region_of_interest_is_kept(home: Path, photo_file: Path, tmp_path: Path) -> None:
    roi = np.zeros((128, 160), np.uint8)
    roi[40:90, 30:90] = 255
    cv2.imwrite(str(photo_file.parent / "roi.png"), roi)
    for name, region in (("box", "30,40,60,50"), ("mask", str(photo_file.parent / "roi.png"))):
        out = tmp_path / name
        result_of(run(photo_file, "--item", "plate", "--anomaly", "scratch", "--roi", region, "--out", out, "--json"))
        changed = (pixels(out / "original.png") != pixels(out / "anomaly.png")).any(axis=2)
        assert changed.any()
        assert not changed[roi == 0].any()


def test_an_unknown_item_works_from_general_knowledge_and_says_so(home: Path, photo_file: Path, tmp_path: Path) -> None:
    done = run(photo_file, "--item", "flux capacitor", "--anomaly", "scratch", "--out", tmp_path / "o", "--json")
    assert result_of(done)["mask"]
    prompt = read_session(tmp_path / "o").of_type("tool_result")[0]["payload"]
    assert prompt["known"] is False
    assert prompt["note"] in result_of(done)["notes"]
    assert "flux capacitor" in prompt["note"]
    assert f"note: {prompt['note']}" in done.stderr


def test_an_unknown_anomaly_type_is_refused_with_the_cure(home: Path, photo_file: Path, tmp_path: Path) -> None:
    done = run(photo_file, "--item", "bottle", "--anomaly", "sadness", "--out", tmp_path / "o", "--json")
    assert done.returncode == 1
    error = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert len(error) == 1
    assert "sadness" in error[0]
    assert "contamination" in error[0]
    assert json.loads(done.stdout)["stop_reason"] == "tool_error"
    assert (tmp_path / "o" / "original.png").exists()
    assert (tmp_path / "o" / "report.html").exists()


def bad_file(folder: Path, kind: str) -> Path:
    import struct
    import zlib

    path = folder / f"{kind}.png"
    whole = cv2.imencode(".png", make_photo())[1].tobytes()
    header = b"IHDR" + struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0)
    contents = {
        "empty": b"",
        "truncated": whole[: len(whole) // 2],
        "text": b"this is no image",
        "pixel": cv2.imencode(".png", np.zeros((1, 1, 3), np.uint8))[1].tobytes(),
        "bomb": whole[:8] + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header)) + whole[33:],
    }
    path.write_bytes(contents[kind])
    return path


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("empty", "is empty"),
        ("truncated", "damaged or cut off"),
        ("text", "not an image"),
        ("pixel", "at least 32 pixels"),
        ("bomb", "megapixels"),
    ],
)
def test_a_file_that_is_no_usable_photo_is_refused_in_one_line(
    home: Path, tmp_path: Path, kind: str, says: str
) -> None:
    path = bad_file(tmp_path, kind)
    arguments = [path, "--item", "plate", "--anomaly", "scratch", "--out", tmp_path / "o"]
    done = run(*arguments)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("error:")
    assert says in done.stderr
    assert read_session(tmp_path / "o").complete
    path.write_bytes(cv2.imencode(".png", make_photo())[1].tobytes())
    assert run(*arguments).returncode == 0, "the same command works once the file is mended"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "--demo"),
        (
            ["--demo", "--editor", "openai", "--editor-base-url", "http://u:pw@h/v1"],
            "put the key into ANOMALY_AGENT_EDITOR",
        ),
        (["missing.png", "--item", "a", "--anomaly", "b"], "does not exist"),
        ([".", "--item", "a", "--anomaly", "b"], "is a folder"),
        (["README.md", "--anomaly", "b"], "--item is missing"),
        (["README.md", "--item", "a", "--anomaly", " "], "--anomaly is missing"),
        (["README.md", "--item", "a", "--anomaly", "b", "--threshold", "11"], "choose 0 to 10"),
        (["README.md", "--item", "a", "--anomaly", "b", "--threshold", "nan"], "choose 0 to 10"),
        (["README.md", "--item", "a", "--anomaly", "b", "--seed", "-1"], "out of range"),
        (["README.md", "--item", "a", "--anomaly", "b", "--max-images", "0"], "choose 1 to 20"),
        (["README.md", "--item", "a", "--anomaly", "b", "--call-timeout", "nan"], "seconds above 0"),
        (["README.md", "--item", "a", "--anomaly", "b", "--out", "/proc/nowhere"], "choose another --out"),
        (["README.md", "--item", "a", "--anomaly", "b", "--out", "README.md"], "choose another --out"),
        (["README.md", "--item", "a", "--anomaly", "b", "--seed", "abc"], "invalid int value"),
        (["README.md", "--item", "a", "--anomaly", "b", "--colour", "red"], "unrecognized arguments"),
        (["--demo", "--item", "bottle"], "leave out the photo and --item"),
    ],
)
def test_unusable_options_exit_with_2_and_one_line(home: Path, arguments: list[str], says: str) -> None:
    done = run(*arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    assert says in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize("region", ["500,500,20,20", "0,0,0,0", "1,2", "nosuchmask.png"])
def test_an_unusable_region_is_refused_in_one_line(home: Path, photo_file: Path, tmp_path: Path, region: str) -> None:
    done = run(photo_file, "--item", "plate", "--anomaly", "scratch", "--roi", region, "--out", tmp_path / "o")
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("error: --roi")
    assert not (tmp_path / "o").exists()


def test_a_folder_that_holds_a_run_is_not_written_over_unless_asked(
    home: Path, photo_file: Path, tmp_path: Path
) -> None:
    arguments = [photo_file, "--item", "plate", "--anomaly", "scratch", "--out", tmp_path / "o"]
    (tmp_path / "o").mkdir()
    (tmp_path / "o" / "notes.txt").write_text("mine")
    assert run(*arguments).returncode == 0
    again = run(*arguments)
    assert again.returncode == 2
    assert "--overwrite" in again.stderr
    assert run(*arguments, "--overwrite").returncode == 0
    assert (tmp_path / "o" / "notes.txt").read_text() == "mine"


def test_a_killed_run_leaves_a_log_that_reads_back_and_a_report(home: Path, photo_file: Path, tmp_path: Path) -> None:
    server = f"{sys.executable} {ROOT / 'tests/servers/faulty.py'} hangs {photo_file.parent}"
    command = [sys.executable, "-m", "agent.run", str(photo_file), "--item", "plate", "--anomaly", "scratch"]
    process = subprocess.Popen(
        [*command, "--out", str(tmp_path / "o"), "--server", server],
        cwd=ROOT, stderr=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert process.stderr is not None
    for line in process.stderr:
        if "image_gen" in line:
            break
    process.send_signal(signal.SIGKILL)
    process.wait()
    with open(tmp_path / "o" / "session" / "session.jsonl", "ab") as log:
        log.write(b'{"v": 1, "seq": 99, "type": "mess')
    session = read_session(tmp_path / "o")
    assert not session.complete
    assert session.torn
    assert session.of_type("tool_result")[0]["tool"] == "prompt_gen"
    report = subprocess.run(
        [sys.executable, "-m", "agent.report", str(tmp_path / "o")], cwd=ROOT, capture_output=True, text=True
    )
    assert report.returncode == 0, report.stderr
    assert "ncomplete" in (tmp_path / "o" / "report.html").read_text()


def test_an_interrupted_run_is_recorded_and_what_was_made_is_kept(home: Path, photo_file: Path, tmp_path: Path) -> None:
    server = f"{sys.executable} {ROOT / 'tests/servers/faulty.py'} hangs {photo_file.parent}"
    command = [sys.executable, "-m", "agent.run", str(photo_file), "--item", "plate", "--anomaly", "scratch"]
    process = subprocess.Popen(
        [*command, "--out", str(tmp_path / "o"), "--server", server],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert process.stderr is not None
    for line in process.stderr:
        if "image_gen" in line:
            break
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in errors
    assert "interrupted" in errors
    assert json.loads((tmp_path / "o" / "result.json").read_text())["stop_reason"] == "cancelled"
    assert read_session(tmp_path / "o").complete
    assert (tmp_path / "o" / "original.png").exists()


def test_a_disk_that_fills_up_ends_in_one_line_with_the_session_kept(
    home: Path, photo_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    flush = SessionWriter._flush

    def full(self: SessionWriter) -> None:
        if any(b'"tool_result"' in line for line in self._lines) and not refused:
            refused.append(self._lines)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        flush(self)

    refused: list[Any] = []
    monkeypatch.setattr(SessionWriter, "_flush", full)
    before = signal.getsignal(signal.SIGTERM)
    code = main([str(photo_file), "--item", "plate", "--anomaly", "scratch", "--out", str(tmp_path / "o")])
    assert code == 1
    assert signal.getsignal(signal.SIGTERM) == before, "a program that calls the command keeps its own handlers"
    assert capsys.readouterr().err.splitlines()[-1].startswith("error:")
    assert not read_session(tmp_path / "o").complete


def test_a_photo_is_never_written_over_by_its_own_run(home: Path, tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "original.png"), make_photo())
    before = (tmp_path / "original.png").read_bytes()
    done = run(tmp_path / "original.png", "--item", "plate", "--anomaly", "scratch", "--out", tmp_path)
    assert done.returncode == 2
    assert "written over" in done.stderr
    assert (tmp_path / "original.png").read_bytes() == before


def test_options_come_from_the_command_line_then_the_environment_then_the_file(
    home: Path, photo_file: Path, tmp_path: Path
) -> None:
    (tmp_path / "anomaly-agent.toml").write_text(
        '[run]\nitem = "plate"\nanomaly = "scratch"\nseed = 7\nthreshold = 1\n'
    )
    result = result_of(
        run(photo_file, "--out", "o", "--json", "--seed", "9", cwd=tmp_path, ANOMALY_AGENT_THRESHOLD="2")
    )
    assert (result["seed"], result["task"]["threshold"], result["task"]["item_name"]) == (9, 2.0, "plate")
    (tmp_path / "anomaly-agent.toml").write_text("[run]\nsede = 7\n")
    done = run(photo_file, cwd=tmp_path)
    assert done.returncode == 2
    assert "unknown key 'sede'" in done.stderr
    (tmp_path / "anomaly-agent.toml").unlink()
    done = run(photo_file, cwd=tmp_path, ANOMALY_AGENT_THRESHOLD="high")
    assert done.returncode == 2
    assert "ANOMALY_AGENT_THRESHOLD" in done.stderr


def test_a_twelve_megapixel_photo_works(home: Path, tmp_path: Path) -> None:
    large = cv2.resize(make_photo(800, 600), (4000, 3000), interpolation=cv2.INTER_CUBIC)
    cv2.imwrite(str(tmp_path / "large.jpg"), large)
    out = tmp_path / "o"
    result = result_of(run(tmp_path / "large.jpg", "--item", "plate", "--anomaly", "scratch", "--out", out, "--json"))
    assert PILImage.open(out / "anomaly.png").size == (4000, 3000)
    assert result["mask"]["area_fraction"] > 0


def test_real_photos_of_every_category_give_samples(home: Path, real_data: Path, tmp_path: Path) -> None:
    tasks = {"cookie": "crack", "magnetic_tile": "blowhole", "metal_plate": "rust", "leather_patch": "hole"}
    for category, anomaly in tasks.items():
        photo = sorted((real_data / category / "train" / "good").glob("*.png"))[2]
        out = tmp_path / category
        result = result_of(run(photo, "--item", category, "--anomaly", anomaly, "--out", out, "--json"))
        assert result["mask"]["area_fraction"] > 0, category
        assert pixels(out / "mask.png").shape[:2] == pixels(photo).shape[:2]
