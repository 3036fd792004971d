"""Recording and replay: what was paid for once comes back to the byte, with no server and no model."""

from __future__ import annotations

import json
import logging
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import anyio
import cv2
import pytest

from agent.episode import Episode
from agent.loop import run_episode
from agent.policies import Policy
from agent.policies.planner import Planner
from agent.protocol import render_turn
from agent.recorded_policy import RecordedPolicy
from agent.replay import Mode, Recording
from agent.session import SessionWriter, read_session
from agent.task import StopReason, Task
from agent.toolbox import Server, Toolbox, ToolboxError

from .conftest import make_photo
from .paid import DONE, EDIT, JUDGE, MASK, PROMPT, ROOT, Script, Shop, call
from .servers.fake_openai import FakeOpenAI, Says

PICTURES = ("original", "anomaly", "mask", "overlay")


@pytest.fixture
def shop(home: Path, photo_file: Path, tmp_path: Path) -> Shop:
    return Shop(photo_file.parent, tmp_path / "calls.txt")


@dataclass(frozen=True, slots=True)
class Recorded:
    """A recorded run: its shop, photo, folder and recording; each test gets a recording of its own to spoil."""

    shop: Shop
    photo: Path
    out: Path
    record: Path


@pytest.fixture(scope="module")
def first_run(tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    folder = tmp_path_factory.mktemp("recorded")
    (folder / "photos").mkdir()
    photo = folder / "photos" / "plate.png"
    cv2.imwrite(str(photo), make_photo()[:, :, ::-1])
    shop = Shop(photo.parent, folder / "calls.txt")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ANOMALY_AGENT_HOME", str(folder / "home"))
        assert shop.run(photo, folder / "a", "--record", str(folder / "record")) == 0
    return Recorded(shop, photo, folder / "a", folder / "record")


@pytest.fixture
def recorded(first_run: Recorded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Recorded:
    shutil.copytree(first_run.record, tmp_path / "record")
    monkeypatch.setenv("ANOMALY_AGENT_HOME", str(tmp_path / "another-store"))  # its handles are others
    return replace(first_run, record=tmp_path / "record")


def result_of(out: Path) -> dict[str, Any]:
    result: dict[str, Any] = json.loads((out / "result.json").read_text())
    return result


def told(out: Path) -> list[tuple[str, str]]:
    return [(event["role"], event["content"]) for event in read_session(out).of_type("message")]


def entries(folder: Path, tool: str) -> list[Path]:
    return [
        p for p in sorted(folder.glob("calls/*/*.json")) if json.loads(p.read_text())["question"].get("tool") == tool
    ]


def episode(
    shop: Shop, recording: Recording | None, folder: Path, photo: Path, policy: Policy | None = None, **server: Any
) -> Episode:
    """One episode over the shop's server; the policy is recorded too where one is given."""
    task = Task(str(photo), "plate", "scratch")

    async def run() -> Episode:
        async with Toolbox([shop.server(**server)], recording=recording) as toolbox:
            chosen = policy or Planner(task)
            if policy and recording:
                chosen = RecordedPolicy(policy, recording, toolbox.signatures())
            with SessionWriter(folder) as session:
                return await run_episode(task, chosen, toolbox, session)

    return anyio.run(run)


def test_a_replayed_run_is_the_recorded_one_to_the_byte_without_a_server(recorded: Recorded, tmp_path: Path) -> None:
    paid = recorded.shop.calls()
    assert paid["image_gen"] >= 1
    out = tmp_path / "b"
    assert recorded.shop.run(recorded.photo, out, "--replay", str(recorded.record)) == 0
    assert recorded.shop.calls() == paid
    assert not (tmp_path / "another-store").exists()
    for name in PICTURES:
        assert (recorded.out / f"{name}.png").read_bytes() == (out / f"{name}.png").read_bytes(), name
    assert told(recorded.out) == told(out)
    first, second = read_session(recorded.out), read_session(out)
    for field in ("protocol_hash", "tools", "servers", "policy"):
        assert first.start[field] == second.start[field]
    live, replayed = first.of_type("tool_result"), second.of_type("tool_result")
    assert [e["cache_key"] for e in live] == [e["cache_key"] for e in replayed]
    assert not any(event["replayed"] for event in live)
    assert all(event["replayed"] and event["cost_usd"] == 0 for event in replayed)
    assert [e["recorded_cost_usd"] for e in replayed] == [e["cost_usd"] for e in live]
    before, after = result_of(recorded.out), result_of(out)
    same = ("score", "images", "mask", "status", "passed", "turns", "backends")
    assert [before[key] for key in same] == [after[key] for key in same]
    assert before["cost_usd"] > 0
    assert after["cost_usd"] == 0
    assert after["ledger"]["image_gen"]["recorded_cost_usd"] == before["ledger"]["image_gen"]["cost_usd"]


def test_calls_that_a_recording_lacks_are_made_and_no_others(recorded: Recorded, tmp_path: Path) -> None:
    shop, out = recorded.shop, tmp_path / "b"
    before = shop.calls()
    judged = entries(recorded.record, "quality_eval")
    for path in [*judged, *entries(recorded.record, "mask_gen")]:
        path.unlink()
    assert shop.run(recorded.photo, out, "--replay-else-live", str(recorded.record)) == 0
    assert dict(shop.calls() - before) == {"started": 1, "quality_eval": len(judged), "mask_gen": 1}
    for name in PICTURES:
        assert (recorded.out / f"{name}.png").read_bytes() == (out / f"{name}.png").read_bytes(), name
    assert result_of(out)["cost_usd"] == pytest.approx(0.01 * len(judged))
    assert shop.run(recorded.photo, tmp_path / "c", "--replay", str(recorded.record)) == 0


@pytest.mark.parametrize(("change", "tool"), [("seed", "image_gen"), ("prompt", "prompt_gen"), ("photo", "photo")])
def test_a_call_that_differs_in_anything_is_not_answered_from_the_recording(
    recorded: Recorded, tmp_path: Path, capsys: pytest.CaptureFixture[str], change: str, tool: str
) -> None:
    options = {"seed": ["--seed", "9"], "prompt": ["--anomaly", "dent"], "photo": []}[change]
    photo = tmp_path / "plate.png"
    cv2.imwrite(str(photo), make_photo(seed=int(change == "photo"))[:, :, ::-1])
    code = recorded.shop.run(photo, tmp_path / "b", "--replay", str(recorded.record), *options)
    assert code == (2 if change == "photo" else 1)
    said = " ".join(capsys.readouterr().err.split())
    assert f"this call of {tool} (key " in said
    assert f"--replay-else-live {recorded.record}" in said
    assert read_session(tmp_path / "b").complete


def test_results_of_an_older_backend_are_not_taken_for_those_of_the_new_one(
    shop: Shop, photo_file: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "record"
    shop.options = ("image_gen=version:A",)
    episode(shop, Recording(folder, Mode.RECORD), tmp_path / "a", photo_file)
    other = photo_file.with_name("other.png")
    cv2.imwrite(str(other), make_photo(seed=2))
    shop.options = ("image_gen=version:B",)
    with caplog.at_level(logging.WARNING):
        episode(shop, Recording(folder, Mode.REPLAY_ELSE_LIVE), tmp_path / "b", other)
    assert "version" in caplog.text
    before = shop.calls()
    replay = episode(shop, Recording(folder, Mode.REPLAY), tmp_path / "c", photo_file)
    assert replay.stop_reason is StopReason.TOOL_ERROR
    assert "this call of image_gen" in str(replay.error)
    episode(shop, Recording(folder, Mode.REPLAY_ELSE_LIVE), tmp_path / "d", photo_file)
    made = shop.calls() - before
    assert made["image_gen"] >= 1
    assert "prompt_gen" not in made


def test_a_server_with_other_tools_than_the_recorded_ones_is_refused(
    shop: Shop, home: Path, photo_file: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "record"
    episode(shop, Recording(folder, Mode.RECORD), tmp_path / "a", photo_file)
    for path in entries(folder, "image_gen"):
        path.unlink()
    script = str(ROOT / "tests" / "servers" / "faulty.py")
    env = {"PYTHONPATH": str(ROOT), "ANOMALY_AGENT_HOME": str(home)}
    server = Server(command=[sys.executable, script, "crashes", str(photo_file.parent)], env=env, identity="paid")

    async def run() -> Episode:
        task = Task(str(photo_file), "plate", "scratch")
        async with Toolbox([server], recording=Recording(folder, Mode.REPLAY_ELSE_LIVE)) as toolbox:
            with SessionWriter(tmp_path / "b") as session:
                return await run_episode(task, Planner(task), toolbox, session)

    ended = anyio.run(run)
    assert ended.stop_reason is StopReason.TOOL_ERROR
    assert "image_gen is described in another way" in str(ended.error)


@pytest.mark.parametrize("damage", ["cut", "field", "image"])
def test_a_damaged_recording_is_an_error_that_names_the_file(
    recorded: Recorded, tmp_path: Path, capsys: pytest.CaptureFixture[str], damage: str
) -> None:
    path = entries(recorded.record, "image_gen")[0]
    fields = json.loads(path.read_text())
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-40])
    elif damage == "field":
        del fields["answer"]["payload"]
        path.write_text(json.dumps(fields))
    else:
        path = recorded.record / "images" / f"{fields['images']['image']}.png"
        path.write_bytes(path.read_bytes()[:-1] + b"x")
    assert recorded.shop.run(recorded.photo, tmp_path / "b", "--replay", str(recorded.record)) == 1
    said = capsys.readouterr().err
    assert f"{path} is damaged" in said
    assert "Traceback" not in said


def test_a_refusal_that_was_paid_for_is_replayed_and_a_passing_failure_is_not_kept(
    shop: Shop, photo_file: Path, tmp_path: Path
) -> None:
    shop.options = ("image_gen=price:0.04,refuse:1",)
    folder = tmp_path / "record"
    again = [EDIT, call("image_gen", prompt=f"{PROMPT} Make it faint.", target_image=1), JUDGE, MASK, DONE]
    first = episode(shop, Recording(folder, Mode.RECORD), tmp_path / "a", photo_file, Script(again))
    assert first.stop_reason is StopReason.ANSWERED
    assert first.ledger.lines["image_gen"].failed == 1
    paid = shop.calls()
    second = episode(shop, Recording(folder, Mode.REPLAY), tmp_path / "b", photo_file, Script(again))
    assert second.stop_reason is StopReason.ANSWERED
    assert read_session(tmp_path / "b").of_type("tool_result")[0]["error_class"] == "refused"
    assert second.ledger.to_json()["image_gen"]["recorded_cost_usd"] == 0.08
    assert shop.calls() == paid

    shop.options = ("image_gen=price:0.04,limit:1",)
    other = tmp_path / "other"
    failed = episode(shop, Recording(other, Mode.RECORD), tmp_path / "c", photo_file, Script(again))
    assert failed.stop_reason is StopReason.TOOL_ERROR
    assert entries(other, "image_gen") == []


def test_a_models_turns_are_replayed_without_one_call_of_it(shop: Shop, photo_file: Path, tmp_path: Path) -> None:
    turns, folder = [EDIT, JUDGE, MASK, DONE], tmp_path / "record"
    model = Script(turns, price=0.02)
    first = episode(shop, Recording(folder, Mode.RECORD), tmp_path / "a", photo_file, model)
    assert first.stop_reason is StopReason.ANSWERED
    assert model.calls == 4
    silent = Script([], price=0.02)
    second = episode(shop, Recording(folder, Mode.REPLAY), tmp_path / "b", photo_file, silent)
    assert second.stop_reason is StopReason.ANSWERED
    assert silent.calls == 0
    assert second.cost_usd == 0
    assert second.ledger.to_json()["policy"]["recorded_cost_usd"] == 0.08
    calls = read_session(tmp_path / "b").of_type("model_call")
    assert all(event["replayed"] and event["recorded_cost_usd"] == 0.02 and event["model"] for event in calls)
    other = episode(
        shop, Recording(folder, Mode.REPLAY), tmp_path / "c", photo_file, Script(turns, model="another-model")
    )
    assert other.stop_reason is StopReason.POLICY_ERROR
    assert "this turn of the policy script (key " in str(other.error)


def test_a_run_on_an_openai_compatible_server_is_replayed_without_server_key_or_cost(
    shop: Shop, photo_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANOMALY_AGENT_POLICY_API_KEY", "sk-very-secret-key")
    record, model = tmp_path / "record", ["--model", "some-model", "--policy-price", "1,2"]
    replies = [Says(render_turn(turn)) for turn in (EDIT, JUDGE, MASK, DONE)]
    with FakeOpenAI(replies) as fake:
        assert shop.run(photo_file, tmp_path / "a", "--base-url", fake.url, *model, "--record", str(record)) == 0
        assert len(fake.requests) == 4
    paid = shop.calls()
    monkeypatch.delenv("ANOMALY_AGENT_POLICY_API_KEY")
    assert shop.run(photo_file, tmp_path / "b", *model, "--replay", str(record)) == 0
    assert shop.calls() == paid
    assert told(tmp_path / "a") == told(tmp_path / "b")
    before, after = result_of(tmp_path / "a"), result_of(tmp_path / "b")
    assert after["cost_usd"] == 0
    assert after["ledger"]["policy"]["recorded_cost_usd"] == before["ledger"]["policy"]["cost_usd"] > 0
    everything = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.suffix in (".json", ".jsonl"))
    assert b"sk-very-secret-key" not in everything


def test_the_same_call_in_one_recording_is_made_once(shop: Shop, photo_file: Path, tmp_path: Path) -> None:
    shop.options = (f"image_gen=until:{tmp_path / 'go'}",)
    recording = Recording(tmp_path / "record", Mode.RECORD)
    task = Task(str(photo_file), "plate", "scratch")
    shown: list[Episode] = []

    async def run() -> None:
        async with Toolbox([shop.server()], recording=recording) as toolbox:

            async def one(number: int) -> None:
                with SessionWriter(tmp_path / f"s{number}") as session:
                    policy = Script([EDIT, JUDGE, MASK, DONE])
                    shown.append(await run_episode(task, policy, toolbox, session))

            async with anyio.create_task_group() as group:
                for number in range(4):
                    group.start_soon(one, number)
                while shop.calls()["image_gen"] < 1:
                    await anyio.sleep(0.01)
                (tmp_path / "go").touch()

    anyio.run(run)
    assert shop.calls()["image_gen"] == 1
    assert len({ended.made[0].image.sha256 for ended in shown}) == 1
    assert all(ended.stop_reason is StopReason.ANSWERED for ended in shown)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--replay", "nowhere"], "no such folder; make a recording with --record nowhere"),
        (["--record", "a", "--replay", "b"], "exclude each other"),
        (["--budget-usd", "nan"], "--budget-usd nan is out of range"),
        (["--budget-usd", "-1"], "--budget-usd -1.0 is out of range"),
    ],
)
def test_options_that_cannot_be_meant_are_refused_before_anything_starts(
    shop: Shop, photo_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: Sequence[str], says: str
) -> None:
    assert shop.run(photo_file, tmp_path / "a", *options) == 2
    assert says in " ".join(capsys.readouterr().err.split())
    assert shop.calls() == {}


def test_an_empty_recording_says_how_to_make_one(home: Path, photo_file: Path, tmp_path: Path) -> None:
    async def run() -> None:
        server = Server(command=["never-started"])
        async with Toolbox([server], recording=Recording(tmp_path, Mode.REPLAY)):
            pass

    with pytest.raises(ToolboxError, match="record one with --record"):
        anyio.run(run)
