"""Whether a checkpoint can be gone on from: looked at before the model is loaded, without reading all of it."""

from __future__ import annotations

import json
import re
import zipfile
from pathlib import Path

from training.config import ConfigError

STATE, OPTIMIZER, SCHEDULER = "trainer_state.json", "optimizer.pt", "scheduler.pt"
WEIGHTS = ("model.safetensors", "adapter_model.safetensors")
INDEX = "model.safetensors.index.json"


def check_whole(checkpoint: Path) -> int:
    """The step after which a checkpoint was written. Raises ConfigError where it is damaged or cut short, which says
    what to do.
    """
    found = re.compile(r"checkpoint-(\d+)")
    numbers = {int(m[1]): path for path in checkpoint.parent.iterdir() if (m := found.fullmatch(path.name))}
    damaged: list[str] = []
    for path in (numbers[number] for number in sorted(numbers, reverse=True)):
        if not (damage := _damage(path)):
            break
        damaged.append(f"{path if path == checkpoint else path.name} is damaged ({damage})")
    else:
        path = None
    if not damaged:
        step: int = json.loads((checkpoint / STATE).read_text(encoding="utf-8"))["global_step"]
        return step
    them = "it" if len(damaged) == 1 else "them"
    go_on = f"remove {them} and --resume goes on from {path.name}" if path else ""
    raise ConfigError(
        f"{', '.join(damaged)}: {go_on or 'there is no other, so start again in another folder with --set output=DIR'}"
    )


def _damage(checkpoint: Path) -> str:
    """What is missing in a checkpoint or cannot be read; "" where it is whole."""
    try:
        state = json.loads((checkpoint / STATE).read_text(encoding="utf-8"))
        if not (isinstance(state, dict) and isinstance(state.get("global_step"), int)):
            return f"{STATE} holds no step"
    except FileNotFoundError:
        return f"{STATE} is missing, so it was cut short"
    except (OSError, ValueError):
        return f"{STATE} cannot be read"
    if not any(path.is_dir() for path in checkpoint.iterdir()):  # those of DeepSpeed and FSDP keep theirs in folders
        for name in (OPTIMIZER, SCHEDULER):
            if not (checkpoint / name).is_file():
                return f"{name} is missing"
        if not any((checkpoint / name).is_file() for name in (*WEIGHTS, INDEX)):
            return f"{WEIGHTS[0]} is missing"
    return _torn(checkpoint)


def _torn(checkpoint: Path) -> str:
    """The first file of weights or of the trainer's state that is missing from an index or not whole; "" for none."""
    from safetensors import SafetensorError, safe_open

    weights = {path.name for path in checkpoint.glob("*.safetensors")}
    if (checkpoint / INDEX).exists():
        try:
            weights |= set(json.loads((checkpoint / INDEX).read_text(encoding="utf-8"))["weight_map"].values())
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return f"{INDEX} cannot be read"
    for name in sorted(weights):
        try:
            with safe_open(checkpoint / name, "np"):
                pass
        except (OSError, SafetensorError) as error:
            return f"{name}: {str(error).splitlines()[0]}"
    for path in (checkpoint / OPTIMIZER, checkpoint / SCHEDULER, *sorted(checkpoint.glob("rng_state*.pth"))):
        if path.is_file() and not zipfile.is_zipfile(path):
            return f"{path.name} is cut short"
    return ""
