"""``python -m training.trajectories`` from start to end, on a data set made on the spot."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from agent.policies.refine import refine, step
from agent.protocol import Answer, ToolCall, parse_turn, protocol_hash
from agent.report.render import render_report
from agent.session import Session, read_session
from evaluation.data import Image, Mask
from mcp_servers.image_gen.local import render
from tests.conftest import make_photo
from training.construction.advice import answers, reconciled, responds
from training.construction.defect_split import FORMAT, make_split
from training.construction.defects import Defect, find_defects
from training.construction.mark import Mark
from training.construction.phrases import changes
from training.construction.plan import plan
from training.construction.prompting import real_prompt
from training.construction.reverse import reverse
from training.trajectories import main

PROMPTS = {
    "scratch": "a long pronounced scratch on the surface of the plate",
    "stain": "a large pronounced dark stain on the surface of the plate",
}
ORDERS = {
    "single": ["prompt_gen", "image_gen", "quality_eval", "mask_gen"],
    "dual": ["prompt_gen", "image_gen", "quality_eval", "image_gen", "quality_eval", "mask_gen"],
    "triple": [
        "prompt_gen", "image_gen", "quality_eval", "knowledge_retrieval",
        "image_gen", "quality_eval", "image_gen", "quality_eval", "mask_gen",
    ],
}  # fmt: skip


def save(path: Path, picture: Image | Mask) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    bgr = picture.astype(np.uint8) * 255 if picture.ndim == 2 else picture[:, :, ::-1]
    assert cv2.imwrite(str(path), bgr)


def damaged(kind: str, seed: int) -> tuple[Image, Mask]:
    """A plate with a rendered defect, and its mask."""
    photo = make_photo(seed=seed)
    rendering = render(photo, PROMPTS[kind], seed)
    image = np.clip(np.rint(rendering.rgb), 0, 255).astype(np.uint8)
    return image, np.abs(image.astype(int) - photo).max(axis=2) > 12


def make_data(folder: Path, each: int = 3) -> Path:
    """A category ``plate`` with ``each`` scratches and as many stains; the first two stains are of one photograph."""
    sources = []
    for first, kind in ((0, "scratch"), (20, "stain")):
        for number in range(each):
            image, mask = damaged(kind, first + number)
            save(folder / "plate" / "test" / kind / f"{number:03d}.png", image)
            save(folder / "plate" / "ground_truth" / kind / f"{number:03d}_mask.png", mask)
            source = f"roll/{kind}_{max(number, 1) if kind == 'stain' else number}.jpg@{10 * number},0"
            sources.append(f"test/{kind}/{number:03d}.png\t{source}")
    for number in range(2):
        save(folder / "plate" / "train" / "good" / f"{number:03d}.png", make_photo(seed=40 + number))
    (folder / "plate" / "source_map.tsv").write_text("\n".join(sources) + "\n", encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_data(tmp_path_factory.mktemp("real"))


def run(data: Path, out: Path, *options: str) -> dict[str, Any]:
    """Make sessions through the command and return the manifest."""
    assert main([str(data), "--out", str(out), "--workers", "1", *options]) == 0
    manifest: dict[str, Any] = json.loads((out / "manifest.json").read_text(encoding="utf-8"))
    return manifest


@pytest.fixture(scope="module")
def made(data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """Six sessions of a run over all defects, and its manifest."""
    folder = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ANOMALY_AGENT_HOME", str(folder / "home"))
        return folder / "out", run(data, folder / "out", "--make-split", "1", "--weights", "1,2,2")


def sessions(made: tuple[Path, dict[str, Any]]) -> list[tuple[dict[str, Any], Session]]:
    out, manifest = made
    return [(entry, read_session(out / entry["session"])) for entry in manifest["entries"] if entry["session"]]


def calls(session: Session) -> list[str]:
    return [event["tool"] for event in session.of_type("tool_call")]


def said(session: Session) -> list[tuple[str, str]]:
    """What was said by whom, less what depends on the machine."""
    return [(event["role"], event["content"]) for event in session.of_type("message")]


def test_every_type_is_made_and_counted(made: tuple[Path, dict[str, Any]]) -> None:
    manifest = made[1]
    assert manifest["sessions"] == 6
    assert manifest["sources"] == 6
    assert sum(manifest["by_type"].values()) == 6
    assert set(manifest["by_type"]) >= {"single"}
    assert len(manifest["by_type"]) >= 2
    assert manifest["by_category"] == {"plate": 6}
    assert manifest["donors"] == {"plate": ["plate/train/good/000.png", "plate/train/good/001.png"]}
    assert manifest["with_knowledge"] == sum(entry["knowledge"] for entry in manifest["entries"])


def test_calls_come_in_the_order_of_the_paper(made: tuple[Path, dict[str, Any]]) -> None:
    for entry, session in sessions(made):
        order = [name for name in calls(session) if entry["type"] != "dual" or name != "knowledge_retrieval"]
        assert order == ORDERS[entry["type"]]
        assert ("knowledge_retrieval" in calls(session)) == entry["knowledge"]
        if entry["knowledge"]:
            assert calls(session).index("knowledge_retrieval") == 3


def test_sessions_are_what_the_loop_writes_and_say_that_they_are_constructed(
    made: tuple[Path, dict[str, Any]],
) -> None:
    for entry, session in sessions(made):
        assert session.complete
        assert session.end is not None
        assert (session.end["stop_reason"], session.end["repairs"]) == ("answered", 0)
        assert session.start["policy"] == {"name": "constructed"}
        constructed = session.start["constructed"]
        assert constructed["method"] == "reverse_synthesis"
        assert constructed["source"] == entry["source"]
        assert constructed["split"] == "split.json"
        last = len(entry["scores"]) + 1
        assert f"image_gen: image {last} is the real photo" in constructed["simulated"]
        assert "mask_gen: the real mask" in constructed["simulated"]
        assert session.start["protocol_hash"] == protocol_hash(session.start["tools"])
        assert "<html" in render_report(session)


def test_turns_parse_and_name_the_item_and_the_type_exactly(made: tuple[Path, dict[str, Any]]) -> None:
    for entry, session in sessions(made):
        turns = [parse_turn(event["content"]) for event in session.of_type("message") if event["role"] == "assistant"]
        assert all(len(turn.thinking) > 40 for turn in turns)
        assert len({turn.thinking for turn in turns}) == len(turns)
        for turn in turns[:-1]:
            assert isinstance(turn.action, ToolCall)
            if "item_name" in turn.action.arguments:
                assert turn.action.arguments["item_name"] == "plate"
                assert turn.action.arguments["anomaly_type"] == entry["kind"]
        assert isinstance(turns[-1].action, Answer)
        assert turns[-1].action.status == "success"
        assert turns[-1].action.final_image_index == len(entry["scores"]) + 1


def test_only_the_last_image_passes(made: tuple[Path, dict[str, Any]]) -> None:
    for entry, session in sessions(made):
        verdicts = [event["payload"] for event in session.of_type("tool_result") if event["tool"] == "quality_eval"]
        assert [verdict["passed"] for verdict in verdicts] == [False] * (len(verdicts) - 1) + [True]
        assert [verdict["score"] for verdict in verdicts] == entry["scores"]
        assert all(verdict["threshold"] == session.start["task"]["threshold"] for verdict in verdicts)


def test_the_last_image_is_the_real_photo_and_the_mask_the_real_one(
    data: Path, made: tuple[Path, dict[str, Any]]
) -> None:
    for entry, session in sessions(made):
        kind, name = entry["source"].split("/")[2:]
        results = {event["tool"]: event for event in session.of_type("tool_result")}
        photo = session.image(results["image_gen"]["images"][0]["sha256"])
        real = cv2.imread(str(data / entry["source"]))
        assert np.array_equal(cv2.imdecode(np.frombuffer(photo, np.uint8), cv2.IMREAD_COLOR), real)
        mask = data / "plate" / "ground_truth" / kind / name.replace(".png", "_mask.png")
        assert session.image(results["mask_gen"]["images"][0]["sha256"]) == mask.read_bytes()


def test_the_good_photo_has_no_defect_left_and_is_the_same_elsewhere(data: Path) -> None:
    for defect in find_defects(data, [])[::3]:
        photo, mask = defect.read()
        normal = reverse(photo, mask, list, np.random.default_rng(0))
        away = cv2.dilate(mask.astype(np.uint8), np.ones((31, 31), np.uint8)) == 0
        assert np.array_equal(normal[away], photo[away])
        surface = np.median(normal[away & (normal.max(axis=2) > 80)], axis=0)
        before, after = (np.abs(picture[mask] - surface).mean() for picture in (photo, normal))
        assert after < 0.8 * before


def test_the_same_seed_gives_the_same_conversation_and_another_seed_another(
    data: Path, home: Path, tmp_path: Path
) -> None:
    arguments = ("--make-split", "0.1", "--count", "1", "--weights", "0,1,0")
    talks = []
    for name in ("a", "b"):
        manifest = run(data, tmp_path / name, *arguments, "--seed", "3")
        talks.append([said(read_session(tmp_path / name / e["session"])) for e in manifest["entries"]])
    assert talks[0] == talks[1]
    seeds = [[job.seed for job in plan(some_defects(2), 4, (0, 1, 0), seed)] for seed in (3, 3, 4)]
    assert seeds[0] == seeds[1] != seeds[2]


def test_nothing_outside_the_split_is_used_and_photographs_stay_whole(data: Path, home: Path, tmp_path: Path) -> None:
    split = tmp_path / "third.json"
    assert main([str(data), "--make-split", "0.333", "--split-out", str(split)]) == 0
    train = json.loads(split.read_text(encoding="utf-8"))["train"]
    assert train == ["plate/test/scratch/000.png", "plate/test/stain/000.png", "plate/test/stain/001.png"]
    manifest = run(data, tmp_path / "out", "--split", str(split), "--weights", "1,0,0")
    assert manifest["sessions"] == 3
    assert {entry["source"] for entry in manifest["entries"]} <= set(train)
    assert json.loads((tmp_path / "out" / "split.json").read_text(encoding="utf-8"))["train"] == train


def test_a_split_that_tears_a_photograph_apart_is_refused(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    split = tmp_path / "torn.json"
    content = {"format": FORMAT, "train": ["plate/test/stain/000.png"], "held_out": []}
    split.write_text(json.dumps(content), encoding="utf-8")
    assert main([str(data), "--split", str(split), "--out", str(tmp_path / "out")]) == 2
    assert "other images of its photograph are held out" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"held_out": ["plate/test/scratch/000.png"]}, "names plate/test/scratch/000.png in train and in held_out"),
        ({"format": "another split 7"}, 'its "format" is not "anomaly-agent split 1"'),
        ({"train": [1]}, 'is no split: it needs lists "train" and "held_out"'),
    ],
)
def test_a_split_file_that_contradicts_itself_is_refused_in_one_line(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], change: dict[str, Any], message: str
) -> None:
    split = tmp_path / "split.json"
    content = {"format": FORMAT, "train": ["plate/test/scratch/000.png"], "held_out": []}
    split.write_text(json.dumps(content | change), encoding="utf-8")
    assert main([str(data), "--split", str(split), "--out", str(tmp_path / "out")]) == 2
    told = capsys.readouterr().err
    assert message in told
    assert told.count("\n") == 1


def test_copies_of_a_photo_under_other_names_stay_on_one_side(tmp_path: Path) -> None:
    data = make_data(tmp_path / "data", each=2)
    (data / "plate" / "source_map.tsv").unlink()
    scratches = data / "plate" / "test" / "scratch"
    (scratches / "001.png").write_bytes((scratches / "000.png").read_bytes())
    split = make_split(find_defects(data, []), 0.5)
    assert split["train"] == [f"plate/test/{name}.png" for name in ("scratch/000", "scratch/001", "stain/000")]
    (data / "plate" / "source_map.tsv").write_text(
        "test/scratch/000.png\ta\ntest/scratch/001.png\tb\ntest/stain/001.png\tb\n", encoding="utf-8"
    )
    assert [defect.source for defect in find_defects(data, [])][::3] == ["plate:a", "plate:a"]


def test_a_split_file_is_never_written_over(
    data: Path, tmp_path: Path, made: tuple[Path, dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    out = made[0]
    own = (out / "split.json").read_bytes()
    for options in ([], ["--resume"]):
        assert main([str(data), "--out", str(out), "--make-split", "0.1", *options]) == 2
        assert (out / "split.json").read_bytes() == own
    assert "was made with other photos: choose another --out" in capsys.readouterr().err
    split = tmp_path / "third.json"
    assert main([str(data), "--make-split", "0.333", "--split-out", str(split)]) == 0
    third = split.read_bytes()
    assert main([str(data), "--make-split", "0.333", "--split-out", str(split)]) == 0  # the same one once more
    arguments = ["--make-split", "0.9", "--split-out", str(split), "--out", str(tmp_path / "new")]
    assert main([str(data), *arguments]) == 2
    assert "a split is never written over: use it with --split" in capsys.readouterr().err
    assert split.read_bytes() == third
    assert not (tmp_path / "new").exists()


def test_a_run_is_taken_up_where_it_ended(data: Path, home: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    arguments = ("--make-split", "0.1", "--count", "2", "--weights", "1,0,0")
    first = run(data, out, *arguments)
    names = [entry["session"] for entry in first["entries"]]
    kept = (out / names[0] / "session.jsonl").read_bytes()
    (out / names[1] / "session.jsonl").unlink()  # as if it had been cut off before its end
    again = run(data, out, *arguments, "--resume")
    assert [entry["session"] for entry in again["entries"]] == names
    assert (out / names[0] / "session.jsonl").read_bytes() == kept
    assert read_session(out / names[1]).complete
    assert main([str(data), "--out", str(out), *arguments]) == 2
    assert main([str(data), "--out", str(out), *arguments, "--seed", "9", "--resume"]) == 2


def test_photos_that_cannot_be_used_are_counted_with_the_reason_and_do_not_stop_the_others(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = make_data(tmp_path / "data", each=2)
    save(data / "plate" / "ground_truth" / "scratch" / "000_mask.png", np.zeros((40, 40), bool))
    for part in ("test", "ground_truth"):
        (data / "plate" / part / "stain").rename(data / "plate" / part / "zzyzx")
    (data / "plate" / "source_map.tsv").unlink()
    manifest = run(data, tmp_path / "out", "--make-split", "1", "--weights", "1,0,0")
    assert manifest["sessions"] == 1
    assert manifest["skipped"] == {"not constructed": 2, "unusable": 1}
    reasons = {entry["source"]: entry["skipped"] for entry in manifest["entries"]}
    assert "is 40 x 40 px, its image 160 x 128: resize the mask" in reasons["plate/test/scratch/000.png"]
    assert "names no defect family" in reasons["plate/test/zzyzx/000.png"]
    assert "left out" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda data: None, "say which defects are for training"),
        (lambda data: [p.unlink() for p in (data / "plate" / "ground_truth").rglob("*.png")], "has no mask"),
        (lambda data: [p.unlink() for p in (data / "plate" / "test").rglob("*.png")], "holds no defects"),
        (lambda data: (data / "plate" / "source_map.tsv").write_text("a b"), "expected FILE, a tab and SOURCE"),
        (lambda data: (data / "plate" / "ground_truth").rename(data / "masks"), "holds no masks"),
    ],
)
def test_a_data_set_that_cannot_be_used_is_refused_with_the_cure(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], spoil: Any, message: str
) -> None:
    data = make_data(tmp_path / "data", each=1)
    spoil(data)
    assert main([str(data), "--out", str(tmp_path / "out")]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--make-split", "0"], "out of range"),
        (["--make-split", "1", "--editor", "nope"], "--editor nope: no such backend; choose one of local"),
        (["--make-split", "1", "--weights", "1,2"], "give three numbers"),
        (["--make-split", "1", "--weights", "0,0,0"], "give three numbers"),
        (["--make-split", "1", "--count", "-1"], "--count -1 is too small: 1 at least"),
        (["--make-split", "1", "--count", "0"], "--count 0 is too small: 1 at least"),
        (["--split", "nowhere.json"], "cannot be read"),
        (["--make-split", "1", "--category", "bottle"], "'bottle': choose from plate"),
    ],
)
def test_options_that_cannot_be_used_are_refused(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    assert main([str(data), "--out", str(tmp_path / "out"), *options]) == 2
    assert message in capsys.readouterr().err


PROMPT = (
    "Using the provided image, change only the surface of the plate to introduce a scratch. The defect is small and "
    "mild in strength. The scratch ploughs through the metal. Everything else stays exactly as it is."
)
MARK = Mark("left", "", False, 1, 0.01, 0.2, 0.1, 30.0, -8.0, 12.0, "", "small", "moderate", 1.0, 0.0)


def test_a_second_prompt_does_what_the_review_asks_and_nothing_against_it() -> None:
    review = "Make the defect more pronounced: its contrast is low."
    assert responds(review, PROMPT, step(PROMPT, severity=1).prompt, "plate")
    assert not responds(review, PROMPT, step(PROMPT, severity=-1).prompt, "plate")
    assert not responds(review, PROMPT, step(PROMPT, size=1).prompt, "plate")
    assert responds(
        "Match the grain of the photo.", PROMPT, refine(PROMPT, "Match the grain of the photo", "plate").prompt, "plate"
    )


def test_the_real_defect_follows_only_a_review_that_it_answers() -> None:
    faint = replace(MARK, contrast=5.0)
    assert answers("Make the defect more pronounced.", PROMPT, faint, MARK)
    assert not answers("Make the defect less pronounced.", PROMPT, faint, MARK)
    assert not answers("Make the defect larger.", PROMPT, replace(MARK, length=0.4), MARK)
    assert not answers("Make the defect larger.", step(PROMPT, size=4).prompt, replace(MARK, length=0.1), MARK)
    assert answers("Introduce a visible defect.", PROMPT, None, MARK)


def test_the_last_prompt_goes_beyond_the_words_that_turned_out_too_weak() -> None:
    strong = step(PROMPT, severity=2).prompt
    after = reconciled("Make the defect more pronounced.", strong, PROMPT)
    assert "The defect is small and severe" in after
    assert "The defect has the same grain" in reconciled("Match the grain of the photo: it is soft.", PROMPT, PROMPT)


def test_steps_from_and_to_a_prompt_that_names_no_size_are_told() -> None:
    bare = "Using the provided image, change only the plate to introduce a scratch. The defect is long and thin."
    assert changes(bare, PROMPT, None, "") == ["name the extent and the strength (small, mild)"]
    assert changes(bare, f"{bare} It shines.", None, "It shines.") == ["take that over in the wording"]
    assert responds("Make the defect larger.", bare, bare, "plate")


def test_the_last_prompt_says_where_and_how_the_real_defect_is() -> None:
    prompt = real_prompt(PROMPT, MARK, "steel_plate")
    assert "change only the surface of the plate in the left part of the steel plate to introduce a scratch" in prompt
    assert "running diagonally, rising to the right" in prompt
    assert "The defect is small and moderate in strength. It spans about a fifth of the part's width" in prompt
    assert prompt.endswith("Everything else stays exactly as it is.")


def some_defects(count: int) -> list[Defect]:
    return [
        Defect("plate", kind, f"plate/test/{kind}/{n}.png", Path(), Path(), f"{kind}{n // 2}")
        for kind in ("scratch", "stain")
        for n in range(count)
    ]


def counted(weights: Sequence[float], count: int) -> list[int]:
    jobs = plan(some_defects(8), count, weights, seed=1)
    return [sum(job.images == images for job in jobs) for images in (1, 2, 3)]


def test_types_keep_to_their_weights() -> None:
    assert counted((1, 0, 0), 16) == [16, 0, 0]
    assert counted((0, 1, 1), 16)[0] == 0
    shares = counted((1, 2, 1), 160)
    assert abs(shares[0] - 40) <= 4
    assert abs(shares[1] - 80) <= 4


def test_defects_are_used_evenly_and_every_session_has_its_own_name() -> None:
    jobs = plan(some_defects(8), 40, (1, 1, 1), seed=1)
    assert len({job.session for job in jobs}) == 40
    uses = [sum(job.defect == defect for job in jobs) for defect in some_defects(8)]
    assert set(uses) <= {2, 3}
    few = plan(some_defects(8), 4, (1, 1, 1), seed=1)
    assert {job.defect.kind for job in few} == {"scratch", "stain"}


def test_a_split_takes_the_first_of_each_type_and_whole_photographs() -> None:
    split = make_split(some_defects(8), 1 / 3)
    assert split["train"] == [f"plate/test/{kind}/{n}.png" for kind in ("scratch", "stain") for n in range(4)]
    assert not set(split["train"]) & set(split["held_out"])
