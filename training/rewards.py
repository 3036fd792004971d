"""The paper's reward (section 6) of one episode: R = alpha * R_task + beta * R_ref + gamma * R_beh.

R_task  = S_final / 10, the judge's score of the image that was answered
R_ref   = sum_m max(0, S_m - S_{m-1}) / 10 over the images, or its running-maximum form
R_beh   = sum_t (-Phi(a_{t-1}, a_t) + lambda_KR [a_t = KR and S_t < delta]) + [format valid]
          - lambda_T max(0, T - T_max), and what the paper leaves open, each as a term of its own

What counts as S_m is in ``trace.py``; weights and thresholds in ``reward_config.py``. An episode that failed by no
fault of its policy is ``excluded``: its figures are given, and it should not be learned from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from training.reward_config import RewardConfig
from training.trace import ANSWER, MAX_SCORE, UNUSABLE, Trace

SCORER = "anomaly-agent"
SCORER_VERSION = "3"
"""Goes up whenever the same trace and configuration would give another number."""
COMPONENTS = ("task", "reflection", "behaviour")

START = "start"
VALID_TRANSITIONS = frozenset(
    {
        (START, "prompt_gen"),
        ("prompt_gen", "image_gen"),
        ("image_gen", "quality_eval"),
        ("quality_eval", "image_gen"),
        ("quality_eval", "knowledge_retrieval"),
        ("quality_eval", "mask_gen"),
        ("knowledge_retrieval", "image_gen"),
        ("mask_gen", ANSWER),
    }
)
_NOT_ITS_FAULT = {
    "tool_error": "a tool failed",
    "budget": "the budget was spent",
    "cancelled": "it was cancelled",
    "": "it has no end",
}


@dataclass(frozen=True, slots=True)
class Rewards:
    """The reward of one episode and all that it is made of.

    ``components``: task in [0, 1], reflection and behaviour, not yet weighted. ``terms``: every figure that is
    logged apart, "reflection.paper", "reflection.running_max" and the terms "behaviour.…", whose sum is behaviour.
    ``flags``: evidence that was missing. ``excluded``: why the episode should not be learned from, "" where it may.
    """

    total: float
    components: Mapping[str, float]
    terms: Mapping[str, float]
    flags: tuple[str, ...] = ()
    excluded: str = ""

    @property
    def logged(self) -> dict[str, float]:
        """Every figure by the name of its component; the total comes last."""
        return {**self.components, **self.terms, "total": self.total}


def reward(trace: Trace, config: RewardConfig | None = None, scores: Mapping[int, float] | None = None) -> Rewards:
    """The reward of one episode.

    ``scores``: another judge's score (0-10) by image number, for R_task and R_ref; R_beh goes by the scores that the
    policy saw. A final image without a score gives R_task = 0 and the flag "final_image_unjudged".
    """
    config = config or RewardConfig()
    judged = {n: s for n in trace.images if (s := (trace.scores if scores is None else scores).get(n)) is not None}
    final = trace.answer.final_image_index if trace.answer else None
    series = [score / MAX_SCORE for score in judged.values()]
    forms = {
        "paper": paper_reflection(series, config.count_first_image),
        "running_max": running_max_reflection(series, config.count_first_image),
    }
    behaviour = behaviour_terms(trace, config)
    components = {
        "task": judged.get(final, 0.0) / MAX_SCORE if final is not None else 0.0,
        "reflection": forms[config.reflection],
        "behaviour": sum(behaviour.values()),
    }
    terms = {f"reflection.{name}": value for name, value in forms.items()}
    terms |= {f"behaviour.{name}": value for name, value in behaviour.items()}
    total = sum(weight * components[name] for weight, name in zip(config.weights, COMPONENTS, strict=True))
    flags = {
        "no_answer": trace.answer is None,
        "no_final_image": trace.answer is not None and final is None,
        "final_image_unjudged": final is not None and final not in judged,
        "images_unjudged": len(judged) < len(trace.images),
        "score_unreadable": any(a.kind == "quality_eval" and a.ok and a.score is None for a in trace.actions),
    }
    return Rewards(total, components, terms, tuple(name for name, holds in flags.items() if holds), excluded(trace))


def excluded(trace: Trace) -> str:
    """Why an episode says nothing about its policy: a tool or the policy's server failed, it was stopped; else ""."""
    if trace.stop_reason == "policy_error" and not trace.policy_broke:
        return "policy_error: the policy could not be asked"
    reason = _NOT_ITS_FAULT.get(trace.stop_reason)
    return f"{trace.stop_reason or 'incomplete'}: {reason}" if reason else ""


