"""Training data from real sessions: what is shown, what is left out and why, and that nothing changes on the way."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from agent.policies.pictures import picture_for_model
from agent.protocol import parse_turn
from agent.session import LOG_NAME, append_events, read_session
from tests.episodes import record_samples, trace
from training.data import Selection, main, read_examples
from training.examples import DataError, Example, kind_of
from training.export import to_dataset, trainer_messages
from training.reward_config import RewardConfig
from training.rewards import SCORER, SCORER_VERSION, reward
from training.split import cap, resample, split
from training.trace import read_trace

ALL = Selection(stop_reasons=("answered", "max_turns", "policy_error"), repairs=True, refusals=True)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return record_samples(tmp_path_factory.mktemp("recorded"))


@pytest.fixture
def samples(recorded: dict[str, Path], tmp_path: Path) -> dict[str, Path]:
    """A copy of the recorded sessions that a test may alter."""
    shutil.copytree(recorded["single"].parent, tmp_path / "sessions")
    return {name: tmp_path / "sessions" / name for name in recorded}


@pytest.fixture(autouse=True)
def _offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HUB_DISABLE_TELEMETRY", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))


def edit(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change every event of a log."""
    log = folder / LOG_NAME
    events = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    for event in events:
        change(event)
    log.write_text("".join(json.dumps(event, ensure_ascii=False) + "\n" for event in events), encoding="utf-8")


def start(**fields: Any) -> Callable[[dict[str, Any]], None]:
    return lambda event: event.update(fields) if event["type"] == "session_start" else None


def test_an_example_shows_the_conversation_as_the_policy_saw_it(recorded: dict[str, Path]) -> None:
    (example,) = read_examples([recorded["single"]])
    session = read_session(recorded["single"])
    messages = session.of_type("message")
    assert [m["role"] for m in example.messages] == [m["role"] for m in messages]
    assert [m["content"][0]["text"] for m in example.messages] == [m["content"] for m in messages]
    assert [len(m["content"]) - 1 for m in example.messages] == [len(m["images"]) for m in messages]
    assert example.messages[1]["content"][1:] == [{"type": "image"}]
    named = [entry["sha256"] for message in messages for entry in message["images"]]
    assert [picture.sha256 for picture in example.pictures] == named
    assert example.images == [picture_for_model(session.image(digest), example.side) for digest in named]
    assert example.original_sha256 == named[0]
    assert (example.kind, example.kr, example.policy, example.constructed) == ("single", False, "planner", False)
    assert example.score == read_trace(session).scores[2]
    assert example.reward == reward(read_trace(session)).total
    assert len(example.turns) == 5


@pytest.mark.parametrize(
    ("steps", "kind"),
    [
        ("PG IG QE=8 MG success", ("single", False)),
        ("PG IG QE=5 IG QE=8 MG success", ("dual", False)),
        ("PG IG QE=5 KR IG QE=8 MG success", ("dual", True)),
        ("PG IG QE=4 KR IG QE=6 IG QE=9 MG success", ("triple", True)),
        ("PG IG! IG QE=8 MG success", ("single", False)),
        ("PG KR IG QE=8 MG success", ("other", True)),
        ("IG QE=8 MG success", ("other", False)),
        ("PG IG QE=1 IG QE=2 IG QE=3 IG QE=8 MG success", ("other", False)),
    ],
)
def test_the_type_of_a_trajectory_follows_from_its_calls(steps: str, kind: tuple[str, bool]) -> None:
    assert kind_of(trace(steps)) == kind


def test_pictures_are_shrunk_to_the_wanted_side(recorded: dict[str, Path]) -> None:
    (example,) = read_examples([recorded["single"]], Selection(side=64))
    assert {max(Image.open(io.BytesIO(png)).size) for png in example.images} == {64}


