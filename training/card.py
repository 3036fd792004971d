"""The README.md of a trained folder: what it is, what it was trained on and how, and what was measured."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from agent.chat_template import template_hash
from training.config import LoraSection, ModelSection, SftConfig
from training.grpo.config import GrpoConfig
from training.stages import Stage, changes, without_none

PACKAGES = ("anomaly-agent", "torch", "transformers", "trl", "peft", "accelerate", "datasets")
ROOT = Path(__file__).resolve().parent.parent


def model_card(config: SftConfig, data: Mapping[str, Any], figures: Mapping[str, float], went: Sequence[Stage]) -> str:
    """The card of a model after supervised fine-tuning. ``data``: its facts; ``figures``: what was measured last;
    ``went``: the parts of the training.
    """
    counts = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in data["examples"].items())
    left_out = ", ".join(f"{reason} ({count})" for reason, count in data["left_out"].items()) or "none"
    facts = f"""\
- Method: {_method(config.lora)}; vision encoder {"frozen" if config.model.freeze_vision else "trained"}, projector and
  language model trained; loss on the assistant's turns alone.
- Sessions: {counts}; {data["photos"]} photos; {data["constructed"]} constructed from real defects; longest
  {data["longest_tokens"]} tokens. Left out: {left_out}; too long: {data["too_long"]}.
- Protocol: {", ".join(h[:16] + "…" for h in data["protocol_hashes"])}"""
    measured = "`eval_` figures are of held-out photos; its shares are of episodes that the agent really ran, greedily."
    done = "supervised fine-tuning on recorded sessions"
    return _card(config, config.model, "sft", done, facts, figures, measured, went)


def grpo_card(
    config: GrpoConfig, tasks: int, held_out: int, figures: Mapping[str, float], went: Sequence[Stage]
) -> str:
    """The card of a model after reinforcement learning on so many tasks. ``figures``: what was measured last;
    ``went``: the parts of the training.
    """
    own = config.tools.backends.get("judge", "local")
    facts = f"""\
- Method: {_method(config.lora)}; GRPO, groups of {config.grpo.group_size}, rewards by the judge {own}; vision encoder
  {"frozen" if config.model.freeze_vision else "trained"}.
- Tasks: {tasks} to train on, {held_out} of other photos to measure on."""
    measured = (
        f"`eval_` figures are of greedy episodes on held-out photos; `eval_reward` and `eval_score` by the judge\n"
        f"{config.held_out.judge}, `eval_reward_by_own_judge` and `eval_mean_score` by the one that rewarded."
    )
    done = "reinforcement learning on episodes that it acted out"
    return _card(config, config.model, "grpo", done, facts, figures, measured, went)


def _method(lora: LoraSection | None) -> str:
    return f"LoRA, rank {lora.rank}, merged into the weights" if lora else "all weights that train"


def _card(
    config: SftConfig | GrpoConfig,
    model: ModelSection,
    tag: str,
    done: str,
    facts: str,
    figures: Mapping[str, float],
    measured: str,
    went: Sequence[Stage],
) -> str:
    licence = licence_of(_base_card(model.path))
    table = "\n".join(f"| {name} | {value:.4g} |" for name, value in figures.items())
    versions = ", ".join(f"{name} {number}" for name, number in installed().items())
    now = config.model_dump(mode="json", include={"output", "held_out"})  # a resume may measure and train no further
    settings = json.dumps(without_none(went[-1].config | now), indent=2)
    return f"""\
---
license: {licence or "other"}
base_model: {model.path}
pipeline_tag: image-text-to-text
library_name: transformers
tags: [anomaly-agent, {tag}]
---

# {config.output.name}: a policy for AnomalyAgent

`{model.path}` after {done} of AnomalyAgent: it turns a photo of a good
part into a realistic defective one by calling five tools, one a turn.

```sh
vllm serve .          # or, also on a CPU: python -m training.serve .
python -m agent.run photo.png --item bottle --anomaly scratch --policy openai --base-url http://127.0.0.1:8000/v1 \\
    --model MODEL --image-side {model.image_side}
```

Serve it with the chat template in this folder: it is append-only, the base model's own is not.

## Training

{facts}{_on_the_way(went, config.train.schedule)}
- Chat template: SHA-256 `{template_hash()[:16]}…`
- Software: {versions}; Python {sys.version.split()[0]}; code {commit() or "without a git commit"}

| figure | value |
|---|---|
{table}

{measured if any(name.startswith("eval_") for name in figures) else "Nothing was measured at the last step."}

## Licence

{f"The base model's: {licence}." if licence else "The base model's, which it does not name in its folder: look there."}
What the photos allow applies too.

## Configuration

```json
{settings}
```
"""


def _on_the_way(went: Sequence[Stage], schedule: str) -> str:
    """Lines on what was changed where the training was gone on with; "" where nothing was."""
    lines = []
    for step, told in changes(went, ("output", "held_out")).items():
        longer = "train.max_steps" in told or "train.epochs" in told
        note = f"; the {schedule} schedule goes by the new length from step {step + 1} on"
        lines.append(f"\n- Changed from step {step} on: {told}{note if longer and schedule != 'constant' else ''}.")
    return "".join(lines)


def _base_card(path: str) -> str:
    """The base model's README, "" where its folder has none."""
    try:
        return (Path(path) / "README.md").read_text(encoding="utf-8")
    except OSError:
        return ""


def licence_of(card: str) -> str:
    """The licence that a model card's front matter names; "" where it names none."""
    front = re.match(r"---\n(.*?)\n---", card, re.DOTALL)
    found = re.search(r"^license:\s*([\w.-]+)\s*$", front[1], re.MULTILINE) if front else None
    return found[1] if found else ""


def installed() -> dict[str, str]:
    """Versions of the packages that took part."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def commit() -> str:
    """The code's git commit, with "+changes" where the working tree differs; "" where there is none."""
    try:
        head = _git("rev-parse", "HEAD")
        return head + ("+changes" if head and _git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return ""


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()
