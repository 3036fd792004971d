"""What the comparison of rewards starts from and what it tells."""

from __future__ import annotations

import sys

import anyio
import pytest

from agent.session import Session, read_session
from benchmarks.reward_ablation import summary
from benchmarks.second_goes import SecondGoes
from tests.conftest import ROOT

sys.path.insert(0, str(ROOT / "examples"))
import closed_circle as circle


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> list[Session]:
    """Sessions of the teachers, with the real tools."""
    folder = tmp_path_factory.mktemp("teachers")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ANOMALY_AGENT_HOME", str(folder / "home"))
        patch.setattr(circle, "PASSES", 7.0)
        tasks = circle.make_tasks(circle.Plan(items=1, anomalies=1), folder / "photos", 24, 0)
        anyio.run(circle.record, tasks, folder / "sessions", SecondGoes)
    return [read_session(place) for place in sorted((folder / "sessions").iterdir())]


def scores(session: Session) -> list[float]:
    return [event["payload"]["score"] for event in session.of_type("tool_result") if event["tool"] == "quality_eval"]


def final(session: Session) -> int:
    return int((session.end or {})["answer"]["final_image_index"])


def test_the_teachers_finish_every_episode_without_a_slip(taught: list[Session]) -> None:
    assert len(taught) == 24
    assert all(session.end and session.end["stop_reason"] == "answered" for session in taught)
    assert all(session.end and session.end["repairs"] == 0 for session in taught)


def test_some_second_goes_mend_and_some_spoil_and_some_answer_the_worse_image(taught: list[Session]) -> None:
    twice = [session for session in taught if len(scores(session)) == 2]
    assert any(first < 7 <= second for first, second in map(scores, twice))
    assert any(first >= 7 > second for first, second in map(scores, twice))
    worse = [session for session in twice if scores(session)[final(session) - 2] < max(scores(session))]
    assert worse
    assert any(len(scores(session)) == 1 and scores(session)[0] < 7 for session in taught), "content with too little"


def test_the_summary_tells_before_after_and_the_last_tenth_of_the_rollouts() -> None:
    history = [{"eval_reward": 1.0, "eval_score": 7.0}]
    history += [{"reward/total": 1.0, "episode/score": float(step), "step": step} for step in range(20)]
    history += [{"eval_reward": 1.5, "eval_score": 9.0}]
    assert summary(history) == {
        "before": {"score": 7.0},
        "after": {"score": 9.0},
        "rollouts": {"episode/score": 18.5},
        "steps": 20,
    }
