"""The configuration of ``python -m training.grpo``: a TOML file whose every key is known and checked."""

from __future__ import annotations

from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from agent.mcp_client import BACKEND_ROLES
from agent.replay import Mode, Recording
from agent.task import Task
from mcp_servers.backends import problem_of
from mcp_servers.suite import SPECS
from training.config import Count, Folder, LoraSection, ModelSection, Section, Share
from training.reward_config import RewardConfig, RewardConfigError, reward_config

Finite = Annotated[float, Field(allow_inf_nan=False)]
Positive = Annotated[Finite, Field(gt=0)]
Seconds = Positive
NonNegative = Annotated[Finite, Field(ge=0)]
BACKEND_KEYS = tuple(f"{role}{part}" for role in BACKEND_ROLES for part in ("", "_model", "_base_url"))


class TasksSection(Section):
    """What the policy is asked to do: a task list, or the tasks of recorded sessions."""

    files: list[Folder] = Field(default_factory=list)
    """JSON Lines files: image, item_name, anomaly_type, and any other field of a task. Images by their path, relative
    to the file."""
    sessions: list[Folder] = Field(default_factory=list)
    """Folders that hold session folders, at any depth, or globs; each different task is taken once."""
    threshold: Annotated[float, Field(ge=0, le=10)] | None = None
    """Score from which an image passes; None: as each task says."""
    max_images: Count | None = None
    max_turns: Count = 12

    @model_validator(mode="after")
    def _named(self) -> TasksSection:
        if not self.files and not self.sessions:
            raise ValueError("name files or sessions to take tasks from")
        return self


class ToolsSection(Section):
    """The tools that the rollouts act with."""

    servers: list[str] = Field(default_factory=list)
    """URLs or commands of tool servers; empty: the built-in one."""
    backends: dict[str, str] = Field(default_factory=dict)
    """Backends of the built-in server, such as editor = "gemini" or judge_model = "..."."""
    processes: Count = 1
    """How many of a started server work side by side."""
    call_timeout: Seconds = 120.0
    """Seconds that one call may take."""
    recording: Folder | None = None
    """Folder of recorded results; None: nothing is recorded."""
    mode: Mode = Field(default=Mode.REPLAY_ELSE_LIVE, strict=False)
    """What the recording is used for: record, replay (no live call is made) or replay-else-live."""

    @field_validator("backends")
    @classmethod
    def _known(cls, backends: dict[str, str]) -> dict[str, str]:
        for key, value in backends.items():
            if key not in BACKEND_KEYS:
                raise ValueError(f"no backend option {key}; known are {', '.join(BACKEND_KEYS)}")
            if key in BACKEND_ROLES:
                check_backend(key, value)
        return backends

    @model_validator(mode="after")
    def _usable(self) -> ToolsSection:
        if self.servers and self.backends:
            raise ValueError("backends are the built-in server's: leave tools.backends or tools.servers out")
        if "mode" in self.model_fields_set and self.recording is None:
            raise ValueError(f"mode {self.mode.value} needs a recording: name its folder with tools.recording")
        return self

    def make_recording(self, measuring: bool = False) -> Recording | None:
        """The recording, for one run of tools; None where nothing is recorded.

        Measurements (``measuring``) come again and again: what one has recorded, the next does not pay for anew.
        """
        again = measuring and self.mode is Mode.RECORD
        mode = Mode.REPLAY_ELSE_LIVE if again else self.mode
        return Recording(self.recording.resolve(), mode) if self.recording else None

    @property
    def arguments(self) -> list[str]:
        """The backends as ``python -m mcp_servers`` takes them."""
        return [part for key, value in self.backends.items() for part in (f"--{key.replace('_', '-')}", value)]


class RolloutSection(Section):
    """How episodes are sampled."""

    temperature: Positive = 1.0
    max_new_tokens: Count = 1024
    """Bound of one turn."""
    max_tokens: Count = 16384
    """Bound of one episode, images and observations included; one that would pass it ends there."""
    at_once: Count = 64
    """Episodes that run side by side on a process."""
    batch: Count = 32
    """Turns that are generated together."""
    seconds: Seconds = 1800.0
    """Longest time of an episode; one that takes longer is cancelled."""

    @model_validator(mode="after")
    def _room(self) -> RolloutSection:
        if self.max_new_tokens >= self.max_tokens:
            raise ValueError(
                f"max_new_tokens {self.max_new_tokens} of a turn leave no room in the episode's max_tokens "
                f"{self.max_tokens}: lower the one or raise the other"
            )
        return self


