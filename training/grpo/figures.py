"""The figures of rollouts: of one episode, and of a step's groups, by the names they are logged under."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from statistics import fmean

from agent.episode import Episode
from agent.protocol import FIVE_TOOLS
from agent.task import StopReason
from training.grpo.batches import Batch
from training.grpo.replay_buffer import ReplayBuffer
from training.grpo.trajectory import Group, Trajectory
from training.rewards import Rewards
from training.trace import MAX_SCORE, Trace


def figures_of(trace: Trace, episode: Episode, rewards: Rewards) -> dict[str, float]:
    """What is logged of one episode.

    ``good``: it ended in an image that passed, with its mask. ``valid``: every turn could be read and it was answered.
    ``score``: the final image's, 0-10 (left out where none was judged). ``tools/NAME``: calls. ``stop/REASON``: 1.
    """
    final = episode.final
    judged = final.evaluation if final else None
    answered = episode.stop_reason is StopReason.ANSWERED
    calls = Counter(action.kind for action in trace.actions)
    figures = {
        "episode/good": float(answered and bool(judged and judged.get("passed")) and episode.mask is not None),
        "episode/valid": float(answered and not episode.repairs),
        "episode/answered": float(answered),
        "episode/turns": float(episode.turns),
        "episode/images": float(len(episode.made)),
        "episode/seconds": episode.seconds,
        "episode/cost_usd": episode.cost_usd,
    }
    if judged and isinstance(score := judged.get("score"), int | float) and 0 <= score <= MAX_SCORE:
        figures["episode/score"] = float(score)
    figures |= {f"tools/{name}": float(calls[name]) for name in FIVE_TOOLS}
    figures |= {f"stop/{reason.value}": float(episode.stop_reason is reason) for reason in StopReason}
    if not rewards.excluded:
        figures |= {f"reward/{name}": value for name, value in rewards.logged.items() if name != "total"}
    return figures


def means(rollouts: Sequence[Trajectory]) -> dict[str, float]:
    """The mean of each figure over the rollouts that have it."""
    names = dict.fromkeys(name for rollout in rollouts for name in rollout.figures)
    return {name: fmean(rollout.figures[name] for rollout in rollouts if name in rollout.figures) for name in names}


def step_figures(batch: Batch, buffer: ReplayBuffer, step: int) -> dict[str, float]:
    """What is logged of a step: means over the new rollouts, and what became of the groups.

    ``groups/zero_advantage``: share of the new groups that teach nothing. ``groups/resampled`` and
    ``groups/replayed`` count groups. ``reward/total``: mean over new rollouts that are not excluded.
    """
    made = [rollout for group in batch.made for rollout in group.rollouts]
    totals = [rollout.total for rollout in made if rollout.total is not None]
    replayed = [group for group in batch.groups if group.replayed]
    figures = means(made)
    if totals:
        figures["reward/total"] = fmean(totals)
    return figures | {
        "groups/zero_advantage": _share(not group.teaches for group in batch.made),
        "groups/learned_from": _share(group.teaches for group in batch.groups),
        "groups/resampled": float(batch.resampled),
        "groups/replayed": float(len(replayed)),
        "groups/replay_age": fmean([step - group.step for group in replayed] or [0]),
        "groups/replay_size": float(len(buffer)),
        "rollouts/made": float(len(made)),
        "rollouts/left_out": float(sum(bool(rollout.problem) for rollout in made)),
        "rollouts/excluded": float(sum(rollout.total is None for rollout in made)),
    }


def _share(found: Iterable[bool]) -> float:
    answers = list(found)
    return sum(answers) / len(answers) if answers else 0.0


def rollouts_of(groups: Sequence[Group]) -> list[Trajectory]:
    """All rollouts of groups, in order."""
    return [rollout for group in groups for rollout in group.rollouts]
