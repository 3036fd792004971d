"""``python -m evaluation compare`` end to end on a data set made on the spot, and what it says when it cannot."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from evaluation.__main__ import main
from evaluation.baselines import cutpaste
from evaluation.cells import Cell
from evaluation.data import Image, Mask, load_category, shrink_mask
from evaluation.metrics import Scores
from evaluation.ours import asked_for
from evaluation.report import summarise, to_markdown
from tests.conftest import ROOT, make_photo


def save(path: Path, picture: Image | Mask) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if picture.ndim == 2:
        cv2.imwrite(str(path), picture.astype(np.uint8) * 255)
    else:
        cv2.imwrite(str(path), picture[:, :, ::-1])


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A category ``plate`` of 4 + 3 good photos and 4 scratched ones with masks."""
    folder = tmp_path / "data" / "plate"
    for number in range(4):
        save(folder / "train" / "good" / f"{number}.png", make_photo(96, 80, number))
        if number < 3:
            save(folder / "test" / "good" / f"{number}.png", make_photo(96, 80, 10 + number))
        image, mask = cutpaste.patch(make_photo(96, 80, 20 + number), np.random.default_rng(number))
        image[mask] //= 3
        save(folder / "test" / "scratch" / f"{number}.png", image)
        save(folder / "ground_truth" / "scratch" / f"{number}_mask.png", mask)
    return folder.parent


def test_halves_of_the_real_defects_do_not_overlap(data: Path) -> None:
    category = load_category(data / "plate")
    assert [len(part) for part in (category.normals, category.good, category.shown, category.held_out)] == [4, 3, 2, 2]
    assert not any((a.image == b.image).all() for a in category.shown for b in category.held_out)


def test_types_that_name_no_defect_get_the_usual_ones_of_the_material() -> None:
    assert asked_for("steel bolt", ["scratch", "bad"])[0] == "scratch"
    assert {"dent", "rust"} < set(asked_for("steel bolt", ["bad"]))
    assert asked_for("steel bolt", ["dent"]) == ["dent"]


def test_every_generator_gets_its_figures(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("torch", reason="training needs torch: pip install 'anomaly-agent[evaluation]'")
    pytest.importorskip("matplotlib", reason="the plot needs matplotlib: pip install 'anomaly-agent[evaluation]'")
    common = ["compare", "--data", str(data), "--preset", "tiny", "--pairs", "4", "--seeds", "2", "--json"]
    out, export = tmp_path / "out", tmp_path / "pairs"
    assert main([*common, "--out", str(out), "--export", str(export)]) == 0
    printed = capsys.readouterr()
    summary = json.loads(printed.out)
    plate = summary["categories"]["plate"]
    assert plate["tested_on"] == {"good": 3, "defects": 2}
    assert list(plate["generators"]) == [
        "local",
        "cutpaste",
        "draem",
        "nsa",
        "croppaste",
        "transplant",
        "oracle",
        "shuffled",
    ]
    for figures in plate["generators"].values():
        for metric in ("pixel_auroc", "pixel_ap", "pixel_f1", "pro", "image_auroc"):
            assert 0 <= figures[metric]["mean"] <= 1
            assert len(figures[metric]["seeds"]) == 2
            assert figures[metric]["low"] <= figures[metric]["mean"] <= figures[metric]["high"]
    assert summary["mean"]["local"]["pixel_ap"] == plate["generators"]["local"]["pixel_ap"]
    assert "plate oracle seed 1" in printed.err
    assert {path.name for path in out.glob("*.*")} == {
        "compare.json", "compare.md", "compare.png", "samples-plate.png", "predictions-plate.png",
    }  # fmt: skip
    assert json.loads((out / "compare.json").read_text()) == summary
    assert len(list((export / "nsa" / "seed_1" / "plate" / "nsa" / "image").iterdir())) == 4

    # The same pairs from their folder, with the same seed, train the same detector.
    folder = export / "draem" / "seed_0"
    assert main([*common[:-2], "1", "--json", "--generators", f"again={folder}"]) == 0
    again = json.loads(capsys.readouterr().out)["categories"]["plate"]["generators"]["again"]
    assert again["pixel_ap"]["seeds"][0] == plate["generators"]["draem"]["pixel_ap"]["seeds"][0]

    # Kept cells are taken up, not run again; other settings are refused.
    monkeypatch.setattr("evaluation.compare.run_cell", None)
    assert main([*common, "--out", str(out), "--resume"]) == 0
    assert json.loads(capsys.readouterr().out) == summary
    assert main([*common, "--pairs", "5", "--out", str(out), "--resume"]) == 2
    assert "other settings" in capsys.readouterr().err


def test_the_best_epoch_is_kept_where_asked() -> None:
    pytest.importorskip("torch", reason="training needs torch: pip install 'anomaly-agent[evaluation]'")
    from evaluation.data import Pair
    from evaluation.detector import PRESETS, Detector, train

    image, mask = cutpaste.patch(make_photo(64, 64), np.random.default_rng(0))
    pairs, photos = [Pair(image, mask, "patch")], [make_photo(64, 64, 1)]
    seen = []

    def judge(detector: Detector) -> float:
        seen.append(detector.predict(photos))
        return -float(len(seen))

    kept = train(pairs, photos, PRESETS["tiny"], 0, judge=judge)
    assert len(seen) == 2
    assert (kept.predict(photos) == seen[0]).all()


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--data", "nowhere"], "nowhere is no folder"),
        (["--generators", "magic"], "unknown generator 'magic'"),
        (["--category", "cable"], "no category 'cable': choose from plate"),
        (["--seeds", "0"], "--seeds 0 is too small"),
        (["--resume"], "--out"),
        (["--item", "plate"], "--item takes CATEGORY=WORDS"),
        (["--item", "cable=a wire"], "--item: there is no category 'cable': choose from plate"),
        (["--generators", "mine=nosuch"], "'nosuch' is no folder"),
        (["--generators", "mine="], "mine=: '' is no folder"),
    ],
)
def test_errors_are_one_line_that_names_the_cure(
    data: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], complaint: str
) -> None:
    pytest.importorskip("torch", reason="without it the command says so first")
    assert main(["compare", "--data", str(data), *arguments]) == 2
    error = capsys.readouterr().err
    assert complaint in error
    assert error.count("\n") == 1


