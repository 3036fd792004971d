"""Sessions made ready for supervised fine-tuning: read, checked, split by photo, and kept with the training.

Everything lies in the training's output folder, so that a training that is resumed goes on with the very data it began
with: ``data/`` (the examples, as a Hugging Face data set with a card), ``tokens.json`` (their lengths), ``data.json``
(what is in it and what was left out), ``split.json`` (which sessions are held out, which photos are learned from) and
``held_out.json`` (the tasks that the agent runs to measure).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from agent.policies.pictures import scaled_size
from agent.task import Task
from training.config import ConfigError, DataSection, HeldOutSection
from training.data import Selection, read_examples
from training.examples import DataError, Example
from training.export import describe, write_dataset
from training.held_out import tasks_of
from training.output_folder import SFT
from training.split import resample, split
from training.split_record import write_split

if TYPE_CHECKING:
    from datasets import Dataset

Chosen = TypeVar("Chosen")
OWN_WORDS = {
    "--skip-broken": "--set data.skip_broken=true",
    "--validation 0": "--set held_out.share=0",
    ", or use --allow-mixed": "",
}
"""Options of ``training.data`` that its refusals name, and what they are called here ("" where there is no such)."""
TOKENS = "tokens"
"""Column of an example's length in tokens; batches are made of examples of similar length."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """Training and held-out examples (None where nothing is held out), the tasks to measure on, and the facts."""

    train: Dataset
    held_out: Dataset | None
    tasks: list[Task]
    facts: dict[str, Any]


def prepare(section: DataSection, held_out: HeldOutSection, processor: Any, side: int, folder: Path, seed: int) -> None:
    """Read and check the sessions, then begin the training's folder and write into it what the training needs.

    Raises DataError or ConfigError where they cannot be learned from as they are, or the folder is in use.
    """
    selection = Selection(
        min_score=section.min_score,
        min_reward=section.min_reward,
        policies=tuple(section.policies),
        skip_broken=section.skip_broken,
        side=side,
    )
    read = _in_own_words(lambda: read_examples(section.sessions, selection))
    if not read:
        reasons = ", ".join(f"{reason} ({count})" for reason, count in read.reasons.items())
        raise DataError(f"no session can be learned from; left out: {reasons}")
    control = control_pattern(processor)
    lengths = {id(example): check_example(example, processor, control, side) for example in read}
    fit = [example for example in read if lengths[id(example)] <= section.max_tokens]
    if not fit:
        shortest = min(lengths.values())
        raise DataError(f"no session has at most {section.max_tokens} tokens: raise data.max_tokens to {shortest}")
    train, held = _in_own_words(lambda: split(fit, held_out.share, seed))
    balanced = resample(train, seed) if section.resample else train
    splits = {"train": balanced, **({"held_out": held} if held else {})}
    facts = describe(splits, read, selection, len(balanced) - len(train), seed)
    facts |= {"too_long": len(read) - len(fit), "longest_tokens": max(lengths[id(example)] for example in fit)}
    tasks = tasks_of(held, held_out.episodes, held_out.max_turns)
    SFT.begin(folder)
    write_dataset(folder / "data", splits, facts)
    tokens = {name: [lengths[id(example)] for example in rows] for name, rows in splits.items()}
    write_split(folder, train, held)
    (folder / "tokens.json").write_text(json.dumps(tokens), encoding="utf-8")
    (folder / "held_out.json").write_text(json.dumps([asdict(task) for task in tasks], indent=2), encoding="utf-8")
    (folder / "data.json").write_text(json.dumps(facts, indent=2, ensure_ascii=False), encoding="utf-8")


def load(folder: Path) -> Prepared:
    """What ``prepare`` wrote. Raises ConfigError where it is missing."""
    import datasets

    try:
        splits = datasets.load_from_disk(str(folder / "data"))
        tokens = json.loads((folder / "tokens.json").read_text(encoding="utf-8"))
        tasks = [Task(**fields) for fields in json.loads((folder / "held_out.json").read_text(encoding="utf-8"))]
        facts = json.loads((folder / "data.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, TypeError) as error:
        raise ConfigError(f"{folder} lacks the data that its training began with: start again elsewhere") from error
    rows = {
        name: split.select_columns(["messages", "images"]).add_column(TOKENS, tokens[name])
        for name, split in splits.items()
    }
    return Prepared(rows["train"], rows.get("held_out"), tasks, facts)


def _in_own_words(step: Callable[[], Chosen]) -> Chosen:
    """Carry out a step that ``training.data`` also takes, and name this command's keys in place of its options."""
    try:
        return step()
    except DataError as error:
        message = str(error)
        for option, key in OWN_WORDS.items():
            message = message.replace(option, key)
        raise DataError(message) from error


def control_pattern(processor: Any) -> re.Pattern[str]:
    """Finds the tokens that are no text, such as the one that stands for an image."""
    added = processor.tokenizer.added_tokens_decoder.values()
    return re.compile("|".join(re.escape(token.content) for token in added if token.special))


def check_example(example: Example, processor: Any, control: re.Pattern[str], side: int) -> int:
    """Make sure that an example can be trained on as it is, and count its tokens.

    Raises DataError where pictures and image parts differ in number, or a text holds a control token: an image token
    without an image would train on altered data.
    """
    from PIL import Image

    parts = [part for message in example.messages for part in message["content"]]
    shown = sum(part["type"] == "image" for part in parts)
    if not shown:
        raise DataError(f"{example.session}: there is no image in it: a policy is trained on what it sees")
    if shown != len(example.pictures):
        raise DataError(f"{example.session}: {len(example.pictures)} pictures for {shown} image parts: leave it out")
    for part in parts:
        if part["type"] == "text" and (found := control.search(part["text"])):
            raise DataError(f"{example.session}: a text holds the control token {found[0]}: leave this session out")
    sizes = []
    for picture in example.pictures:
        with Image.open(picture.path) as image:
            width, height = scaled_size(*image.size, side)
        sizes.append((height, width))
    images: Sequence[int] = processor._get_num_multimodal_tokens(image_sizes=sizes).num_image_tokens
    text = processor.apply_chat_template(list(example.messages))
    return len(processor.tokenizer(text)["input_ids"]) - len(images) + sum(images)
