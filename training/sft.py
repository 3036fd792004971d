"""Supervised fine-tuning of the policy on recorded sessions: ``python -m training.sft CONFIG``.

Section 6 of the paper: the likelihood of the assistant's turns, nothing else; vision encoder frozen. The trainer is
TRL's. What is here is what surrounds it: the configuration (``config.py``), the data (``sft_data.py``), the model
(``model.py``), batches that are never altered silently (``collate.py``), episodes that the agent really runs to measure
(``held_out.py``), and the folder that servers load (``handover.py``).

An output folder holds ``model/`` (the result), ``adapter/`` (LoRA), ``curves.png``, ``history.json``, ``tensorboard/``,
``held_out/`` (the sessions of every measurement), ``split.json`` (which sessions were kept out: ``training.held_out
--from`` takes it), ``data/`` and ``checkpoints/``. Several GPUs (install the extras train and deepspeed):
``accelerate launch --config_file training/configs/accelerate/zero3.yaml -m training.sft CONFIG``.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import tomllib
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from agent.session import SessionError
from agent.toolbox import ToolboxError
from training.config import ConfigError, SftConfig, check_config, read_toml
from training.encoding import EncodingError
from training.examples import DataError
from training.output_folder import SFT, how_to_go_on

UNUSABLE, FAILED, INTERRUPTED = 2, 1, 130


EPILOG = """\
It reads recorded sessions itself, and needs nothing of training.data. Taken are sessions that ended in an answer, with
no turn that could not be used and no call that a tool refused, each conversation once. Keys that choose among them:
data.sessions, data.policies, data.min_score, data.min_reward, data.max_tokens, data.skip_broken; data.resample repeats
the rarer types of trajectory, held_out.share keeps photos out of training."""


def parser_of() -> argparse.ArgumentParser:
    """The command's options."""
    parser = argparse.ArgumentParser(
        prog="python -m training.sft", description="Fine-tune a policy on sessions.", epilog=EPILOG
    )
    parser.add_argument("config", type=Path, metavar="CONFIG", help="TOML file, such as training/configs/tiny-cpu.toml")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help='change one key, such as train.max_steps=20 or data.sessions=["mine"] (repeatable)',
    )
    parser.add_argument("--resume", action="store_true", help="go on from the output folder's latest checkpoint")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code: 0, 1 where training failed, 2 for input that cannot be used."""
    options = parser_of().parse_args(argv)
    config: SftConfig | None = None
    try:
        check_deepspeed()
        config = check_config(changed(read_toml(options.config), options.set), SftConfig, str(options.config))
        from training.sft_run import run

        logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(message)s")
        logging.getLogger("training").setLevel(logging.INFO)
        figures = run(config, options.resume)
    except (ConfigError, DataError) as error:
        return fail(str(error), UNUSABLE)
    except (EncodingError, SessionError, ToolboxError, OSError) as error:
        return fail(str(error), FAILED)
    except KeyboardInterrupt:
        return fail(f"interrupted: {how_to_go_on(config.output, SFT) if config else 'start again'}", INTERRUPTED)
    print("\n".join(f"{name}: {value:.4g}" for name, value in figures.items()))
    print(f"model: {config.output / 'model'}")
    return 0


def changed(raw: dict[str, Any], changes: Sequence[str]) -> dict[str, Any]:
    """A configuration with some keys set. A value is TOML, or a string where it is no TOML. Raises ConfigError."""
    for change in changes:
        key, equals, text = change.partition("=")
        if not equals or not key:
            raise ConfigError(f"--set {change}: write it as KEY=VALUE, such as train.max_steps=20")
        try:
            value = tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            value = text
        *sections, name = key.split(".")
        place = raw
        for section in sections:
            place = place.setdefault(section, {})
            if not isinstance(place, dict):
                raise ConfigError(f"--set {change}: {section} is no section")
        place[name] = value
    return raw


def check_deepspeed() -> None:
    """Raise ConfigError where the launcher asks for DeepSpeed and it is not installed."""
    if os.environ.get("ACCELERATE_USE_DEEPSPEED", "").lower() == "true" and find_spec("deepspeed") is None:
        raise ConfigError(
            "DeepSpeed, which the launcher asks for, is not installed: pip install '.[train,deepspeed]', or launch "
            "without it"
        )


def fail(message: str, code: int) -> int:
    print(f"error: {message}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
