"""The reward: the paper's formulas by hand, the order in which a person would rank episodes, and its limits."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.episodes import trace
from training.reward_config import RewardConfig, RewardConfigError, load_reward_config, reward_config
from training.rewards import (
    COMPONENTS,
    bounds,
    paper_reflection,
    reward,
    running_max_reflection,
)

SINGLE = "PG IG QE=8 MG success"
DUAL = "PG IG QE=5 KR IG QE=8 MG success"
TRIPLE = "PG IG QE=4 KR IG QE=6 IG QE=9 MG success"


def term(steps: str, name: str, stop: str = "", **config: Any) -> float:
    return reward(trace(steps, stop), RewardConfig(**config)).logged[name]


def total(steps: str, stop: str = "", **config: Any) -> float:
    return term(steps, "total", stop, **config)


@pytest.mark.parametrize(
    ("steps", "task", "reflection", "behaviour"),
    [
        (SINGLE, 0.8, 0.8, 1.0),
        (DUAL, 0.8, 0.8, 1.0 + 0.1 - 3 * 0.05),  # KR at 5 < 6; eight turns, five are free
        (TRIPLE, 0.9, 0.9, 1.0 + 0.1 - 5 * 0.05),
    ],
)
def test_the_papers_three_types_earn_what_the_formula_says(
    steps: str, task: float, reflection: float, behaviour: float
) -> None:
    rewards = reward(trace(steps))
    assert rewards.components == pytest.approx({"task": task, "reflection": reflection, "behaviour": behaviour})
    assert rewards.total == pytest.approx(task + 0.5 * reflection + 0.2 * behaviour)
    assert rewards.flags == ()
    assert rewards.excluded == ""


@pytest.mark.parametrize(
    ("scores", "paper", "paper_skipping", "running", "running_skipping"),
    [
        ([], 0, 0, 0, 0),
        ([0.8], 0.8, 0, 0.8, 0),
        ([0.5, 0.8], 0.8, 0.3, 0.8, 0.3),
        ([0.8, 0.2, 0.8], 1.4, 0.6, 0.8, 0),
        ([0.4, 0.3, 0.6, 0.5, 0.9], 1.1, 0.7, 0.9, 0.5),
        ([0.9, 0.3], 0.9, 0, 0.9, 0),
    ],
)
def test_both_forms_of_reflection_by_hand(
    scores: list[float], paper: float, paper_skipping: float, running: float, running_skipping: float
) -> None:
    assert paper_reflection(scores, True) == pytest.approx(paper)
    assert paper_reflection(scores, False) == pytest.approx(paper_skipping)
    assert running_max_reflection(scores, True) == pytest.approx(running)
    assert running_max_reflection(scores, False) == pytest.approx(running_skipping)


@pytest.mark.parametrize(
    ("steps", "invalid"),
    [
        (DUAL, 0),
        ("IG QE=8 MG success", 1),  # no prompt first
        ("KR PG IG QE=8 MG success", 2),  # start -> KR, KR -> PG
        ("MG! PG IG QE=8 MG success", 1),  # the refused call was no move, but it was a wrong one
        ("PG IG MG success", 1),  # nobody judged
        ("PG IG QE=8 success-", 1),  # no mask
        ("PG IG QE=8 QE=8 MG success", 1),
        ("PG PG IG QE=8 MG success", 1),
        ("PG IG IG QE=8 MG success", 1),
        ("PG IG QE=5 KR KR IG QE=8 MG success", 1),
        ("PG IG QE=8 MG MG success", 1),
        ("PG IG! IG QE! QE=8 MG success", 0),  # a refused call may be repeated
        ("PG ?? IG QE=8 MG success", 0),  # an unusable turn is no move
        ("failed:none-", 1),
        ("PG IG IG IG IG", 3),
    ],
)
def test_phi_counts_the_moves_that_the_paper_does_not_list(steps: str, invalid: int) -> None:
    assert term(steps, "behaviour.transitions", phi=0.5) == pytest.approx(-0.5 * invalid)


@pytest.mark.parametrize(
    ("steps", "times"),
    [
        (DUAL, 1),
        ("PG IG QE=6 KR IG QE=8 MG success", 0),  # delta itself is not below delta
        ("KR PG IG QE=8 MG success", 0),  # there is no score yet
        ("PG IG QE=5 KR! IG QE=8 MG success", 0),
        ("PG IG QE=5 KR IG QE=5.5 KR IG QE=8 MG success", 2),
        ("PG IG QE~=2 KR IG QE=8 MG success", 0),  # a score for another defect is no evidence
        ("PG IG QE^=2 KR IG QE=8 MG success", 0),  # nor for another item
        ("PG IG QE=5 KR^ IG QE=8 MG success", 0),  # knowledge of another item is none
    ],
)
def test_knowledge_is_rewarded_only_after_a_low_score(steps: str, times: int) -> None:
    assert term(steps, "behaviour.knowledge", lambda_kr=0.3, delta=6.0) == pytest.approx(0.3 * times)


@pytest.mark.parametrize(
    ("steps", "name", "value"),
    [
        (SINGLE, "format", 1),
        ("PG ?? IG QE=8 MG success", "format", 0),
        (SINGLE, "length", 0),
        ("failed:none-", "length", 0),  # giving up early earns nothing
        (TRIPLE, "length", -5 * 0.05),
        ("PG ?? IG QE=8 MG success", "length", -0.05),  # an unusable turn is a turn
        ("PG~ IG QE~=8 MG success", "wrong_type", -0.5),
        ("PG^ IG QE^=8 MG success", "wrong_type", -0.5),
        ("PG IG QE=5 KR^ IG QE=8 MG success", "wrong_type", -0.25),
        ("PG IG! IG QE=8 MG success", "refused", -0.1),
        ("?? ?? PG IG QE=8 MG success", "unusable", -0.5),
        ("PG IG QE=5", "no_answer", -0.5),
        (SINGLE, "no_answer", 0),
        ("PG IG QE=8 success-", "no_mask", -0.5),
        ("PG IG QE=8 MG=none failed-", "no_mask", -0.5),
        (SINGLE, "contradiction", 0),
        ("PG IG QE=6 MG success", "contradiction", -0.5),
        ("PG IG MG success", "contradiction", -0.5),
        ("PG IG QE=6 MG below_threshold", "contradiction", 0),
        ("PG IG QE=8 MG below_threshold", "contradiction", -0.5),
        ("PG IG QE=8 MG=none failed-", "contradiction", 0),
        ("PG IG QE=8 failed-", "contradiction", -0.5),
        ("PG IG QE=8 MG success-", "contradiction", -0.5),
        ("PG IG QE=8 MG splendid", "contradiction", -0.5),
        ("PG IG QE=5 MG=none below_threshold-", "contradiction", -0.5),
        ("failed:none-", "contradiction", 0),
        ("PG IG QE=5 IG QE=8 MG2 success", "contradiction", -0.5),  # a mask of another image than the final one
        ("PG IG QE=8 MG! success", "contradiction", -0.5),
        ("PG IG QE=8 success", "contradiction", -0.5),
        ("PG IG QE=5 MG=none failed", "contradiction", -0.5),
        ("PG IG QE=8 MG=none MG success", "contradiction", 0),
    ],
)
def test_every_other_term_of_behaviour_by_hand(steps: str, name: str, value: float) -> None:
    assert term(steps, f"behaviour.{name}") == pytest.approx(value)


def test_the_first_judgement_of_an_image_counts_and_only_for_the_tasks_own_defect_and_item() -> None:
    assert term("PG IG QE=5 QE=9 QE=9 MG below_threshold", "task") == 0.5
    for other in "~^":
        again = reward(trace(f"PG IG QE{other}=9 QE=4 MG below_threshold"))
        assert again.components["task"] == 0.4
        assert again.flags == ()


@pytest.mark.parametrize(
    ("steps", "flags"),
    [
        ("PG IG MG success", {"final_image_unjudged", "images_unjudged"}),
        ("PG IG QE=5 IG MG success", {"final_image_unjudged", "images_unjudged"}),
        ("PG IG QE=? MG success", {"final_image_unjudged", "images_unjudged", "score_unreadable"}),
        ("PG IG IG QE=8 MG success", {"images_unjudged"}),
        ("PG IG QE=9", {"no_answer"}),
        ("failed:none-", {"no_final_image"}),
    ],
)
def test_missing_evidence_is_worth_nothing_and_is_flagged(steps: str, flags: set[str]) -> None:
    rewards = reward(trace(steps))
    assert set(rewards.flags) == flags
    if flags != {"images_unjudged"}:
        assert rewards.components["task"] == 0.0


@pytest.mark.parametrize("stop", ["tool_error", "budget", "cancelled", "policy_error"])
def test_what_is_not_the_policys_fault_is_excluded_and_not_learned_from(stop: str) -> None:
    assert reward(trace("PG IG QE=5", stop)).excluded.startswith(stop)


def test_a_policy_that_keeps_writing_nonsense_is_punished_and_not_excluded() -> None:
    broke = replace(trace("PG ?? ?? ??", "policy_error"), policy_broke=True)
    rewards = reward(broke)
    assert rewards.excluded == ""
    assert rewards.components["behaviour"] < -1
    assert rewards.total < total("failed:none-")


@pytest.mark.parametrize(
    ("better", "worse"),
    [
        (SINGLE, "PG IG QE=1 IG QE=8 MG success"),  # a bad first image to improve on
        (SINGLE, "PG IG QE=1 KR IG QE=8 MG success"),
        (SINGLE, "PG IG QE=8 IG QE=2 IG QE=8 MG success"),  # swings
        (SINGLE, "PG IG QE=8 QE=8 QE=8 MG success"),
        (SINGLE, "PG IG QE~=8 MG success"),
        (SINGLE, "PG IG QE^=8 MG success"),
        (SINGLE, "PG IG QE=8 success-"),
        (SINGLE, "PG ?? IG QE=8 MG success"),
        (SINGLE, "KR PG IG QE=8 MG success"),
        (SINGLE, "MG! PG IG QE=8 MG success"),
        (SINGLE, "IG QE=8 MG success"),
        (SINGLE, "PG IG QE=8 MG below_threshold"),
        (SINGLE, "PG IG QE=8 IG QE=3 MG below_threshold"),  # the worse image answered
        (SINGLE, "PG IG QE=8 MG=none failed-"),
        ("PG IG QE=8 MG=none failed-", "PG IG QE=8 MG=none success-"),
        (DUAL, "PG IG QE=5 MG below_threshold"),  # improving pays
        (DUAL, "PG IG QE=5 IG QE=8 MG success"),  # and asking after a low score a little more
        (DUAL, "PG IG QE=5 KR IG QE=5 KR IG QE=8 MG success"),
        ("PG IG QE=6 IG QE=7 MG success", "PG IG QE=6 MG below_threshold"),
        ("PG IG QE=6 MG below_threshold", "PG IG QE=6 MG success"),  # honesty
        ("PG IG QE=2 IG QE=1 MG2=none failed:2-", "failed:none-"),
        ("failed:none-", "PG " + "IG " * 11),
        ("PG IG QE=3 MG below_threshold", "PG IG MG success"),  # nobody judged it
        ("PG IG QE=3 MG below_threshold", "success:none"),
        ("PG IG QE=5 IG QE=5 MG below_threshold", "PG IG QE=5 IG QE=5 IG QE=5 IG QE=5 IG QE=5 IG"),
    ],
)
def test_totals_rank_episodes_as_a_person_would(better: str, worse: str) -> None:
    assert total(better) > total(worse)


def test_without_the_first_images_score_both_forms_pay_for_a_bad_start() -> None:
    staged = "PG IG QE=1 IG QE=8 MG success"
    for form in ("paper", "running_max"):
        assert total(staged, reflection=form, count_first_image=False) > total(
            SINGLE, reflection=form, count_first_image=False
        )
    swings = "PG IG QE=8 IG QE=2 IG QE=8 MG success"
    assert total(swings, reflection="paper") > total(SINGLE, reflection="paper")


def test_another_judges_scores_change_task_and_reflection_but_not_behaviour() -> None:
    own, other = reward(trace(DUAL)), reward(trace(DUAL), scores={2: 3.0, 3: 4.0})
    assert other.components == pytest.approx({**own.components, "task": 0.4, "reflection": 0.4})
    assert "final_image_unjudged" in reward(trace(DUAL), scores={2: 3.0}).flags


STEPS = st.sampled_from(
    ["PG", "IG", "QE=1", "QE=5.5", "QE=10", "QE~=9", "QE!", "KR", "KR!", "MG", "MG=none", "MG!", "IG!", "??", "QE=?"]
)
ENDS = st.sampled_from(["", "success", "below_threshold", "failed-", "failed:none-", "success-"])
WEIGHT = st.floats(0, 4)


@st.composite
def episodes(draw: st.DrawFn) -> str:
    steps = draw(st.lists(STEPS, min_size=1, max_size=12))
    end = draw(ENDS)
    if "IG" not in steps and not end.endswith("none-"):
        end = ""
    return " ".join([*steps, end])


@given(episodes(), st.sampled_from(["paper", "running_max"]), st.booleans())
def test_every_reward_lies_within_its_bounds(steps: str, form: Any, first: bool) -> None:
    config = RewardConfig(reflection=form, count_first_image=first)
    rewards = reward(trace(steps), config)
    limits = bounds(config, 13)
    for name, value in {**rewards.components, "total": rewards.total}.items():
        assert limits[name][0] - 1e-9 <= value <= limits[name][1] + 1e-9


@given(episodes(), WEIGHT, WEIGHT, WEIGHT)
def test_the_total_is_linear_in_its_three_weights(steps: str, alpha: float, beta: float, gamma: float) -> None:
    rewards = reward(trace(steps), RewardConfig(alpha=alpha, beta=beta, gamma=gamma))
    parts = [rewards.components[name] for name in COMPONENTS]
    assert rewards.total == pytest.approx(alpha * parts[0] + beta * parts[1] + gamma * parts[2])
    terms = [value for name, value in rewards.terms.items() if name.startswith("behaviour.")]
    assert rewards.components["behaviour"] == pytest.approx(math.fsum(terms))


@given(st.lists(st.floats(0, 1), min_size=1, max_size=9))
def test_the_running_maximum_never_pays_more_than_the_best_over_the_first(scores: list[float]) -> None:
    assert running_max_reflection(scores, False) <= max(scores) - scores[0] + 1e-12
    assert running_max_reflection(scores, True) <= max(scores)
    for first in (True, False):
        assert running_max_reflection(scores, first) <= paper_reflection(scores, first) + 1e-9
        assert paper_reflection(scores, first) <= (len(scores) + first) // 2 + 1e-9


def test_a_configuration_file_changes_what_it_names(tmp_path: Path) -> None:
    path = tmp_path / "reward.toml"
    path.write_text('[reward]\nalpha = 2\nt_max = 8\nreflection = "paper"\n[other]\nx = 1\n')
    config = load_reward_config(path)
    assert config == RewardConfig(alpha=2.0, t_max=8, reflection="paper")
    assert config.weights == (2.0, 0.5, 0.2)
    assert config.hash == RewardConfig(alpha=2, t_max=8, reflection="paper").hash
    assert config.hash != RewardConfig().hash


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[reward]\nalfa = 1", "unknown key 'alfa'.*use alpha, beta"),
        ("[reward]\nalpha = nan", "alpha is nan: choose a number from 0"),
        ("[reward]\nlambda_t = -0.1", "lambda_t is -0.1: .*penalties are subtracted"),
        ("[reward]\nalpha = true", "alpha is True"),
        ('[reward]\nphi = "much"', "phi is 'much'"),
        ("[reward]\ndelta = 11", "delta is 11: choose a score from 0 to 10"),
        ("[reward]\nt_max = 2.5", "t_max is 2.5: choose a whole number"),
        ("[reward]\ncount_first_image = 1", "choose true or false"),
        ('[reward]\nreflection = "both"', "choose running_max or paper"),
        ("reward = 3", r"no \[reward\] table"),
        ("[reward", "mend it or leave --config out"),
    ],
)
def test_a_bad_configuration_is_refused_with_its_key_and_a_cure(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "reward.toml"
    path.write_text(text)
    with pytest.raises(RewardConfigError, match=says):
        load_reward_config(path)


def test_a_configuration_made_in_code_is_checked_too() -> None:
    with pytest.raises(RewardConfigError, match="gamma"):
        RewardConfig(gamma=-1)
    with pytest.raises(RewardConfigError, match="unknown key"):
        reward_config({"reward": 1})