class GrpoSection(Section):
    """The objective. Defaults are the paper's where it names them (section 6: groups of 8, clipping, KL)."""

    group_size: Annotated[int, Field(ge=2)] = 8
    """G: rollouts of one task."""
    groups: Count = 4
    """Tasks of a step on each process."""
    beta: NonNegative = 0.04
    """Weight of the KL divergence from the model that training began with; 0: no reference model is kept."""
    epsilon: Annotated[Positive, Field(lt=1)] = 0.2
    """The ratio of probabilities is clipped to [1 - epsilon, 1 + epsilon_high]."""
    epsilon_high: Positive | None = None
    loss: Literal["grpo", "dapo", "dr_grpo", "bnpo"] = "grpo"
    """How tokens are averaged; "grpo": over a rollout, then over rollouts, as in the paper."""
    scale: Literal["group", "batch", "none"] = "group"
    """What advantages are divided by: the standard deviation of the group, of the batch, or nothing."""
    iterations: Count = 1
    """Updates on the same rollouts."""
    filter_zero_advantage: bool = True
    """Groups whose rollouts all earned the same teach nothing: replace them by groups of other tasks."""
    resample: Annotated[int, Field(ge=0, le=10)] = 1
    """How often a step may draw other tasks for the groups that were filtered."""
    tool_failure: Literal["penalty", "exclude"] = "penalty"
    """What an episode earns that a failing tool, the budget or the clock ended: "penalty" earns ``failure_reward``,
    "exclude" leaves it out of its group's mean and gives it no advantage."""
    failure_reward: Finite = -0.5


class ReplaySection(Section):
    """The replay buffer: whole groups of earlier steps, with the probabilities that they were sampled with."""

    size: Annotated[int, Field(ge=0)] = 128
    """Rollouts that are kept, in whole groups; 0: no buffer."""
    share: Annotated[float, Field(ge=0, lt=1)] = 0.25
    """Of a step's groups, how many are taken from the buffer where it has any. Groups that were filtered and could not
    be replaced by new ones are replaced from the buffer too."""
    max_age: Count = 4
    """Steps after which a group is too old to learn from."""


class HeldOutTasksSection(Section):
    """What is kept out of training and measured: episodes that the agent really runs, greedily."""

    share: Share = 0.1
    """Of the photos; every task of a photo goes to the same side."""
    files: list[Folder] = Field(default_factory=list)
    """Task lists to measure on instead."""
    episodes: Annotated[int, Field(ge=0)] = 16
    every: Count = 20
    """Steps between measurements; there is one before the first step and one at the end."""
    max_new_tokens: Count = 1024
    judge: str = "local"
    """Backend of quality_eval that reports. A judge other than the one that rewards shows whether its scores were
    earned or only pleased; where they are the same, a warning says so."""
    judge_model: str = ""
    judge_base_url: str = ""

    @field_validator("judge")
    @classmethod
    def _known(cls, judge: str) -> str:
        check_backend("judge", judge)
        return judge

    @property
    def arguments(self) -> list[str]:
        """The judge as ``python -m mcp_servers`` takes it."""
        given = {"--judge": self.judge, "--judge-model": self.judge_model, "--judge-base-url": self.judge_base_url}
        return [part for option, value in given.items() if value for part in (option, value)]


class GrpoTrainSection(Section):
    """How it is trained. Defaults are the paper's where it names them."""

    epochs: Positive = 2.0
    max_steps: Count | None = None
    learning_rate: Positive = 1e-6
    schedule: Literal["cosine", "constant", "linear", "constant_with_warmup"] = "constant"
    warmup: NonNegative = 0.0
    """Share of the steps below 1, else steps."""
    batch_size: Count = 1
    """Rollouts a device and forward pass."""
    weight_decay: NonNegative = 0.0
    max_grad_norm: Positive = 1.0
    gradient_checkpointing: bool = True
    bf16: bool = True
    """Compute in bfloat16."""
    seed: int = 0
    save_every: Count = 50
    keep_checkpoints: Count = 2
    bad_updates: Count = 3
    """Updates in a row that may have gradients that are no numbers; each is left out, one more ends the training."""