def test_by_default_only_clean_answered_sessions_are_taken_and_every_other_is_accounted_for(
    recorded: dict[str, Path],
) -> None:
    found = read_examples([recorded["single"].parent])
    assert sorted(Path(example.session).name for example in found) == ["single", "triple"]
    assert {Path(left.session).name: left.reason for left in found.left_out} == {
        "repaired": "turns that could not be used",
        "refused": "a tool refused",
        "endless": "stopped by max_turns",
        "silent": "stopped by policy_error",
    }
    assert len(found) + sum(found.reasons.values()) == len(recorded)


def test_filters_by_score_reward_and_policy_leave_out_what_they_say(recorded: dict[str, Path]) -> None:
    both = [recorded["single"], recorded["triple"], recorded["refused"]]
    scores = {Path(e.session).name: e.score or 0.0 for e in read_examples(both, ALL)}
    least = max(scores.values())
    kept = read_examples(both, replace(ALL, min_score=least))
    assert {Path(e.session).name for e in kept} == {name for name, score in scores.items() if score >= least}
    assert kept.reasons == {f"score below {least:g}": 3 - len(kept)}
    assert read_examples(both, replace(ALL, min_reward=99.0)).reasons == {"reward below 99": 3}
    assert [e.policy for e in read_examples(both, replace(ALL, policies=("script",)))] == ["script"]
    assert read_examples([recorded["endless"]], replace(ALL, min_score=0.0)).reasons == {"final image not judged": 1}


def test_turns_that_could_not_be_used_are_cut_out_with_the_requests_to_mend_them(recorded: dict[str, Path]) -> None:
    (example,) = read_examples([recorded["repaired"]], ALL)
    assert example.repairs == 2
    text = json.dumps(example.messages)
    assert "I begin." not in text
    assert "could not be used" not in text
    assert [m["role"] for m in example.messages] == ["system", "user", *["assistant", "tool"] * 4, "assistant"]
    for turn in example.turns:
        parse_turn(turn)


def test_a_reward_that_was_appended_counts_before_one_that_is_computed(samples: dict[str, Path]) -> None:
    (computed,) = read_examples([samples["single"]])
    entry = {"component": "total", "value": 0.25, "config_hash": RewardConfig().hash, "scorer": SCORER}
    events = [entry | {"scorer_version": SCORER_VERSION}, entry | {"scorer_version": "0", "value": 0.5}]
    append_events(samples["single"], "reward", events)
    (appended,) = read_examples([samples["single"]])
    assert (computed.reward > 1, appended.reward) == (True, 0.25)
    (other,) = read_examples([samples["single"]], Selection(rewards=RewardConfig(alpha=2.0)))
    assert other.reward > computed.reward


def test_the_same_task_with_the_same_turns_is_taken_once(samples: dict[str, Path], tmp_path: Path) -> None:
    twin = tmp_path / "sessions" / "twin"
    shutil.copytree(samples["single"], twin)
    edit(twin, start(session_id="another"))
    edit(twin, lambda event: event["task"].update(image="/elsewhere.png") if "task" in event else None)
    both = [samples["single"], twin]
    found = read_examples(both)
    assert (len(found), found.reasons) == (1, {"duplicate": 1})
    assert len(read_examples(both, Selection(duplicates=True))) == 2
    edit(twin, lambda event: event["task"].update(seed=77) if "task" in event else None)
    assert len(read_examples(both)) == 2


def test_sessions_under_different_protocols_are_not_mixed_unaware(samples: dict[str, Path]) -> None:
    edit(samples["triple"], start(protocol_hash="f" * 64))
    with pytest.raises(DataError, match=r"2 protocols: .*ffffffffffff \(1\).*--allow-mixed"):
        read_examples([samples["single"], samples["triple"]])
    assert len(read_examples([samples["single"], samples["triple"]], Selection(mixed=True))) == 2


def _tear(folder: Path) -> None:
    log = folder / LOG_NAME
    log.write_bytes(log.read_bytes()[:-20])


