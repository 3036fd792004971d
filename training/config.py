"""The sections of a training configuration: TOML files whose every key is known and checked.

Paths are relative to the folder the command runs in. ``configs/`` holds ready ones; ``sft.py`` reads them.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from agent.policies.pictures import IMAGE_SIDE


class ConfigError(ValueError):
    """A configuration, data set or model that cannot be trained with; one line that names the cure."""


class Section(BaseModel):
    """A part of a configuration. Unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]
Folder = Annotated[Path, Field(strict=False)]


class ModelSection(Section):
    """Which model is trained, and what of it."""

    path: str
    """A model folder, or a model's name for the Hugging Face hub."""
    dtype: Literal["float32", "bfloat16"] = "bfloat16"
    """Of the weights. All weights in bfloat16 train only with DeepSpeed (which keeps float32 copies) or with LoRA."""
    attention: Literal["sdpa", "eager", "flash_attention_2"] = "sdpa"
    image_side: Count = IMAGE_SIDE
    """Longest side in pixels that the model is shown."""
    max_image_tokens: Annotated[int, Field(ge=1)] | None = None
    """Bound of one image's tokens, kept in the trained folder; None: the model's own."""
    freeze_vision: bool = True
    """The vision encoder is frozen; the projector (merger) and the language model train."""


class LoraSection(Section):
    """Low-rank adapters on the language model and the projector, instead of training all weights."""

    rank: Count = 32
    alpha: Count = 64
    dropout: Share = 0.05


class DataSection(Section):
    """Which sessions are learned from."""

    sessions: Annotated[list[Folder], Field(min_length=1)]
    """Folders that hold session folders, at any depth, or globs."""
    min_score: Annotated[float, Field(ge=0, le=10)] | None = None
    """Least score of a session's final image; None: any, judged or not."""
    min_reward: float | None = None
    """Least total reward of a session."""
    policies: list[str] = []
    """Names of the policies whose sessions are taken; empty: all."""
    resample: bool = False
    """Repeat examples of the rarer types of trajectory until each type is as common as the commonest."""
    skip_broken: bool = False
    """Leave damaged sessions out, and count them, instead of stopping."""
    max_tokens: Count = 32768
    """Sessions longer than this are left out, and counted; nothing is cut."""


class HeldOutSection(Section):
    """What is kept out of training and measured: loss, and episodes that the agent really runs."""

    share: Share = 0.05
    """Of the photos; every session of a photo goes to the same side."""
    episodes: Annotated[int, Field(ge=0)] = 16
    """How many held-out tasks the agent runs, greedily, at each measurement; 0: none."""
    every: Count = 100
    """Steps between measurements; there is one more at the end."""
    max_new_tokens: Count = 1024
    """Bound of one turn."""
    max_turns: Count = 12


class TrainSection(Section):
    """How it is trained. Defaults are the paper's where it names them."""

    epochs: Annotated[float, Field(gt=0)] = 3.0
    max_steps: Count | None = None
    """Ends training before the epochs are through; None: it does not."""
    learning_rate: Annotated[float, Field(gt=0)] = 1e-5
    schedule: Literal["cosine", "constant", "linear", "constant_with_warmup"] = "cosine"
    warmup: Annotated[float, Field(ge=0)] = 0.03
    """Share of the steps below 1, else steps."""
    batch_size: Count = 1
    """Sessions a device and forward pass."""
    accumulate: Count = 1
    """Forward passes a step."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    max_grad_norm: Annotated[float, Field(gt=0)] = 1.0
    gradient_checkpointing: bool = True
    cache_vision_gib: Annotated[float, Field(ge=0)] = 0.0
    """Memory, on the CPU, for what the frozen vision encoder makes of an image, so that it runs once an image; 0: none.
    About 19 MB for a 768 px image of the 4B model. Not with ZeRO-3 or FSDP."""
    bf16: bool = True
    """Compute in bfloat16."""
    seed: int = 0
    log_every: Count = 10
    """Steps between points of the curves."""
    save_every: Count = 100
    """Steps between checkpoints."""
    keep_checkpoints: Count = 2
    workers: Annotated[int, Field(ge=0)] = 0
    """Processes that prepare batches beside training."""


class SftConfig(Section):
    """Everything that ``python -m training.sft`` reads."""

    output: Folder
    """Folder for checkpoints, curves and the trained model."""
    model: ModelSection
    data: DataSection
    train: TrainSection = TrainSection()
    lora: LoraSection | None = None
    held_out: HeldOutSection = HeldOutSection()


Config = TypeVar("Config", bound=Section)


def read_toml(path: Path) -> dict[str, Any]:
    """A TOML file's content. Raises ConfigError that names the file."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path} cannot be read ({error.strerror}): name a TOML file") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from error


def check_config(raw: dict[str, Any], kind: type[Config], where: str) -> Config:
    """Check a configuration's keys and values. Raises ConfigError."""
    try:
        return kind.model_validate(raw)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        key = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            *section, name = first["loc"]
            known = ", ".join(_keys(kind, section))
            raise ConfigError(f"{where}: there is no key {key}; known beside {name} are {known}") from error
        if first["type"] == "missing":
            raise ConfigError(f"{where}: the key {key} is missing") from error
        if first["type"] == "value_error":  # a check of ours, in its own words
            said = first["msg"].removeprefix("Value error, ")
            raise ConfigError(f"{where}: {key}: {said}" if key else f"{where}: {said}") from error
        raise ConfigError(f"{where}: {key} is not usable: {first['msg'].lower()}") from error


def _keys(kind: type[Section], section: list[Any]) -> list[str]:
    """The keys of a section, by its path of names."""
    for name in section:
        annotation = kind.model_fields[name].annotation
        options = [annotation, *getattr(annotation, "__args__", ())]
        kind = next(option for option in options if isinstance(option, type) and issubclass(option, Section))
    return list(kind.model_fields)
