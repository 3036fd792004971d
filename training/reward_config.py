"""Weights and thresholds of the reward, read from the ``[reward]`` table of a TOML file.

The paper gives none of them. The defaults follow one economy: an invalid move costs as much as one point of the
judge's ten, a turn beyond the shortest complete trajectory a tenth of a point, so that another round pays as soon as
it betters the image by about a seventh of a point, and knowledge retrieval earns less than the turns that it takes.
"""

from __future__ import annotations

import hashlib
import json
import math
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_args

ReflectionForm = Literal["running_max", "paper"]


class RewardConfigError(ValueError):
    """A reward configuration that cannot be used; the message names the key and the cure."""


@dataclass(frozen=True, slots=True)
class RewardConfig:
    """All weights are numbers from 0 on; what is a penalty is subtracted."""

    alpha: float = 1.0
    """Weight of R_task, the final image's score."""
    beta: float = 0.5
    """Weight of R_ref, improvement over the images."""
    gamma: float = 0.2
    """Weight of R_beh, how the tools were used."""
    reflection: ReflectionForm = "running_max"
    """Which R_ref enters the total: "paper" is sum_m max(0, S_m - S_{m-1}), which pays for swings; "running_max" counts
    only what goes beyond the best so far. Both are always reported."""
    count_first_image: bool = True
    """Whether the first image's score counts, as an improvement on S_0 = 0. Where it does not, both forms pay for a
    bad first image: 1 then 8 earns more than 8 at once."""
    phi: float = 0.5
    """Phi: cost of each invalid transition between tools."""
    lambda_kr: float = 0.1
    """lambda_KR: earned by knowledge retrieval while the last score is below delta."""
    delta: float = 6.0
    """Score (0-10) under which knowledge retrieval is called for."""
    lambda_t: float = 0.05
    """lambda_T: cost of each turn beyond t_max."""
    t_max: int = 5
    """T_max: turns that are free; prompt, edit, score, mask and answer are five."""
    wrong_type: float = 0.25
    """Cost of each call whose anomaly type is not exactly the task's."""
    refused: float = 0.1
    """Cost of each call that a tool refused."""
    unusable: float = 0.25
    """Cost of each turn that the loop could not use: not readable, or an answer that claims what did not happen."""
    no_answer: float = 0.5
    """Cost of an episode without an answer."""
    no_mask: float = 0.5
    """Cost of an answer without a mask."""
    contradiction: float = 0.5
    """Cost of an answer whose status or mask_generated contradicts what the tools said."""

    def __post_init__(self) -> None:
        for field in fields(self):
            _check(field.name, getattr(self, field.name))

    @property
    def weights(self) -> tuple[float, float, float]:
        """alpha, beta, gamma: the weights of task, reflection and behaviour, in this order."""
        return self.alpha, self.beta, self.gamma

    @property
    def hash(self) -> str:
        """Fingerprint of all values: the first 12 digits of a SHA-256."""
        values = {key: value if isinstance(value, str) else float(value) for key, value in asdict(self).items()}
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:12]


def load_reward_config(path: Path) -> RewardConfig:
    """Read the ``[reward]`` table of a TOML file; keys that it lacks keep their defaults, other tables are not read.

    Raises RewardConfigError where the file cannot be read, has no such table, or holds an unknown key or bad value.
    """
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise RewardConfigError(f"{path} cannot be used ({error}): mend it or leave --config out") from error
    table = document.get("reward")
    if not isinstance(table, dict):
        raise RewardConfigError(f"{path} has no [reward] table: put the reward's keys under [reward]")
    try:
        return reward_config(table)
    except RewardConfigError as error:
        raise RewardConfigError(f"{path}: {error}") from error


def reward_config(table: Mapping[str, Any]) -> RewardConfig:
    """A configuration from plain values. Raises RewardConfigError for an unknown key or a bad value."""
    known = [field.name for field in fields(RewardConfig)]
    for key in table:
        if key not in known:
            raise RewardConfigError(f"unknown key {key!r} in [reward]: use {', '.join(known)}")
    for key, value in table.items():
        _check(key, value)
    whole = ("t_max", "reflection", "count_first_image")
    values: dict[str, Any] = {key: value if key in whole else float(value) for key, value in table.items()}
    return RewardConfig(**values)


def _check(name: str, value: Any) -> None:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if name == "reflection":
        if value not in get_args(ReflectionForm):
            raise RewardConfigError(f"reflection is {value!r}: choose {' or '.join(get_args(ReflectionForm))}")
    elif name == "count_first_image":
        if not isinstance(value, bool):
            raise RewardConfigError(f"count_first_image is {value!r}: choose true or false")
    elif name == "t_max":
        if not number or not isinstance(value, int) or value < 1:
            raise RewardConfigError(f"t_max is {value!r}: choose a whole number of turns from 1 on")
    elif name == "delta":
        if not number or not 0 <= value <= 10:
            raise RewardConfigError(f"delta is {value!r}: choose a score from 0 to 10")
    elif not number or not math.isfinite(value) or not 0 <= value <= 1000:
        raise RewardConfigError(f"{name} is {value!r}: choose a number from 0 to 1000; penalties are subtracted")