def _swap_image(folder: Path) -> None:
    shown = [image for event in read_session(folder).of_type("message") for image in event["images"]]
    first, second = (folder / "images" / f"{image['sha256']}.png" for image in shown[:2])
    first.write_bytes(second.read_bytes())


def _garble_turn(folder: Path) -> None:
    edit(folder, lambda event: event.update(content="hm") if event.get("role") == "assistant" else None)


def _cut(folder: Path, unwanted: Callable[[dict[str, Any]], bool]) -> None:
    """Take events out and number the rest anew, as one does who wants to hide it."""
    log = folder / LOG_NAME
    events = [event for line in log.read_text(encoding="utf-8").splitlines() if not unwanted(event := json.loads(line))]
    log.write_text("".join(json.dumps(event | {"seq": seq}) + "\n" for seq, event in enumerate(events)))


def _hide_pictures(event: dict[str, Any]) -> None:
    if event.get("role") == "tool":
        event["images"] = []


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda folder: edit(folder, _hide_pictures), "does not show the image that was made: .*leave this session"),
        (
            lambda folder: edit(folder, lambda e: e.update(images=[]) if "images" in e else None),
            "of image_gen holds no",
        ),
        (lambda folder: _cut(folder, lambda event: event.get("role") == "tool"), "is a second turn in a row"),
        (lambda folder: _cut(folder, lambda event: event["type"] == "session_start"), "line 1: a log has one session_"),
        (lambda folder: edit(folder, start(task="x")), '"task" of session_start is not an object'),
        (lambda folder: edit(folder, lambda e: e.update(repairs="two") if "repairs" in e else None), "repairs"),
        (lambda folder: edit(folder, lambda e: e.update(images=["abc"]) if "images" in e else None), "list of images"),
        (lambda folder: edit(folder, lambda e: e.update(content=7) if "content" in e else None), '"content" of mess'),
        (_tear, "last line is torn"),
        (lambda folder: next((folder / "images").iterdir()).unlink(), r"image [0-9a-f]{12} cannot be read"),
        (_swap_image, "is not the one recorded: restore it"),
        (_garble_turn, "turn 1 cannot be read .*leave this session out"),
        (lambda folder: edit(folder, lambda event: event.update(v=2)), "schema version 2, expected 1: read it with"),
        (lambda folder: edit(folder, lambda event: event.update(v=0)), "schema version 0"),
        (lambda folder: (folder / LOG_NAME).write_text("[1]\n"), "line 1: not an event"),
    ],
)
def test_damage_is_an_error_that_names_the_session_or_is_skipped_and_counted(
    samples: dict[str, Path], damage: Callable[[Path], object], says: str
) -> None:
    damage(samples["triple"])
    places = [samples["single"], samples["triple"]]
    with pytest.raises(DataError, match=says) as caught:
        read_examples(places, ALL)
    assert str(samples["triple"]) in str(caught.value)
    assert "--skip-broken" in str(caught.value)
    found = read_examples(places, replace(ALL, skip_broken=True))
    assert len(found) == 1
    assert found.reasons == {"broken": 1}
    assert str(samples["triple"]) in found.left_out[0].detail


def test_a_session_without_an_end_is_left_out_and_counted(samples: dict[str, Path]) -> None:
    log = samples["single"] / LOG_NAME
    log.write_bytes(b"\n".join(log.read_bytes().split(b"\n")[:-2]) + b"\n")
    found = read_examples([samples["single"], samples["triple"]])
    assert found.reasons == {"incomplete": 1}


def test_a_picture_that_changes_after_reading_is_noticed_when_it_is_used(samples: dict[str, Path]) -> None:
    (example,) = read_examples([samples["single"]])
    _swap_image(samples["single"])
    with pytest.raises(DataError, match="not the one recorded"):
        _ = example.images
    pytest.importorskip("datasets", reason="a data set needs datasets: pip install 'anomaly-agent[train]'")
    with pytest.raises(DataError, match=r"cannot be written: .*not the one recorded"):
        to_dataset([example])


