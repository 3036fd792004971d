"""``python -m evaluation masks``, ``judge`` and ``fit`` end to end on a data set made on the spot."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from evaluation.__main__ import main
from evaluation.broken import KINDS, break_photo, find_object
from evaluation.conditions import CONDITIONS, edit, moved
from evaluation.data import Image, Mask
from evaluation.judge import twin_of
from evaluation.pairs import Choice, paint_over, real_pairs, seeded
from mcp_servers.quality_eval.statistics.features import measure as statistics_of
from mcp_servers.quality_eval.statistics.regression import share
from mcp_servers.quality_eval.statistics.weights import LOOK, PLACE
from tests.conftest import make_photo


def save(path: Path, picture: Image | Mask) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    bgr = picture.astype(np.uint8) * 255 if picture.ndim == 2 else picture[:, :, ::-1]
    assert cv2.imwrite(str(path), bgr)


def stained(photo: Image, seed: int) -> tuple[Image, Mask]:
    """A dark spot that keeps the surface's texture, and its mask."""
    height, width = photo.shape[:2]
    x, y = (int(v) for v in np.random.default_rng(seed).integers((50, 40), (width - 50, height - 40)))
    ys, xs = np.mgrid[0:height, 0:width]
    wobble = 1 + 0.2 * np.cos(3 * np.arctan2(ys - y, xs - x) + seed)
    alpha = np.clip((9 * wobble - np.hypot(xs - x, ys - y)) / 2 + 0.5, 0, 1)
    return np.clip(photo * (1 - 0.6 * alpha[..., None]), 0, 255).astype(np.uint8), np.asarray(alpha > 0.3)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A category ``plate`` of two good photos and four stained ones, and a second one to paste from."""
    folder = tmp_path_factory.mktemp("data")
    for name, first in (("plate", 0), ("tile", 50)):
        for number in range(4):
            image, mask = stained(make_photo(seed=first + number), number)
            save(folder / name / "test" / "stain" / f"{number}.png", image)
            save(folder / name / "ground_truth" / "stain" / f"{number}_mask.png", mask)
            if number < 2:
                save(folder / name / "test" / "good" / f"{number}.png", make_photo(seed=first + 10 + number))
    return folder


def result(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict:  # type: ignore[type-arg]
    assert main(list(arguments)) == 0
    found: dict = json.loads(capsys.readouterr().out)  # type: ignore[type-arg]
    return found


def test_masks_are_measured_under_every_condition(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib", reason="the plot needs matplotlib: pip install 'anomaly-agent[evaluation]'")
    out = tmp_path / "out"
    common = ["masks", "--data", str(data), "--category", "plate", "--half", "even", "--json"]
    summary = result(capsys, *common, "--out", str(out))
    assert list(summary["conditions"]) == ["exact", "recolour", "drift"]
    for methods in summary["conditions"].values():
        assert list(methods) == ["ours", "gray_otsu", "ssim_otsu"]
        assert methods["ours"]["iou"] >= methods["gray_otsu"]["iou"]
        assert all(0 <= value <= 1 for figures in methods.values() for value in figures.values())
    assert summary["conditions"]["exact"]["ours"]["iou"] > 0.85
    assert summary["conditions"]["drift"]["ours"]["iou"] > 0.5
    assert summary["defect_free"] == {"false_area": 0, "said_nothing": 1}
    assert summary["seconds_per_image"] > 0
    assert summary["categories"]["plate"]["pairs"] == 2
    assert {path.name for path in out.iterdir()} == {"masks.json", "masks.md", "masks.png", "masks-plate.png"}
    assert json.loads((out / "masks.json").read_text()) == summary
    again = result(capsys, *common)
    assert again["conditions"] == summary["conditions"]


def test_the_judge_is_measured_against_every_kind_of_broken_edit(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib", reason="the plot needs matplotlib: pip install 'anomaly-agent[evaluation]'")
    out = tmp_path / "out"
    common = ["judge", "--data", str(data), "--category", "plate", "--limit", "2", "--json"]
    summary = result(capsys, *common, "--out", str(out))
    assert set(summary["by_kind"]) == {
        "off_object", "floating", "flat_rectangle", "huge", "invisible",
        "hard_paste", "noise_patch", "recoloured", "nothing",
    }  # fmt: skip
    assert all(value is not None for value in summary["by_kind"].values())
    assert summary["auc"] > 0.9
    assert summary["real_pass"] == 1
    assert summary["broken_pass"] < 0.2
    assert summary["categories"]["plate"]["real"] == 2
    assert summary["limit"] == 2
    assert {path.name for path in out.iterdir()} == {"judge.json", "judge.md", "judge.png", "judge-plate.png"}
    assert result(capsys, *common)["by_kind"] == summary["by_kind"]


def test_the_other_judge_is_measured_too_and_painting_over_does_not_help_it(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    common = ["judge", "--data", str(data), "--category", "plate", "--limit", "2", "--json", "--judge", "statistics"]
    plain, painted = result(capsys, *common), result(capsys, *common, "--paint-broken")
    assert plain["judge"] == "statistics"
    assert plain["auc"] > 0.8
    assert painted["auc"] > plain["auc"] - 0.1
    pair = next(real_pairs(data / "plate", Choice(limit=1)))
    broken = pair.normal.copy()
    broken[10:30, 20:50] = 0
    good = twin_of(pair.normal, broken)  # what --paint-broken compares with: painted over there and nowhere else
    assert np.array_equal(good != broken, (good != broken) & (pair.normal != broken))
    assert good[10:30, 20:50].min() > 20
    assert not np.array_equal(good, pair.normal)
    assert plain["by_kind"]["nothing"] == painted["by_kind"]["nothing"] == 1


def test_the_other_judge_is_fitted_by_a_command_that_gives_the_same_module_each_time(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    common = ["fit", "--data", str(data), "--limit", "2"]
    for name in ("one.py", "two.py"):
        assert main([*common, "--out", str(tmp_path / name)]) == 0
        assert "fitted to 4 real defects and " in capsys.readouterr().out
    text = (tmp_path / "one.py").read_text()
    assert text == (tmp_path / "two.py").read_text()
    written: dict[str, Any] = {}
    exec(text, written)
    assert set(written["PLACE"].terms) == set(PLACE.terms)
    assert set(written["LOOK"].terms) == set(LOOK.terms)
    pair = next(real_pairs(data / "plate", Choice(limit=1)))
    figures = statistics_of(pair.normal, pair.anomaly)
    assert figures.place
    assert share(written["PLACE"].log_odds(figures.place)) > 0.5
    assert main([*common, "--out", str(tmp_path / "none" / "x.py")]) == 2
    assert "cannot be written to" in capsys.readouterr().err


def test_without_json_both_print_a_table(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("masks", "judge"):
        assert main([command, "--data", str(data), "--category", "tile", "--limit", "1", "--dilate", "2"]) == 0
        printed = capsys.readouterr()
        assert "| tile |" in printed.out
        assert "Photos: all of the first 1 of each kind;" in printed.out
        assert "tile: " in printed.err


@pytest.mark.parametrize("command", ["masks", "judge"])
@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--data", "nowhere"], "nowhere is no folder"),
        (["--category", "cable"], "no masks of 'cable': choose from plate, tile"),
        (["--limit", "-1"], "--limit -1 is too small"),
        (["--limit", "1", "--half", "odd"], "holds no defect to choose"),
    ],
)
def test_errors_are_one_line_that_names_the_cure(
    data: Path, capsys: pytest.CaptureFixture[str], command: str, arguments: list[str], complaint: str
) -> None:
    assert main([command, "--data", str(data), *arguments]) == 2
    error = capsys.readouterr().err
    assert complaint in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("command", ["masks", "judge"])
def test_a_mask_that_is_empty_or_full_is_refused_by_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    mask = tmp_path / "plate" / "ground_truth" / "stain" / "0_mask.png"
    save(tmp_path / "plate" / "test" / "stain" / "0.png", make_photo())
    for drawn, complaint in ((False, "has an empty mask: remove the photo"), (True, "covers the whole photo")):
        save(mask, np.full(make_photo().shape[:2], drawn))
        assert main([command, "--data", str(tmp_path)]) == 2
        assert f"{mask} {complaint}" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["masks", "judge"])
def test_a_place_that_cannot_be_written_to_is_refused_at_the_start(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    pytest.importorskip("matplotlib", reason="without it --out is refused for that")
    file = tmp_path / "notes.txt"
    file.write_text("mine")
    assert main([command, "--data", str(data), "--out", str(file)]) == 2
    assert capsys.readouterr().err == f"error: --out {file} is a file: name another folder\n"


def test_the_photos_that_were_chosen_are_told_in_words() -> None:
    assert str(Choice("all", 20)) == "all of the first 20 of each kind"
    assert str(Choice("odd", 0)) == "every second of each kind (odd)"


def test_a_category_named_as_data_is_refused_with_its_parent(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["masks", "--data", str(data / "plate")]) == 2
    assert f"did you mean its parent, {data}?" in capsys.readouterr().err


def test_a_folder_without_masks_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save(tmp_path / "plate" / "test" / "good" / "0.png", make_photo())
    assert main(["masks", "--data", str(tmp_path)]) == 2
    assert "holds no masks" in capsys.readouterr().err


def test_a_painted_over_twin_differs_only_inside_the_mask() -> None:
    image, mask = stained(make_photo(), 3)
    twin = paint_over(image, mask)
    changed = (twin != image).any(axis=2)
    assert not (changed & ~mask).any()
    assert changed.sum() > 0.9 * mask.sum()


def test_the_mask_moves_with_the_photo() -> None:
    photo = np.full((120, 160, 3), 60, np.uint8)
    photo[50:70, 60:90] = 200
    for condition in CONDITIONS:
        edited, move = edit(photo, condition, seeded("test", condition))
        truth = moved(np.asarray(photo[..., 0] > 100), move)
        assert np.count_nonzero(truth ^ (edited[..., 1] > 128)) < 40
        assert (condition == "exact") == bool((edited == photo).all())


def test_the_object_is_found_and_a_texture_is_left_whole() -> None:
    plate = make_photo()
    inside = np.zeros(plate.shape[:2], bool)
    inside[16:112, 20:140] = True
    assert np.count_nonzero(find_object(plate) ^ inside) < 0.08 * inside.sum()
    assert find_object(plate[30:100, 40:120]).all()


def test_broken_edits_are_what_they_say() -> None:
    plate = make_photo()
    part = find_object(plate)
    broken = {kind: break_photo(kind, plate, part, make_photo(seed=9), seeded(kind)) for kind in KINDS}
    changed = {kind: (photo != plate).any(axis=2) for kind, photo in broken.items() if photo is not None}
    assert set(changed) == set(KINDS)
    assert not (changed["off_object"] & part).any()
    assert (changed["floating"] & part).any()
    assert (changed["floating"] & ~part).any()
    assert changed["huge"].sum() > 0.4 * part.sum()
    assert changed["recoloured"].mean() > 0.9
    assert not changed["nothing"].any()
    assert break_photo("off_object", plate, np.ones_like(part), plate, seeded("x")) is None
