"""Examples as a Hugging Face data set, on disk or as Parquet, with a card that says what is in it and what is not.

The data set is derived: sessions stay the source, and nothing is ever read back from it into them.
"""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from training.examples import KINDS, DataError, Example
from training.rewards import SCORER, SCORER_VERSION

if TYPE_CHECKING:
    import datasets

    from training.data import Examples, Selection

FACTS = (
    "session_id", "kind", "kr", "score", "reward", "excluded", "stop_reason", "policy", "constructed",
    "original_sha256", "protocol_hash", "repairs", "refusals",
)  # fmt: skip
"""Columns beside messages, images, item_name and anomaly_type."""
OBSERVATION_ROLE = "user"
"""Role of a tool's observation in a data set: as the agent sends it to a model, and since TRL fills no image into a
message of the role "tool". The project's chat template renders both alike."""


def to_dataset(examples: Sequence[Example], cache: Path | None = None) -> datasets.Dataset:
    """A ``datasets.Dataset``: messages (parts stored as JSON, so that no missing key is filled with null), images
    (PNG, as a model is shown them) and what is known of each example.

    ``cache``: a folder for the Arrow file, which must last as long as the data set; without one it lies in memory.
    Raises DataError where the datasets library is missing or a picture has gone.
    """
    try:
        import datasets
    except ImportError as error:
        raise DataError("datasets is not installed: pip install 'anomaly-agent[train]'") from error
    if not examples:
        raise DataError("no example is left: loosen the filters, or name other sessions")
    text, number, yes = datasets.Value("string"), datasets.Value("float64"), datasets.Value("bool")
    features = datasets.Features(
        {
            "messages": datasets.List({"role": text, "content": datasets.List(datasets.Json())}),
            "images": datasets.List(datasets.Image()),
            "item_name": text,
            "anomaly_type": text,
            **dict.fromkeys(FACTS, text),
            **{"kr": yes, "constructed": yes, "score": number, "reward": number},
            **{"repairs": datasets.Value("int32"), "refusals": datasets.Value("int32")},
        }
    )
    with tempfile.TemporaryDirectory(prefix="examples-") as scratch:
        try:
            return datasets.Dataset.from_generator(
                _rows,
                features=features,
                gen_kwargs={"examples": list(examples)},
                cache_dir=str(cache or scratch),
                keep_in_memory=cache is None,
                writer_batch_size=16,
            )
        except datasets.exceptions.DatasetGenerationError as error:
            raise DataError(f"the data set cannot be written: {error.__cause__ or error}") from error


def trainer_messages(example: Example) -> list[dict[str, Any]]:
    """An example's messages with the roles that trainers know what to do with: system, user and assistant."""
    return [{**m, "role": OBSERVATION_ROLE} if m["role"] == "tool" else m for m in example.messages]


def _rows(examples: Sequence[Example]) -> Iterator[dict[str, Any]]:
    for example in examples:
        yield {
            "messages": trainer_messages(example),
            "images": [{"bytes": png, "path": None} for png in example.images],
            "item_name": str(example.task.get("item_name", "")),
            "anomaly_type": str(example.task.get("anomaly_type", "")),
            **{name: getattr(example, name) for name in FACTS},
        }


