"""What a step of reinforcement learning learns from: the zero-advantage filter and the replay buffer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training.grpo.batches import Batch, BatchPlan
from training.grpo.config import GrpoSection, ReplaySection
from training.grpo.replay_buffer import ReplayBuffer
from training.grpo.trajectory import Group, Trajectory

DIFFERENT, SAME = (1.0, 0.0), (0.5, 0.5)


def group(task: int, step: int, totals: Sequence[float | None] = DIFFERENT) -> Group:
    return Group(task, step, [Trajectory((1,), (2,), (1,), (-0.5,), (b"",), total=total) for total in totals])


def keys(groups: Sequence[Group]) -> list[tuple[int, int]]:
    return [(one.task, one.step) for one in groups]


class Roller:
    """Rolls out tasks: groups of those in ``teaching`` earn different rewards. ``waves``: the tasks of each call."""

    def __init__(self, step: int, teaching: Sequence[int]) -> None:
        self.step, self.teaching = step, set(teaching)
        self.waves: list[list[int]] = []

    def __call__(self, numbers: Sequence[int]) -> list[Group]:
        self.waves.append(list(numbers))
        return [group(number, self.step, DIFFERENT if number in self.teaching else SAME) for number in numbers]


def plan(tasks: int = 10, seed: int = 0, size: int = 0, share: float = 0.0, age: int = 4, **grpo: object) -> BatchPlan:
    section = GrpoSection.model_validate({"group_size": 2, **grpo})
    return BatchPlan(section, ReplaySection(size=size, share=share, max_age=age), tasks, seed)


def test_a_buffer_keeps_whole_groups_and_its_capacity_counts_rollouts() -> None:
    buffer = ReplayBuffer(size=7, max_age=10)
    buffer.add(group(task, 0, (0.0, 1.0, 2.0)) for task in range(3))
    assert keys(list(buffer.groups)) == [(1, 0), (2, 0)]
    assert len(buffer) == 6
    assert all(len(one.rollouts) == 3 for one in buffer.draw(5, 1, Random(0)))


def test_a_buffer_takes_no_group_that_teaches_nothing_is_replayed_or_is_larger_than_itself() -> None:
    buffer = ReplayBuffer(size=3, max_age=10)
    replayed = Group(2, 0, group(2, 0).rollouts, replayed=True)
    buffer.add([group(0, 0, SAME), group(1, 0, (1.0, None)), replayed, group(3, 0, (0.0, 1.0, 2.0, 3.0))])
    assert len(buffer) == 0


def test_a_group_is_drawn_until_it_is_too_old_and_then_dropped() -> None:
    buffer = ReplayBuffer(size=100, max_age=2)
    buffer.add([group(0, 0), group(1, 1)])
    assert sorted(keys(buffer.draw(5, 2, Random(0)))) == [(0, 0), (1, 1)]
    assert keys(buffer.draw(5, 3, Random(0))) == [(1, 1)]
    assert keys(list(buffer.groups)) == [(1, 1)]


def test_drawn_groups_are_different_marked_as_replayed_and_stay_in_the_buffer() -> None:
    buffer = ReplayBuffer(size=100, max_age=2)
    buffer.add([group(task, 0) for task in range(5)])
    drawn = buffer.draw(3, 1, Random(0), but={(0, 0), (1, 0)})
    assert sorted(keys(drawn)) == [(2, 0), (3, 0), (4, 0)]
    assert all(one.replayed for one in drawn)
    assert len(buffer.groups) == 5
    assert not any(one.replayed for one in buffer.groups)


def test_a_buffer_comes_back_from_its_file_as_it_was(tmp_path: Path) -> None:
    buffer = ReplayBuffer(size=8, max_age=2)
    buffer.add([group(0, 0), group(1, 1)])
    buffer.save(tmp_path / "replay.pt")
    again = ReplayBuffer(size=8, max_age=2)
    again.load(tmp_path / "replay.pt")
    assert again.groups == buffer.groups
    again.add([group(2, 2), group(3, 2), group(4, 2)])
    assert keys(list(again.groups)) == [(1, 1), (2, 2), (3, 2), (4, 2)]


def test_a_buffer_that_was_larger_when_it_was_saved_is_cut_to_its_size(tmp_path: Path) -> None:
    buffer = ReplayBuffer(size=8, max_age=2)
    buffer.add([group(task, 0) for task in range(4)])
    buffer.save(tmp_path / "replay.pt")
    for size, kept in ((4, [(2, 0), (3, 0)]), (0, [])):
        smaller = ReplayBuffer(size=size, max_age=2)
        smaller.load(tmp_path / "replay.pt")
        assert keys(list(smaller.groups)) == kept


def test_groups_with_equal_rewards_are_replaced_by_groups_of_other_tasks() -> None:
    make = Roller(0, teaching=range(1, 10))
    batch = plan().fill([0, 1, 2], 0, make)
    assert [wave[:3] for wave in make.waves[:1]] == [[0, 1, 2]]
    assert len(make.waves[1]) == 1
    assert make.waves[1][0] not in (0, 1, 2)
    assert [one.task for one in batch.groups] == [make.waves[1][0], 1, 2]
    assert all(one.teaches for one in batch.groups)
    assert [one.task for one in batch.made] == [0, 1, 2, *make.waves[1]]
    assert batch.resampled == 1


@pytest.mark.parametrize("waves", [0, 1, 3])
def test_tasks_are_drawn_again_at_most_as_often_as_configured(waves: int) -> None:
    make = Roller(0, teaching=[])
    batch = plan(tasks=50, resample=waves).fill([0, 1], 0, make)
    assert len(make.waves) == 1 + waves
    assert len({task for wave in make.waves for task in wave}) == 2 * (1 + waves)
    assert len(batch.groups) == 2
    assert batch.resampled == 2 * waves


def test_without_other_tasks_no_task_is_rolled_out_twice() -> None:
    make = Roller(0, teaching=[])
    batch = plan(tasks=3, resample=5).fill([0, 1], 0, make)
    assert [len(wave) for wave in make.waves] == [2, 1]
    assert len(batch.groups) == 2


def test_groups_that_other_tasks_could_not_replace_are_taken_from_the_buffer() -> None:
    chosen = plan(tasks=3, size=100)
    chosen.fill([0, 1, 2], 0, Roller(0, teaching=[0, 1, 2]))
    batch = chosen.fill([0, 1, 2], 1, Roller(1, teaching=[1]))
    assert [one.step for one in batch.groups] == [0, 1, 0]
    assert [one.replayed for one in batch.groups] == [True, False, True]
    assert len(set(keys(batch.groups))) == 3


def test_the_filter_finds_every_group_of_the_buffer_that_is_not_in_the_batch_yet() -> None:
    chosen = plan(tasks=4, size=100, share=0.5)
    chosen.fill([0, 1, 2, 3], 0, Roller(0, teaching=[0, 1, 2, 3]))
    for step in range(1, 5):
        batch = chosen.fill([0, 1, 2, 3], step, Roller(step, teaching=[]))
        assert sorted(keys(batch.groups)) == [(0, 0), (1, 0), (2, 0), (3, 0)]


def test_a_share_of_a_batch_is_replayed_and_not_rolled_out() -> None:
    chosen = plan(size=100, share=0.5)
    chosen.fill([0, 1, 2, 3], 0, Roller(0, teaching=range(10)))
    make = Roller(1, teaching=range(10))
    batch = chosen.fill([4, 5, 6, 7], 1, make)
    assert make.waves == [[4, 5]]
    assert [one.replayed for one in batch.groups] == [False, False, True, True]
    assert [one.step for one in batch.groups] == [1, 1, 0, 0]


def test_a_buffer_of_size_0_keeps_and_replays_nothing() -> None:
    chosen = plan(tasks=4, size=0, share=0.9)
    for step in range(3):
        batch = chosen.fill([0, 1], step, Roller(step, teaching=[0]))
        assert [one.step for one in batch.groups] == [step, step]
    assert len(chosen.buffer) == 0


def test_the_filter_can_be_switched_off() -> None:
    chosen = plan(size=100, filter_zero_advantage=False)
    chosen.fill([5, 6], 0, Roller(0, teaching=[5, 6]))
    make = Roller(1, teaching=[])
    batch = chosen.fill([0, 1], 1, make)
    assert make.waves == [[0, 1]]
    assert [one.task for one in batch.groups] == [0, 1]


def test_the_same_seed_draws_the_same_and_another_seed_others() -> None:
    def drawn(seed: int) -> list[list[list[int]]]:
        chosen = plan(tasks=100, seed=seed, size=20, share=0.3, resample=2)
        return [
            (make := Roller(step, range(0, 100, 3)), chosen.fill([1, 2, 3], step, make))[0].waves for step in range(4)
        ]

    assert drawn(3) == drawn(3)
    assert drawn(3) != drawn(4)


@settings(max_examples=150, deadline=None)
@given(
    tasks=st.integers(4, 12),
    wanted=st.integers(1, 4),
    size=st.integers(0, 30),
    share=st.floats(0, 0.99),
    age=st.integers(1, 4),
    resample=st.integers(0, 3),
    filtered=st.booleans(),
    teaching=st.lists(st.sets(st.integers(0, 11)), min_size=1, max_size=8),
    seed=st.integers(0, 5),
)
def test_a_batch_has_as_many_different_groups_as_asked_whatever_they_earned(
    tasks: int,
    wanted: int,
    size: int,
    share: float,
    age: int,
    resample: int,
    filtered: bool,
    teaching: list[set[int]],
    seed: int,
) -> None:
    chosen = plan(tasks, seed, size, share, age, resample=resample, filter_zero_advantage=filtered)
    for step, teaches in enumerate(teaching):
        make = Roller(step, sorted(teaches))
        numbers = [(step * wanted + place) % tasks for place in range(wanted)]
        batch = chosen.fill(numbers, step, make)
        check_batch(batch, wanted, step, age)
        assert len(make.waves) <= 1 + resample
        assert len(chosen.buffer) <= size
        idle = [one for one in batch.groups if not one.teaches]
        if filtered and idle:  # then nothing was left that could have stood in
            held = {(one.task, one.step) for one in chosen.buffer.groups if one.step < step}
            assert held <= set(keys(batch.groups))


def check_batch(batch: Batch, wanted: int, step: int, age: int) -> None:
    assert len(batch.groups) == wanted
    assert len(set(keys(batch.groups))) == wanted
    assert all(one.replayed == (one.step < step) and step - one.step <= age for one in batch.groups)
    assert all(one.teaches for one in batch.groups if one.replayed)
    made = [one.task for one in batch.made]
    assert len(set(made)) == len(made)


@pytest.mark.parametrize(
    ("totals", "teaches"),
    [((1.0, 0.0), True), ((1.0, 1.0), False), ((1.0, 1.0 + 1e-9), False), ((1.0, None), False), ((None, None), False),
     ((1.0, None, 0.0), True)],
)  # fmt: skip
def test_a_group_teaches_where_two_rollouts_earned_different_rewards(
    totals: Sequence[float | None], teaches: bool
) -> None:
    assert group(0, 0, totals).teaches is teaches