def test_places_may_be_globs_run_folders_and_collections_and_count_once(samples: dict[str, Path]) -> None:
    root = samples["single"].parent
    places = [root / "single", str(root / "s*"), root, root / "single" / LOG_NAME]
    assert len(read_examples(places, ALL)) == len(samples) - 1  # the silent one holds no conversation
    with pytest.raises(DataError, match="no session in"):
        read_examples([root / "z*"])


def variants(example: Example, kinds: str, sources: str) -> list[Example]:
    """Copies that differ in type (s, d, t, o) and photo (one letter each)."""
    names = {"s": "single", "d": "dual", "t": "triple", "o": "other"}
    return [
        replace(example, kind=names[kind], sources=frozenset({source}), session_id=str(number))
        for number, (kind, source) in enumerate(zip(kinds, sources, strict=True))
    ]


def test_no_photo_is_on_both_sides_of_a_split(recorded: dict[str, Path]) -> None:
    (one,) = read_examples([recorded["single"]])
    examples = variants(one, "s" * 20, "aabbccddeeffgghhiijj")
    linked = replace(one, sources=frozenset({"a", "j"}), session_id="link")
    train, validation = split([*examples, linked], 0.25, seed=3)
    assert len(train) + len(validation) == 21
    assert 5 <= len(validation) <= 9
    sides = [{source for example in side for source in example.sources} for side in (train, validation)]
    assert not sides[0] & sides[1]
    assert split([*examples, linked], 0.25, seed=3) == (train, validation)
    assert split(examples, 0.0) == (examples, [])
    assert any(split(examples, 0.25, seed)[1] != validation for seed in range(4))
    assert [len(side) for side in split(variants(one, "ss", "ab"), 0.99)] == [1, 1]
    with pytest.raises(DataError, match="one photo"):
        split([one], 0.2)
    with pytest.raises(DataError, match="out of range"):
        split(examples, 1.0)


def test_constructed_sessions_of_one_real_photo_stay_together(samples: dict[str, Path]) -> None:
    for name in ("single", "triple"):
        edit(samples[name], start(constructed={"source": f"plate/{name}.png", "photograph": "plate 3"}))
    examples = read_examples([samples["single"], samples["triple"], samples["refused"]], ALL)
    assert [example.constructed for example in examples] == [False, True, True]
    assert examples[1].sources & examples[2].sources == {"plate 3"}
    with pytest.raises(DataError, match="one photo"):  # refused shares its photo with triple, triple its source
        split(examples, 0.5)


def test_balance_caps_or_repeats_types_and_is_repeatable(recorded: dict[str, Path]) -> None:
    (one,) = read_examples([recorded["single"]])
    examples = variants(one, "ssssssddt", "abcdefghi")
    capped = cap(examples, 2, seed=1)
    assert [e.kind for e in capped] == ["single", "single", "dual", "dual", "triple"]
    assert capped == cap(examples, 2, seed=1)
    assert any(cap(examples, 2, seed) != capped for seed in range(8))
    more = resample(examples, seed=1)
    assert [sum(e.kind == kind for e in more) for kind in ("single", "dual", "triple", "other")] == [6, 6, 6, 0]
    assert more[: len(examples)] == examples
    assert more == resample(examples, seed=1)
    with pytest.raises(DataError, match="too small"):
        cap(examples, 0)