def write_dataset(
    folder: Path,
    splits: Mapping[str, Sequence[Example]],
    facts: Mapping[str, Any],
    form: Literal["hf", "parquet"] = "hf",
) -> None:
    """Write the splits and a card (README.md) to a new or empty folder; it appears only when it is whole.

    "hf" is for ``datasets.load_from_disk``, "parquet" for ``datasets.load_dataset`` and every Parquet reader. Raises
    DataError where the folder is not empty or there is no example.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DataError(f"{folder} is not empty: choose another --out")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as scratch:
        draft = Path(scratch) / "draft"
        draft.mkdir()
        made = {name: to_dataset(rows, Path(scratch) / "cache" / name) for name, rows in splits.items()}
        if form == "hf":
            import datasets

            datasets.DatasetDict(made).save_to_disk(str(draft))
        else:
            (draft / "data").mkdir()
            for name, dataset in made.items():
                dataset.to_parquet(str(draft / "data" / f"{name}-00000-of-00001.parquet"))
        (draft / "README.md").write_text(card(facts, form), encoding="utf-8")
        if folder.exists():
            folder.rmdir()
        os.replace(draft, folder)


def describe(
    splits: Mapping[str, Sequence[Example]], read: Examples, selection: Selection, balanced: int, seed: int
) -> dict[str, Any]:
    """What the card and the command say: counts, filters, what was left out and why, fingerprints.

    ``balanced``: examples added to the training split (or, negative, taken from it) for the sake of balance.
    """
    counts = {
        name: {kind: count for kind in KINDS if (count := sum(e.kind == kind for e in rows))}
        for name, rows in splits.items()
    }
    filters = asdict(selection)
    rewards = selection.rewards
    return {
        "examples": {name: len(rows) for name, rows in splits.items()},
        "kinds": counts,
        "with_knowledge": {name: sum(e.kr for e in rows) for name, rows in splits.items()},
        "photos": len({e.original_sha256 for e in read}),
        "policies": dict(Counter(e.policy or "unnamed" for e in read).most_common()),
        "constructed": sum(e.constructed for e in read),
        "sessions_read": len(read) + len(read.left_out),
        "left_out": read.reasons,
        "broken": [asdict(left) for left in read.left_out if left.detail],
        "balance": balanced,
        "seed": seed,
        "filters": {name: value for name, value in filters.items() if name != "rewards"},
        "reward": {"scorer": SCORER, "scorer_version": SCORER_VERSION, "config_hash": rewards.hash},
        "protocol_hashes": sorted({e.protocol_hash for e in read}),
    }


def summary_text(facts: Mapping[str, Any]) -> str:
    """The facts in a few lines of plain text."""
    lines = []
    for name, count in facts["examples"].items():
        kinds = ", ".join(f"{kind} {n}" for kind, n in facts["kinds"][name].items())
        lines.append(f"{name}: {count} examples ({kinds or 'none'}), {facts['with_knowledge'][name]} with knowledge")
    used = facts["sessions_read"] - sum(facts["left_out"].values())
    lines.append(f"from {used} of {facts['sessions_read']} sessions, {facts['photos']} photos")
    lines += [f"left out: {count}, {reason}" for reason, count in facts["left_out"].items()]
    lines += [f"broken: {broken['detail']}" for broken in facts["broken"]]
    if facts["balance"]:
        lines.append(f"balance: {facts['balance']:+d} training examples")
    lines.append(f"protocol: {', '.join(name[:12] or 'none' for name in facts['protocol_hashes'])}")
    return "\n".join(lines)


def card(facts: Mapping[str, Any], form: str) -> str:
    """The data set's README.md: metadata for a hub, then what is in it."""
    kinds = "\n".join(
        f"| {name} | {count} | {' | '.join(str(facts['kinds'][name].get(kind, 0)) for kind in KINDS)}"
        f" | {facts['with_knowledge'][name]} |"
        for name, count in facts["examples"].items()
    )
    left = "\n".join(f"- {count}: {reason}" for reason, count in facts["left_out"].items()) or "- none"
    filters = "\n".join(f"- {name}: {_plain(value)}" for name, value in facts["filters"].items())
    policies = ", ".join(f"{name} ({count})" for name, count in facts["policies"].items())
    scorer = facts["reward"]
    return f"""---
pretty_name: Recorded sessions of defect synthesis
task_categories: [image-text-to-text]
tags: [anomaly-agent, tool-use]
---

# Recorded sessions of defect synthesis

Conversations in which a policy makes a defect on a photo of a good part with five tools. `messages` holds roles and
content parts, `images` the pictures in the order of the image parts. Load it with
`datasets.{"load_from_disk" if form == "hf" else "load_dataset"}(FOLDER)`.

| split | examples | {" | ".join(KINDS)} | with knowledge |
|---|---|{"---|" * len(KINDS)}---|
{kinds}

- Sessions read: {facts["sessions_read"]}; photos: {facts["photos"]}
- Constructed from real defects: {facts["constructed"]}
- Policies: {policies}
- Examples added to (or taken from) training for balance: {facts["balance"]}; seed {facts["seed"]}
- Splits share no photo
- Rewards: scorer {scorer["scorer"]} {scorer["scorer_version"]}, configuration {scorer["config_hash"]}
- Protocol, the SHA-256 of what every policy was told: {", ".join(facts["protocol_hashes"])}

Left out:
{left}

Filters:
{filters}
"""


def _plain(value: Any) -> str:
    """A filter's value as a reader says it."""
    if isinstance(value, bool) or value is None:
        return "yes" if value else "no"
    return (", ".join(value) or "all") if isinstance(value, tuple) else str(value)
