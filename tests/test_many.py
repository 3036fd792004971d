"""Many episodes over one toolbox: they help each other's waiting and never each other's failing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import anyio
import cv2
import pytest

from agent.budget import Budget
from agent.many import Finished, run_many
from agent.policies import Policy
from agent.policies.planner import Planner
from agent.session import read_session
from agent.task import StopReason, Task
from agent.toolbox import Server, Toolbox, builtin_server

from .conftest import make_photo
from .paid import DONE, EDIT, FAILED, JUDGE, MASK, ROOT, Acts, Script, Shop


@pytest.fixture
def shop(home: Path, photo_file: Path, tmp_path: Path) -> Shop:
    return Shop(photo_file.parent, tmp_path / "calls.txt")


def tasks(photo: Path, number: int) -> list[Task]:
    return [Task(str(photo), "plate", "scratch", seed=seed) for seed in range(number)]


def scripted(task: Task) -> Policy:
    return Script([EDIT, JUDGE, MASK, DONE])


async def gather(
    jobs: Sequence[Task],
    make_policy: Callable[[Task], Policy],
    server: Server,
    folder: Path,
    processes: int = 1,
    **options: Any,
) -> list[Finished]:
    async with Toolbox([server], processes=processes) as toolbox:
        named = lambda number, task: folder / f"s{number}"  # noqa: E731
        async with run_many(jobs, make_policy, toolbox, named, **options) as finished:
            return [one async for one in finished]


def stop_reasons(folder: Path) -> list[str]:
    ends = [read_session(path.parent).end for path in sorted(folder.glob("*/session.jsonl"))]
    return [str(end["stop_reason"]) if end else "none" for end in ends]


def test_one_that_hangs_and_one_that_crashes_leave_the_other_fourteen_alone(
    shop: Shop, photo_file: Path, tmp_path: Path
) -> None:
    async def crash() -> None:
        raise ZeroDivisionError("secret")

    def policy(task: Task) -> Policy:
        return Acts(anyio.sleep_forever) if task.seed == 3 else Acts(crash) if task.seed == 5 else scripted(task)

    async def run() -> list[Finished]:
        async with Toolbox([builtin_server([photo_file.parent])]) as toolbox:
            named = lambda number, task: tmp_path / "out" / f"s{number}"  # noqa: E731
            async with run_many(tasks(photo_file, 16), policy, toolbox, named, limit=16) as finished:
                return [await finished.receive() for _ in range(15)]

    done = {one.number: one for one in anyio.run(run)}
    assert sorted(done) == [number for number in range(16) if number != 3]
    assert done[5].episode.stop_reason is StopReason.POLICY_ERROR
    assert "ZeroDivisionError" in str(done[5].error)
    assert "secret" not in (tmp_path / "out" / "s5" / "session.jsonl").read_text()
    others = [one for number, one in done.items() if number != 5]
    assert all(one.error is None and one.episode.mask is not None for one in others)
    assert len({one.episode.made[0].image.sha256 for one in others}) == 14
    ends = stop_reasons(tmp_path / "out")
    assert (ends.count("answered"), ends.count("cancelled"), ends.count("policy_error")) == (14, 1, 1)


def test_an_episode_that_takes_too_long_is_cancelled_and_says_so(shop: Shop, photo_file: Path, tmp_path: Path) -> None:
    async def run() -> list[Finished]:
        policy = lambda task: Acts(anyio.sleep_forever)  # noqa: E731
        server = builtin_server([photo_file.parent])
        return await gather(tasks(photo_file, 3), policy, server, tmp_path / "out", seconds=0.1)

    done = anyio.run(run)
    assert [one.error for one in done] == ["cancelled after 0.1 s, the most that an episode may take"] * 3
    assert stop_reasons(tmp_path / "out") == ["cancelled"] * 3


def test_concurrent_episodes_come_to_what_each_comes_to_alone(shop: Shop, photo_file: Path, tmp_path: Path) -> None:
    other = photo_file.with_name("other.png")
    cv2.imwrite(str(other), make_photo(seed=4))
    jobs = [*tasks(photo_file, 3), *tasks(other, 3)]

    async def run(folder: Path, limit: int, processes: int) -> dict[int, Finished]:
        server = builtin_server([photo_file.parent])
        return {one.number: one for one in await gather(jobs, Planner, server, folder, processes, limit=limit)}

    alone = anyio.run(run, tmp_path / "a", 1, 1)
    together = anyio.run(run, tmp_path / "b", 6, 2)
    for number in range(6):
        one, same = alone[number].episode, together[number].episode
        assert [made.image.sha256 for made in one.made] == [made.image.sha256 for made in same.made]
        assert one.mask is not None
        assert same.mask is not None
        assert one.mask.sha256 == same.mask.sha256


def test_a_server_takes_more_waiting_calls_at_once_than_it_has_threads(
    shop: Shop, photo_file: Path, tmp_path: Path
) -> None:
    shop.options = (f"image_gen=until:{tmp_path / 'go'}",)

    async def run() -> list[Finished]:
        async with anyio.create_task_group() as group:

            async def release_when_all_wait() -> None:
                while shop.calls()["image_gen"] < 64:
                    await anyio.sleep(0.01)
                (tmp_path / "go").touch()

            group.start_soon(release_when_all_wait)
            policy = lambda task: Script([EDIT, FAILED])  # noqa: E731
            return await gather(tasks(photo_file, 64), policy, shop.server(), tmp_path / "out", limit=64)

    done = anyio.run(run)
    assert [len(one.episode.made) for one in done] == [1] * 64


@pytest.mark.parametrize("processes", [1, 2])
def test_the_death_of_the_server_is_told_once_in_every_episode(
    shop: Shop, photo_file: Path, tmp_path: Path, processes: int
) -> None:
    shop.options = (f"image_gen=until:{tmp_path / 'go'},dies",)

    async def run() -> list[Finished]:
        async with anyio.create_task_group() as group:

            async def release_when_all_wait() -> None:
                while shop.calls()["image_gen"] < 6:
                    await anyio.sleep(0.01)
                (tmp_path / "go").touch()

            group.start_soon(release_when_all_wait)
            jobs = tasks(photo_file, 8)
            return await gather(jobs, scripted, shop.server(), tmp_path / "out", processes, limit=6)

    done = anyio.run(run)
    assert len(done) == 8
    assert all("died" in str(one.error) for one in done)
    assert stop_reasons(tmp_path / "out") == ["tool_error"] * 8
    for path in (tmp_path / "out").glob("*/session.jsonl"):
        assert path.read_text().count('"error_class": "died"') <= 1


def test_no_more_than_the_limit_run_at_once(shop: Shop, photo_file: Path, tmp_path: Path) -> None:
    running, most = 0, 0

    async def act() -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await anyio.lowlevel.checkpoint()
        running -= 1
        raise ZeroDivisionError

    async def run() -> list[Finished]:
        return await gather(tasks(photo_file, 7), lambda _: Acts(act), shop.server(), tmp_path / "out", limit=2)

    assert len(anyio.run(run)) == 7
    assert 1 <= most <= 2


def test_leaving_early_cancels_and_records_what_still_runs(shop: Shop, photo_file: Path, tmp_path: Path) -> None:
    def policy(task: Task) -> Policy:
        return scripted(task) if task.seed == 0 else Acts(anyio.sleep_forever)

    async def run() -> Finished:
        async with Toolbox([builtin_server([photo_file.parent])]) as toolbox:
            named = lambda number, task: tmp_path / "out" / f"s{number}"  # noqa: E731
            async with run_many(tasks(photo_file, 3), policy, toolbox, named, limit=3) as finished:
                return await finished.receive()

    assert anyio.run(run).number == 0
    assert stop_reasons(tmp_path / "out") == ["answered", "cancelled", "cancelled"]


def test_a_budget_shared_by_eight_episodes_is_never_passed(shop: Shop, photo_file: Path, tmp_path: Path) -> None:
    shop.options = ("image_gen=price:0.07", "quality_eval=price:0.01")
    budget = Budget(0.3)

    async def run() -> list[Finished]:
        jobs = tasks(photo_file, 8)
        return await gather(jobs, scripted, shop.server(), tmp_path / "out", limit=8, budget=budget)

    done = anyio.run(run)
    calls = shop.calls()
    spent = 0.07 * calls["image_gen"] + 0.01 * calls["quality_eval"]
    assert spent == pytest.approx(budget.spent_usd)
    assert 0.23 < budget.spent_usd <= 0.3
    assert budget.reserved_usd == 0
    assert sum(one.episode.cost_usd for one in done) == pytest.approx(spent)
    ends = stop_reasons(tmp_path / "out")
    assert set(ends) <= {"answered", "budget"}
    assert ends.count("budget") >= 4


def test_a_folder_that_holds_a_session_already_ends_that_task_alone(
    shop: Shop, photo_file: Path, tmp_path: Path
) -> None:
    (tmp_path / "out" / "s0").mkdir(parents=True)
    (tmp_path / "out" / "s0" / "session.jsonl").write_text(json.dumps({"v": 1}) + "\n")

    async def run() -> list[Finished]:
        return await gather(tasks(photo_file, 2), scripted, builtin_server([photo_file.parent]), tmp_path / "out")

    done = {one.number: one for one in anyio.run(run)}
    assert "already holds a session" in str(done[0].error)
    assert done[1].error is None


def test_a_number_of_threads_that_is_none_is_refused_at_the_start() -> None:
    env = os.environ | {"ANOMALY_AGENT_THREADS": "many", "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-m", "mcp_servers"], env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "ANOMALY_AGENT_THREADS=many: choose a number from 1 to 1024" in done.stderr