@pytest.mark.parametrize("form", ["hf", "parquet"])
def test_a_data_set_comes_back_with_the_same_messages_and_the_same_pictures(
    recorded: dict[str, Path], tmp_path: Path, form: str, capsys: pytest.CaptureFixture[str]
) -> None:
    datasets = pytest.importorskip("datasets", reason="a data set needs datasets: pip install 'anomaly-agent[train]'")
    out = tmp_path / "set"
    places = [str(recorded[name]) for name in ("single", "triple", "refused")]
    options = ["--out", str(out), "--format", form, "--allow-refusals", "--validation", "0.3", "--json"]
    assert main([*places, *options]) == 0
    facts = json.loads(capsys.readouterr().out)
    if form == "hf":
        loaded = datasets.load_from_disk(str(out))
    else:
        loaded = datasets.load_dataset(str(out), cache_dir=str(tmp_path / "cache"))
    sides = dict(zip(("train", "validation"), split(read_examples(places, ALL), 0.3), strict=True))
    assert set(loaded) == {"train", "validation"}
    for name, side in sides.items():
        rows = loaded[name].cast_column("images", datasets.List(datasets.Image(decode=False)))
        assert facts["examples"][name] == len(side) == len(rows)
        for row, example in zip(rows, side, strict=True):
            assert row["messages"] == trainer_messages(example)
            digests = [hashlib.sha256(image["bytes"]).hexdigest() for image in row["images"]]
            assert digests == [hashlib.sha256(png).hexdigest() for png in example.images]
            assert (row["kind"], row["kr"], row["score"]) == (example.kind, example.kr, example.score)
            assert row["original_sha256"] == example.original_sha256
    card = (out / "README.md").read_text(encoding="utf-8")
    assert facts["protocol_hashes"][0] in card
    assert "- refusals: yes" in card
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith(".")) == []


def test_trl_finds_a_place_for_every_picture_of_a_row(recorded: dict[str, Path]) -> None:
    utils = pytest.importorskip("trl.data_utils", reason="needs trl: pip install 'anomaly-agent[train]'")
    (example,) = read_examples([recorded["triple"]])
    row = to_dataset([example])[0]
    assert utils.is_conversational({"messages": row["messages"]})
    filled = utils.prepare_multimodal_messages(row["messages"], images=row["images"])
    parts = [part for message in filled for part in message["content"] if part["type"] == "image"]
    assert [part["image"] for part in parts] == row["images"]
    observed = [message["content"] for message in filled if "[Tool Response from image_gen]" in str(message["content"])]
    assert [[part["type"] for part in content] for content in observed] == [["text", "image"]] * 3
    assert {message["role"] for message in filled} == {"system", "user", "assistant"}


def test_the_command_counts_what_it_took_and_what_it_left_out(
    recorded: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(recorded["single"].parent), "--resample"]) == 0
    told = capsys.readouterr().out
    assert "train: 2 examples (single 1, triple 1)" in told
    assert "from 2 of 6 sessions, 2 photos" in told
    assert "left out: 1, a tool refused" in told


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--validation", "1"], "out of range: choose 0 to below 1"),
        (["--image-side", "8"], "choose 32 to 8192"),
        (["--min-reward", "99", "--out", "{out}"], "no example is left (reward below 99 (2)): loosen the filters"),
        (["--min-score", "10"], "no example is left (score below 10 (2)): loosen the filters, or name other sessions"),
        (["--min-score", "99"], "min-score 99 is out of range: choose 0 to 10"),
        (["--min-score", "nan"], "min-score nan is out of range: choose 0 to 10"),
        (["--min-reward", "nan"], "min-reward nan is no reward: choose a finite number"),
        (
            ["--stop-reason", "answerd"],
            "'answerd' is unknown: choose from answered, max_turns, policy_error, tool_error",
        ),
        (["--out", "{full}"], "is not empty: choose another --out"),
        (["--cap", "0"], "too small: 1 at least"),
        (["--reward-config", "absent.toml"], "absent.toml cannot be used"),
    ],
)
def test_unusable_options_are_one_line_that_names_the_cure(
    recorded: dict[str, Path], tmp_path: Path, options: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if "--out" in options:
        pytest.importorskip("datasets", reason="a data set needs datasets: pip install 'anomaly-agent[train]'")
    given = [option.format(out=tmp_path / "out", full=recorded["single"]) for option in options]
    assert main([str(recorded["single"]), str(recorded["triple"]), *given]) == 2
    told = capsys.readouterr().err.strip().splitlines()
    assert says in told[-1]
    assert not (tmp_path / "out").exists()
