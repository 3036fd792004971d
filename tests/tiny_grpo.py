"""The reinforcement-learning command with a short training of a tiny model that can already act, for its tests."""

from __future__ import annotations

import json
import shutil
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pytest

from agent.chat_template import END_OF_TURN
from agent.protocol import Message
from agent.session import Session, read_session
from tests.tiny_model import image_ref
from tests.tiny_training import fitted_model, planner_sessions
from training.encoding import Encoded, Encoder
from training.generation import padded
from training.grpo import __main__ as command
from training.sessions import find_sessions

CONFIG = Path("training/configs/grpo-tiny.toml")
SIDE = 96


def train(output: Path, *changes: str, resume: bool = False) -> int:
    """The command with a short training; ``changes`` come last and win."""
    return command.main(arguments(output, *changes, resume=resume))


def arguments(output: Path, *changes: str, resume: bool = False) -> list[str]:
    """The command's arguments for two groups of four a step, one of which is replayed where it can be."""
    settings = (
        f"output={output}",
        f"model.path={acting_model()}",
        f'tasks.sessions=["{planner_sessions()}"]',
        "grpo.group_size=4",
        "grpo.groups=2",
        "replay.share=0.5",
        "train.max_steps=2",
        "train.save_every=2",
        "train.learning_rate=1e-3",
        "rollout.max_new_tokens=120",
        "rollout.max_tokens=1200",
        "held_out.share=0.0",
        "held_out.episodes=0",
        *changes,
    )
    chosen = [part for setting in settings for part in ("--set", setting)]
    return [str(CONFIG), *chosen, *(["--resume"] if resume else [])]


@cache
def acting_model() -> Path:
    """A model that has learnt the planner's sessions well enough to act, and not so well that it always does."""
    import torch
    from transformers import AutoModelForImageTextToText, AutoProcessor

    torch.set_num_threads(1)
    folder = Path(mkdtemp(prefix="acting-"))
    shutil.copytree(fitted_model(), folder, dirs_exist_ok=True)
    processor = AutoProcessor.from_pretrained(folder)
    encoder = Encoder(processor, SIDE)
    rows = [_encoded(read_session(place), encoder) for place in find_sessions([planner_sessions()])]
    inputs = padded([row for row, _ in rows], processor.tokenizer.pad_token_id, processor.image_token_id)
    labels = torch.full_like(inputs["input_ids"], -100)
    for place, (row, own) in enumerate(rows):
        ids = [token if mine else -100 for token, mine in zip(row.ids, own, strict=True)]
        labels[place, -len(ids) :] = torch.tensor(ids)
    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for _ in range(200):
        loss = model(**inputs, labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if loss.item() < 0.1:
            break
    else:
        raise AssertionError(f"the tiny model did not learn the sessions: loss {loss.item():.3f}")
    model.save_pretrained(folder)
    return folder


def _encoded(session: Session, encoder: Encoder) -> tuple[Encoded, list[int]]:
    """A session's ids, and which of them the assistant wrote (1)."""
    whole, own, waiting = Encoded(), list[int](), list[Message]()
    for event in session.of_type("message"):
        if event["role"] != "assistant":
            images = [
                image_ref(n, session.image(image["sha256"]), image["width"], image["height"])
                for n, image in enumerate(event["images"], 1)
            ]
            waiting.append(Message(event["role"], event["content"], tuple(images), event.get("name", "")))
            continue
        seen = encoder.encode(waiting, after_turn=bool(own))
        turn: list[int] = encoder.processor.tokenizer(event["content"] + END_OF_TURN)["input_ids"]
        whole = (whole + seen).with_ids(turn)
        own += [0] * len(seen.ids) + [1] * len(turn)
        waiting = []
    return whole, own


def refusal(capsys: pytest.CaptureFixture[str]) -> str:
    """The one line that a refused command prints."""
    said = capsys.readouterr().err
    lines = [line for line in said.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, said
    return lines[0]


def history(output: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((output / "history.json").read_text())
    return found


def told(output: Path) -> dict[str, list[list[int]]]:
    """What the policy sampled in each rollout of a training, turn by turn, by the rollout's folder."""
    root = output / "rollouts"
    return {
        place.relative_to(root).as_posix(): [
            call["completion_token_ids"] for call in read_session(place).of_type("model_call")
        ]
        for place in find_sessions([root])
    }