class VllmSection(Section):
    """Rollouts generated by vLLM instead of in the trainer's process."""

    mode: Literal["server", "colocate"] = "server"
    base_url: str = "http://127.0.0.1:8000"
    """Of ``vllm serve``, in server mode."""
    gpu_memory: Share = 0.3
    """Share of a GPU's memory that vLLM may take, in colocate mode."""
    importance_sampling: bool = True
    """Weight tokens by how much likelier the trainer finds them than vLLM did."""
    importance_cap: Positive = 3.0

    @field_validator("base_url")
    @classmethod
    def _served(cls, url: str) -> str:
        if not (url.startswith(("http://", "https://")) and urlsplit(url).hostname):
            raise ValueError(f"{url!r} is no address: write it as http://HOST:PORT")
        return url


class GrpoConfig(Section):
    """Everything that ``python -m training.grpo`` reads."""

    output: Folder
    """Folder for checkpoints, recorded rollouts, curves and the trained model."""
    model: ModelSection
    tasks: TasksSection
    tools: ToolsSection = ToolsSection()
    rollout: RolloutSection = RolloutSection()
    grpo: GrpoSection = GrpoSection()
    replay: ReplaySection = ReplaySection()
    reward: dict[str, Any] = Field(default_factory=dict)
    """The keys of ``training.reward_config``."""
    held_out: HeldOutTasksSection = HeldOutTasksSection()
    train: GrpoTrainSection = GrpoTrainSection()
    lora: LoraSection | None = None
    vllm: VllmSection | None = None

    @field_validator("reward")
    @classmethod
    def _reward(cls, table: dict[str, Any]) -> dict[str, Any]:
        try:
            weights = reward_config(table).weights
        except RewardConfigError as error:
            raise ValueError(str(error)) from error
        if not any(weights):
            raise ValueError("alpha, beta and gamma are all 0, so every episode earns the same: set one above 0")
        return table

    @model_validator(mode="after")
    def _whole(self) -> GrpoConfig:
        rollouts = self.grpo.group_size * self.grpo.groups
        if rollouts % self.train.batch_size:
            raise ValueError(
                f"train.batch_size {self.train.batch_size} does not divide the step's {rollouts} rollouts "
                "(grpo.group_size x grpo.groups)"
            )
        if self.train.save_every % self.grpo.iterations:
            raise ValueError(
                f"train.save_every {self.train.save_every} is no multiple of grpo.iterations {self.grpo.iterations}: "
                "a checkpoint would lie between two updates on the same rollouts; choose a multiple"
            )
        return self

    @property
    def same_judge(self) -> bool:
        """Whether the judge that reports is known to be the one that rewards: backend, model and address."""
        held_out, chosen = self.held_out, self.tools.backends
        reports = (held_out.judge, held_out.judge_model, held_out.judge_base_url)
        rewards = (chosen.get("judge", "local"), chosen.get("judge_model", ""), chosen.get("judge_base_url", ""))
        return not self.tools.servers and reports == rewards

    @property
    def rewards(self) -> RewardConfig:
        """Weights and thresholds of the reward."""
        return reward_config(self.reward)


def check_backend(role: str, name: str) -> None:
    """Raise ValueError for a backend that the built-in tools do not have. ``role``: as in ``BACKEND_ROLES``."""
    if problem := problem_of(next(spec for spec in SPECS if spec.role == role), name):
        raise ValueError(f"{role} {problem}")


def applied(task: Task, section: TasksSection) -> dict[str, Any]:
    """The fields of a task that the configuration sets."""
    chosen = {"threshold": section.threshold, "max_images": section.max_images, "max_turns": section.max_turns}
    return {name: value for name, value in chosen.items() if value is not None}