def refused(capsys: pytest.CaptureFixture[str], data: Path, *arguments: str) -> str:
    """What the command says when it refuses, which is one line."""
    pytest.importorskip("torch", reason="without it the command says so first")
    assert main(["compare", "--data", str(data), "--preset", "tiny", "--pairs", "2", "--seeds", "1", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    return error


def test_a_category_named_as_data_is_refused_with_its_parent(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert f"did you mean its parent, {data}?" in refused(capsys, data / "plate")


@pytest.mark.parametrize("option", ["--out", "--export"])
def test_a_place_that_cannot_be_written_to_is_refused_at_the_start(
    data: Path, capsys: pytest.CaptureFixture[str], option: str
) -> None:
    pytest.importorskip("matplotlib", reason="without it --out is refused for that")
    file = data.parent / "notes.txt"
    file.write_text("mine")
    assert f"{option} {file} is a file: name another folder" in refused(capsys, data, option, str(file))
    assert "name another folder" in refused(capsys, data, option, str(file / "below"))


@pytest.mark.parametrize(("value", "complaint"), [(0, "has an empty mask: remove"), (255, "covers the whole photo")])
def test_a_mask_that_is_empty_or_full_is_refused_by_name(
    data: Path, capsys: pytest.CaptureFixture[str], value: int, complaint: str
) -> None:
    mask = data / "plate" / "ground_truth" / "scratch" / "3_mask.png"
    cv2.imwrite(str(mask), np.full((80, 96), value, np.uint8))
    assert f"{mask} {complaint}" in refused(capsys, data)


def test_a_mask_of_another_size_is_refused_with_both_sizes(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mask = data / "plate" / "ground_truth" / "scratch" / "3_mask.png"
    cv2.imwrite(str(mask), np.full((40, 30), 255, np.uint8))
    assert "3_mask.png is 30 x 40 px, its image 96 x 80: resize the mask" in refused(capsys, data)


def test_a_defect_that_covers_most_of_the_photo_cannot_be_transplanted(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for mask in (data / "plate" / "ground_truth" / "scratch").iterdir():
        full = np.full(cv2.imread(str(mask)).shape[:2], 255, np.uint8)
        full[:2, :2] = 0
        cv2.imwrite(str(mask), full)
    assert "scratch cannot be transplanted" in refused(capsys, data, "--generators", "transplant")


def test_masks_of_ones_or_labels_are_read_as_drawn(data: Path) -> None:
    before = load_category(data / "plate")
    for number, path in enumerate(sorted((data / "plate" / "ground_truth" / "scratch").iterdir())):
        mask = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
        cv2.imwrite(str(path), (mask > 0).astype(np.uint8) * (number + 1))
    after = load_category(data / "plate")
    pairs = zip([*before.shown, *before.held_out], [*after.shown, *after.held_out], strict=True)
    assert all((old.mask == new.mask).all() for old, new in pairs)


def test_a_thin_mask_survives_shrinking_and_others_are_cut_at_one_half() -> None:
    line = np.zeros((512, 512), bool)
    line[100:300, 101:102] = True
    small = shrink_mask(line, 128)
    assert small.any(axis=0).sum() == 1
    assert small.sum() == 50
    line[400:440, 400:440] = True  # what fills a pixel sets the threshold: the thin part is below it, as ever
    assert shrink_mask(line, 128).sum() == 100
    assert not shrink_mask(np.zeros((64, 64), bool), 32).any()


def test_defects_thinner_than_a_pixel_of_the_detector_are_learned_and_tested(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("torch", reason="training needs torch: pip install 'anomaly-agent[evaluation]'")
    for path in (data / "plate" / "ground_truth" / "scratch").iterdir():
        mask = np.zeros(cv2.imread(str(path)).shape[:2], np.uint8)
        mask[20:60, 30] = 255
        cv2.imwrite(str(path), mask)
    common = ["--preset", "tiny", "--pairs", "2", "--seeds", "1", "--generators", "oracle", "--json"]
    assert main(["compare", "--data", str(data), *common]) == 0
    found = json.loads(capsys.readouterr().out)["categories"]["plate"]["generators"]["oracle"]
    assert found["pixel_ap"]["mean"] > 0


def test_an_export_is_not_mixed_with_an_older_one_and_is_found_a_level_higher(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("torch", reason="training needs torch: pip install 'anomaly-agent[evaluation]'")
    export = tmp_path / "pairs"
    common = ["--generators", "cutpaste", "--export", str(export)]
    assert main(["compare", "--data", str(data), "--preset", "tiny", "--pairs", "2", "--seeds", "1", *common]) == 0
    capsys.readouterr()
    used = export / "cutpaste" / "seed_0" / "plate"
    assert f"{used} holds pairs already: remove it" in refused(capsys, data, *common)
    for above in (export, used.parents[1]):
        assert f"use mine={used.parent}" in refused(capsys, data, "--generators", f"mine={above}")


def test_cells_of_other_photos_are_not_taken_up(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("torch", reason="training needs torch: pip install 'anomaly-agent[evaluation]'")
    pytest.importorskip("matplotlib", reason="the plot needs matplotlib: pip install 'anomaly-agent[evaluation]'")
    common = ["--generators", "oracle", "--out", str(tmp_path / "out"), "--resume"]
    run = ["compare", "--data", str(data), "--preset", "tiny", "--pairs", "2", "--seeds", "1", *common]
    assert main(run) == 0
    monkeypatch.setattr("evaluation.compare.run_cell", None)
    assert main(run) == 0
    save(data / "plate" / "test" / "good" / "0.png", make_photo(96, 80, 99))
    capsys.readouterr()
    assert "was run with other photos or masks: choose another --out" in refused(capsys, data, *common)

    # Cells that do not say their data, from before it was kept, are taken up.
    path = tmp_path / "out" / "cells" / "plate-oracle-0.json"
    kept = json.loads(path.read_text())
    del kept["data"]
    path.write_text(json.dumps(kept))
    assert main(run) == 0


def test_defects_without_masks_are_refused(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("torch", reason="without it the command says so first")
    masks = sorted((data / "plate" / "ground_truth" / "scratch").iterdir())
    masks[1].unlink()
    assert main(["compare", "--data", str(data)]) == 2
    assert "1.png has no mask" in capsys.readouterr().err


def test_without_torch_the_help_works_and_the_command_names_the_extra(data: Path) -> None:
    hidden = "import sys; sys.modules['torch'] = None; sys.argv = ['evaluation', *sys.argv[1:]]; import runpy; "
    run = hidden + "runpy.run_module('evaluation', run_name='__main__')"

    def command(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, "-c", run, *arguments], capture_output=True, text=True, cwd=ROOT)

    assert command("compare", "--help").returncode == 0
    refused = command("compare", "--data", str(data))
    assert refused.returncode == 2
    assert "anomaly-agent[evaluation]" in refused.stderr


def cell(category: str, generator: str, seed: int, ap: float) -> Cell:
    return Cell(category, generator, seed, Scores(0.5, ap, 0.5, 0.5, 0.5), {"scratch": ap}, 4, 3, 2)


def test_only_categories_with_power_decide() -> None:
    values = {
        "telling": {"local": 0.6, "cutpaste": 0.4, "nsa": 0.5, "oracle": 0.8, "shuffled": 0.1},
        "noise": {"local": 0.1, "cutpaste": 0.9, "nsa": 0.1, "oracle": 0.11, "shuffled": 0.1},
    }
    cells = [
        cell(category, generator, seed, ap + 0.01 * seed)
        for category, row in values.items()
        for generator, ap in row.items()
        for seed in range(3)
    ]
    summary = summarise(cells)
    assert summary["with_power"] == ["telling"]
    assert summary["verdict"]["best_baseline"] == "nsa"
    assert summary["verdict"]["lead"]["mean"] == pytest.approx(0.1)
    assert summary["mean"]["cutpaste"]["pixel_ap"]["mean"] == pytest.approx(0.66)
    table = to_markdown({**summary, "settings": {"preset": "fast", "seeds": 3}})
    assert "| telling * | 61.0 ± 2.5 |" in table
    assert "local leads nsa by 10.0" in table
