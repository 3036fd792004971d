"""Reinforcement learning of the policy: ``python -m training.grpo CONFIG``.

Section 6 of the paper: groups of rollouts of one task, advantages relative to the group, a clipped objective and a KL
penalty. Rollouts are episodes that the policy really acts out, through the loop that ``agent.run`` uses and with the
same tools, live or recorded; each is kept as a session with its rewards.

An output folder holds ``model/`` (the result), ``adapter/`` (LoRA), ``curves.png``, ``history.json``,
``tensorboard/``, ``rollouts/`` (a session for every episode), ``held_out/`` (the sessions of every measurement),
``samples/`` (reports of episodes at every checkpoint), ``tasks.json`` with ``photos/``, and ``checkpoints/``.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from agent.policies import PolicyError
from agent.recording_store import RecordingError
from agent.session import SessionError
from agent.toolbox import ToolboxError
from training.config import ConfigError, check_config, read_toml
from training.encoding import EncodingError
from training.errors import TrainingError
from training.grpo.config import GrpoConfig
from training.grpo.errors import RolloutError
from training.output_folder import GRPO, how_to_go_on
from training.sft import FAILED, INTERRUPTED, UNUSABLE, changed, check_deepspeed, fail


def parser_of() -> argparse.ArgumentParser:
    """The command's options."""
    parser = argparse.ArgumentParser(prog="python -m training.grpo", description="Have a policy learn by acting.")
    parser.add_argument("config", type=Path, metavar="CONFIG", help="such as training/configs/grpo-tiny.toml")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change one key (repeatable)")
    parser.add_argument("--resume", action="store_true", help="go on from the output folder's latest checkpoint")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code: 0, 1 where training failed, 2 for input that cannot be used, 130 where
    Ctrl-C or SIGTERM ended it, which leaves a checkpoint.
    """
    options = parser_of().parse_args(argv)
    config: GrpoConfig | None = None
    try:
        check_deepspeed()
        config = check_config(changed(read_toml(options.config), options.set), GrpoConfig, str(options.config))
        from training.grpo.run import run

        logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(message)s")
        logging.getLogger("training").setLevel(logging.INFO)
        figures = run(config, options.resume)
    except (ConfigError, TrainingError) as error:
        return fail(str(error), UNUSABLE)
    except (EncodingError, PolicyError, SessionError, RecordingError, ArithmeticError, OSError) as error:
        return fail(str(error), FAILED)
    except (ToolboxError, RolloutError) as error:
        return fail(str(error), FAILED)
    except KeyboardInterrupt:
        return fail(f"interrupted: {how_to_go_on(config.output, GRPO) if config else 'start again'}", INTERRUPTED)
    print("\n".join(f"{name}: {value:.4g}" for name, value in figures.items()))
    print(f"model: {config.output / 'model'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