def paper_reflection(scores: Sequence[float], count_first: bool) -> float:
    """sum_m max(0, S_m - S_{m-1}) for scores in [0, 1] in the order of the images; in [0, (M + 1) // 2] for M images.

    With ``count_first`` the sum starts at S_1 - S_0 with S_0 = 0, else at S_2 - S_1 (then at most M // 2). Images that
    were not judged are left out of the sequence.
    """
    series = [0.0, *scores] if count_first else list(scores)
    return sum(max(0.0, after - before) for before, after in pairwise(series))


def running_max_reflection(scores: Sequence[float], count_first: bool) -> float:
    """sum_m max(0, S_m - max_{k<m} S_k) for scores in [0, 1]: the best minus S_0 = 0 or S_1; in [0, 1]."""
    if not scores:
        return 0.0
    return max(scores) - (0.0 if count_first else scores[0])


def behaviour_terms(trace: Trace, config: RewardConfig) -> dict[str, float]:
    """The terms of R_beh, each with its sign and weight.

    A refused call is judged as a move, but the next move is judged from where the episode stood before it; so
    repeating a call that a tool refused is no invalid transition. Turns that could not be used are no moves.
    Knowledge retrieval earns only where it was carried out, for the task's own defect and item.
    """
    invalid = retrievals = 0
    at, last_score = START, None
    for action in trace.actions:
        if action.kind == UNUSABLE:
            continue
        invalid += (at, action.kind) not in VALID_TRANSITIONS
        if action.ok or action.kind == ANSWER:
            at = action.kind
        asked = action.kind == "knowledge_retrieval" and action.ok and not trace.astray(action)
        if asked and last_score is not None:
            retrievals += last_score < config.delta
        if trace.evidence(action) and action.image in trace.scores:
            last_score = trace.scores[action.image]
    answer = trace.answer
    wrong = sum(trace.astray(action) for action in trace.actions)
    costs = {
        "transitions": config.phi * invalid,
        "length": config.lambda_t * max(0, trace.turns - config.t_max),
        "wrong_type": config.wrong_type * wrong,
        "refused": config.refused * trace.refusals,
        "unusable": config.unusable * trace.unusable,
        "no_answer": config.no_answer * (answer is None),
        "no_mask": config.no_mask * (answer is not None and not answer.mask_generated),
        "contradiction": config.contradiction * contradicts(trace),
    }
    earned = {
        "knowledge": config.lambda_kr * retrievals,
        "format": 1.0 if trace.actions and not trace.unusable else 0.0,
    }
    return earned | {name: 0.0 - cost for name, cost in costs.items()}


def contradicts(trace: Trace) -> bool:
    """Whether the answer says something else than the tools did.

    "success" needs a score that passed, "below_threshold" one that did not, and both a mask, since without one there
    is no sample; "failed" may not disown an image that passed unless mask_gen found nothing on it; mask_generated may
    neither deny nor claim a mask of the final image: another image's, or a call that was refused, is none. Another
    status is none of ours.
    """
    answer = trace.answer
    if answer is None:
        return False
    final = answer.final_image_index
    score = trace.scores.get(final) if final is not None else None
    passed = score is not None and score >= trace.threshold
    masks = [a for a in trace.actions if a.kind == "mask_gen" and a.ok and a.image == final]
    if answer.mask_generated != bool(masks and masks[-1].found):
        return True
    if answer.status == "success":
        return not passed or not answer.mask_generated
    if answer.status == "below_threshold":
        return passed or not answer.mask_generated
    return answer.status != "failed" or (passed and not (masks and not masks[-1].found))


def bounds(config: RewardConfig, max_turns: int) -> dict[str, tuple[float, float]]:
    """Least and greatest value of every component and of the total, for episodes of at most ``max_turns`` turns.

    Bounds, not both attained: an episode cannot break every rule in every turn.
    """
    turn = max(config.phi + config.wrong_type + config.refused, config.unusable)
    end = max(config.no_answer, config.no_mask + config.contradiction)
    least = -turn * max_turns - config.lambda_t * max(0, max_turns - config.t_max) - end
    most = (max_turns + 1) // 2 if config.reflection == "paper" else 1
    found = {
        "task": (0.0, 1.0),
        "reflection": (0.0, float(most)),
        "behaviour": (least, 1.0 + config.lambda_kr * max_turns),
    }
    low, high = (
        sum(weight * found[name][side] for weight, name in zip(config.weights, COMPONENTS, strict=True))
        for side in (0, 1)
    )
    return found | {"total": (low, high)}
