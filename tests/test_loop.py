"""One episode through real servers: what policies and tools do wrong is settled, recorded, and never lost."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import anyio
import pytest

from agent.episode import Episode
from agent.loop import run_episode
from agent.policies import Policy, Reply
from agent.policies.planner import Planner
from agent.protocol import Answer, Message, ToolCall, Turn, parse_turn, render_turn
from agent.run import main as run_command
from agent.session import Session, SessionWriter, read_session
from agent.task import StopReason, Task
from agent.toolbox import Server, Toolbox, ToolboxError, builtin_server

ROOT = Path(__file__).resolve().parent.parent
PROMPT = (
    "Using the provided image, change only the surface of the plate to introduce a scratch. The defect is "
    "medium-sized and pronounced. Everything else stays exactly as it is."
)


class Script(Policy):
    """A policy that says what it was given, turn by turn."""

    name = "script"

    def __init__(self, turns: Sequence[str | Turn]) -> None:
        self._turns = iter(turns)
        self.seen: list[Sequence[Message]] = []

    async def next_turn(self, messages: Sequence[Message], signatures: Sequence[dict[str, Any]]) -> Reply:
        self.seen.append(list(messages))
        turn = next(self._turns)
        return Reply(turn if isinstance(turn, str) else render_turn(turn))


def call(name: str, **arguments: Any) -> Turn:
    return Turn("next", ToolCall(name, arguments))


EDIT = call("image_gen", prompt=PROMPT, target_image=1)
JUDGE = call("quality_eval", anomaly_image=2, item_name="plate", anomaly_type="scratch")
MASK = call("mask_gen", anomaly_image=2)
DONE = Turn("done", Answer("success", 2, True, "a scratch"))


def play(
    policy: Any, photo: Path, folder: Path, server: Server | None = None, timeout: float = 60.0, **options: Any
) -> tuple[Episode, Session]:
    task = Task(str(photo), "plate", "scratch", **options)

    async def main() -> Episode:
        async with Toolbox([server or builtin_server([photo.parent])], timeout) as toolbox:
            with SessionWriter(folder) as session:
                return await run_episode(task, policy or Planner(task), toolbox, session)

    return anyio.run(main), read_session(folder)


def faulty(fault: str, photo: Path) -> Server:
    env = {"PYTHONPATH": str(ROOT), "ANOMALY_AGENT_HOME": os.environ["ANOMALY_AGENT_HOME"]}
    return Server(command=[sys.executable, str(ROOT / "tests/servers/faulty.py"), fault, str(photo.parent)], env=env)


def tool_payloads(session: Session) -> list[dict[str, Any]]:
    return [event["payload"] for event in session.of_type("tool_result")]


def test_an_episode_ends_with_an_answer_a_mask_and_a_complete_log(home: Path, photo_file: Path, tmp_path: Path) -> None:
    episode, session = play(None, photo_file, tmp_path / "s")
    assert episode.stop_reason is StopReason.ANSWERED
    assert episode.mask is not None
    assert session.complete
    assert session.end is not None
    assert session.end["stop_reason"] == "answered"
    for event in session.of_type("message") + session.of_type("tool_result"):
        for image in event["images"]:
            assert session.image(image["sha256"]).startswith(b"\x89PNG")


def test_the_planner_writes_the_protocol_and_follows_the_order_of_algorithm_1(
    home: Path, photo_file: Path, tmp_path: Path
) -> None:
    _, session = play(None, photo_file, tmp_path / "s", faulty("strict", photo_file))
    turns = [parse_turn(event["content"]) for event in session.of_type("message") if event["role"] == "assistant"]
    names = [turn.action.name for turn in turns if isinstance(turn.action, ToolCall)]
    assert names == [
        *("prompt_gen", "image_gen", "quality_eval", "knowledge_retrieval"),
        *("image_gen", "quality_eval", "image_gen", "quality_eval", "mask_gen"),
    ]
    assert isinstance(turns[-1].action, Answer)
    assert turns[-1].action.status == "below_threshold"
    prompts = [turn.action.arguments["prompt"] for turn in turns if getattr(turn.action, "name", "") == "image_gen"]
    assert len(set(prompts)) == 3


def test_the_model_sees_numbers_where_the_servers_see_handles(home: Path, photo_file: Path, tmp_path: Path) -> None:
    script = Script([EDIT, JUDGE, MASK, DONE])
    episode, session = play(script, photo_file, tmp_path / "s", seed=5)
    assert episode.stop_reason is StopReason.ANSWERED
    told = "\n".join(message.content for message in script.seen[-1])
    assert "img_" not in told
    assert str(photo_file.parent) not in told
    bound = [event["bound"] for event in session.of_type("tool_result")]
    assert bound[0]["seed"] == 5
    assert bound[1]["anomaly_image"].startswith("img_")
    assert bound[1]["normal_image"].startswith("img_")
    system = script.seen[0][0].content
    assert '"anomaly_image": {"type": "integer"' in system
    assert "normal_image" not in system
    assert '"seed"' not in system


@pytest.mark.parametrize(
    ("turn", "says"),
    [
        (call("paint", image=1), "there is no tool 'paint'"),
        (call("image_gen", prompt=PROMPT, target_image=7), "image number from 1 to 1"),
        (call("image_gen", prompt=PROMPT, target_image=0), "image number from 1 to 1"),
        (call("image_gen", prompt=PROMPT, target_image=-1), "image number from 1 to 1"),
        (call("image_gen", prompt=PROMPT, target_image=True), "image number from 1 to 1"),
        (call("image_gen", prompt=PROMPT, target_image="img_x"), "image number from 1 to 1"),
        (call("image_gen", prompt=PROMPT, target_image=1, seed=3), "takes no argument 'seed'"),
        (call("image_gen", target_image=1), "'prompt' is missing"),
        (call("image_gen", prompt="Make it nicer.", target_image=1), "no defect named"),
        (call("prompt_gen", image=1, item_name="plate", anomaly_type="sadness"), "sadness"),
    ],
)
def test_a_wrong_call_comes_back_as_an_error_the_policy_can_act_on(
    home: Path, photo_file: Path, tmp_path: Path, turn: Turn, says: str
) -> None:
    script = Script([turn, EDIT, JUDGE, MASK, DONE])
    episode, session = play(script, photo_file, tmp_path / "s")
    assert says in script.seen[1][-1].content
    assert session.of_type("tool_result")[0]["ok"] is False
    assert episode.stop_reason is StopReason.ANSWERED


def test_an_unreadable_turn_is_repaired_once_told_what_is_wrong(home: Path, photo_file: Path, tmp_path: Path) -> None:
    script = Script(["I think I should edit.", EDIT, MASK, DONE])
    episode, _ = play(script, photo_file, tmp_path / "s")
    assert "write <thinking>" in script.seen[1][-1].content
    assert episode.repairs == 1
    assert episode.stop_reason is StopReason.ANSWERED


def test_a_policy_that_stays_unreadable_ends_as_policy_error(home: Path, photo_file: Path, tmp_path: Path) -> None:
    episode, session = play(Script(["no"] * 9), photo_file, tmp_path / "s")
    assert episode.stop_reason is StopReason.POLICY_ERROR
    assert session.end is not None
    assert session.end["repairs"] == 3


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (Answer("success", 2, True, ""), "no mask for image 2"),
        (Answer("success", 5, False, ""), "not one of the synthesized images"),
        (Answer("success", 1, False, ""), "not one of the synthesized images"),
        (Answer("success", None, False, ""), "final_image_index null"),
    ],
)
def test_an_answer_that_differs_from_what_happened_is_sent_back(
    home: Path, photo_file: Path, tmp_path: Path, answer: Answer, says: str
) -> None:
    script = Script([EDIT, Turn("done", answer), MASK, DONE])
    episode, _ = play(script, photo_file, tmp_path / "s")
    assert says in script.seen[2][-1].content
    assert episode.stop_reason is StopReason.ANSWERED


def test_an_episode_without_an_answer_stops_at_its_last_turn(home: Path, photo_file: Path, tmp_path: Path) -> None:
    episode, session = play(Script([EDIT] * 9), photo_file, tmp_path / "s", max_turns=3)
    assert episode.stop_reason is StopReason.MAX_TURNS
    assert len(episode.made) == 3
    assert session.complete


@pytest.mark.parametrize(
    ("fault", "says"), [("dies", "died"), ("hangs", "raise --call-timeout"), ("garbage", "no JSON")]
)
def test_a_server_that_fails_mid_call_ends_the_episode_with_the_log_kept(
    home: Path, photo_file: Path, tmp_path: Path, fault: str, says: str
) -> None:
    timeout = 8.0 if fault == "hangs" else 60.0
    episode, session = play(None, photo_file, tmp_path / "s", faulty(fault, photo_file), timeout)
    assert episode.stop_reason is StopReason.TOOL_ERROR
    assert says in str(episode.error)
    assert [event["tool"] for event in session.of_type("tool_result")] == ["prompt_gen", "image_gen"]
    assert session.complete


def test_a_crash_inside_a_tool_tells_nothing_of_its_cause(home: Path, photo_file: Path, tmp_path: Path) -> None:
    episode, session = play(None, photo_file, tmp_path / "s", faulty("crashes", photo_file))
    assert episode.stop_reason is StopReason.TOOL_ERROR
    assert "secret" not in (tmp_path / "s" / "session.jsonl").read_text()
    assert session.complete


def test_a_cancelled_episode_is_recorded_as_cancelled(home: Path, photo_file: Path, tmp_path: Path) -> None:
    class Stops(Policy):
        name = "stops"

        async def next_turn(self, messages: Sequence[Message], signatures: Sequence[dict[str, Any]]) -> Reply:
            if any(message.role == "tool" for message in messages):
                scopes[0].cancel()
                await anyio.lowlevel.checkpoint()
            return Reply(render_turn(EDIT))

    scopes: list[anyio.CancelScope] = []

    async def main() -> None:
        async with Toolbox([builtin_server([photo_file.parent])]) as toolbox:
            with SessionWriter(tmp_path / "s") as session, anyio.CancelScope() as scope:
                scopes.append(scope)
                await run_episode(Task(str(photo_file), "plate", "scratch"), Stops(), toolbox, session)

    anyio.run(main)
    session = read_session(tmp_path / "s")
    assert session.end is not None
    assert session.end["stop_reason"] == "cancelled"


def test_a_missing_tool_is_named_before_the_episode_starts(home: Path, tmp_path: Path) -> None:
    server = Server(command=[sys.executable, "-m", "mcp_servers.mask_gen"], env={"PYTHONPATH": str(ROOT)})

    async def main() -> None:
        async with Toolbox([server]):
            pass

    with pytest.raises(ToolboxError, match="no server offers prompt_gen"):
        anyio.run(main)


def test_a_server_that_starts_and_says_nothing_is_given_up_and_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.mcp_client.CONNECT_TIMEOUT", 0.5)
    started = tmp_path / "started"
    code = f"import os, sys; open({str(started)!r}, 'w').write(str(os.getpid())); sys.stdin.read()"
    silent = Server(command=[sys.executable, "-c", code], env={})

    async def main() -> None:
        async with Toolbox([silent]):
            pass

    with pytest.raises(ToolboxError, match=r"says nothing within 0.5 s: check that the command starts by hand"):
        anyio.run(main)
    if started.exists():
        with pytest.raises(ProcessLookupError):
            os.kill(int(started.read_text()), 0)


def test_a_command_that_ends_before_a_session_began_names_no_report(
    photo_file: Path, home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [str(photo_file), "--item", "plate", "--anomaly", "scratch", "--out", str(tmp_path / "o")]
    assert run_command([*arguments, "--server", "no-such-command"]) == 2
    told = capsys.readouterr()
    assert "tool server 'no-such-command' cannot be reached" in told.err
    assert "report" not in told.out
