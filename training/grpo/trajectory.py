"""Rollouts as the trainer takes them: the very tokens that were sampled, and what the episode earned.

A trajectory is cut at its first sampled token: what stands before it is the prompt, what follows is the completion, in
which ``sampled`` tells the policy's own tokens from observations. Every trajectory carries at least one picture: one
that cannot be used is replaced by a blank one whose tokens are all masked, so that the vision encoder runs on every
process of a distributed training.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from agent.chat_template import END_OF_TURN
from agent.protocol import ImageRef, Message
from training.encoding import Encoded, Encoder, EncodingError, check_image_tokens
from training.rewards import COMPONENTS, Rewards

FAILURE = "failure"
"""Reward component of episodes that failed by no fault of their policy, 0 for others; its weight is 1."""
REWARD_NAMES = (*COMPONENTS, FAILURE)
SAME = 1e-6
"""Largest difference of rewards that counts as none."""


@dataclass(frozen=True, slots=True)
class Trajectory:
    """One rollout.

    ``sampled`` and ``logprobs`` have one entry for each completion id: 1 and the natural logarithm of its probability
    where the policy wrote it, 0 and 0.0 where it was given. ``rewards``: by ``REWARD_NAMES``, None where a component
    does not apply. ``total``: their weighted sum, None for a rollout that is excluded. ``figures``: what is logged of
    it. ``problem``: why it was replaced by a blank one, "" where it was not.
    """

    prompt_ids: Sequence[int]
    completion_ids: Sequence[int]
    sampled: Sequence[int]
    logprobs: Sequence[float]
    pictures: Sequence[bytes]
    rewards: Mapping[str, float | None] = field(default_factory=lambda: dict.fromkeys(REWARD_NAMES))
    total: float | None = None
    figures: Mapping[str, float] = field(default_factory=dict)
    session: Path = Path()
    stop_reason: str = ""
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Group:
    """The G rollouts of one task, made at one step. ``replayed``: taken from the replay buffer."""

    task: int
    step: int
    rollouts: Sequence[Trajectory]
    replayed: bool = False

    @property
    def teaches(self) -> bool:
        """Whether the rollouts earned different rewards, so that their advantages are not all zero."""
        totals = [rollout.total for rollout in self.rollouts if rollout.total is not None]
        return len(totals) > 1 and max(totals) - min(totals) > SAME


def cut(encoded: Encoded, sampled: Sequence[int], logprobs: Sequence[float], processor: Any) -> Trajectory:
    """An episode's tokens as a trajectory, without its rewards.

    Raises EncodingError where they cannot be trained on as they are: nothing was sampled, lengths differ, or image
    tokens and pictures do not match.
    """
    ids = encoded.ids
    if not len(ids) == len(sampled) == len(logprobs):
        raise EncodingError(f"{len(ids)} ids, {len(sampled)} marks and {len(logprobs)} log-probabilities")
    if 1 not in sampled:
        raise EncodingError("the policy wrote nothing")
    if not encoded.pictures or len(encoded.pictures) != len(encoded.grids):
        raise EncodingError(f"{len(encoded.pictures)} pictures for {len(encoded.grids)} image grids")
    check_image_tokens(ids, encoded.grids, processor)
    written = [value for value, own in zip(logprobs, sampled, strict=True) if own]
    if not all(math.isfinite(value) for value in written):
        raise EncodingError("a log-probability is not finite")
    first = list(sampled).index(1)
    return Trajectory(
        tuple(ids[:first]), tuple(ids[first:]), tuple(sampled[first:]), tuple(logprobs[first:]), encoded.pictures
    )


def blank(encoder: Encoder) -> Trajectory:
    """A trajectory that teaches nothing: one grey picture, and one token that is masked."""
    from PIL import Image

    stream = io.BytesIO()
    Image.new("RGB", (32, 32), (128, 128, 128)).save(stream, "PNG")
    picture = ImageRef(1, "blank", stream.getvalue(), "", 32, 32)
    encoded = encoder.encode([Message("user", "", (picture,))])
    end = encoder.processor.tokenizer.convert_tokens_to_ids(END_OF_TURN)
    return Trajectory(tuple(encoded.ids), (end,), (0,), (0.0,), encoded.pictures)


def rewarded(trajectory: Trajectory, rewards: Rewards, failure: float | None) -> Trajectory:
    """The trajectory with what its episode earned; ``failure`` is what one earns that failed by no fault of its
    policy, None to exclude it.
    """
    if rewards.excluded:
        return replace(trajectory, rewards={**dict.fromkeys(COMPONENTS), FAILURE: failure}, total=failure)
    return replace(trajectory, rewards={**rewards.components, FAILURE: 0.0}, total=rewards.total)
