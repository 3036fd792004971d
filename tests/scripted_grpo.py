"""A trainer whose policy says what a script gives it, with real tools: what GRPO is given is known to the token."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import cv2

from agent.protocol import Answer, ToolCall, Turn, render_turn
from agent.task import Task
from tests.conftest import make_photo
from tests.tiny_model import tiny_folder
from training.config import check_config, read_toml
from training.encoding import Encoded
from training.generation import Generated
from training.grpo.config import GrpoConfig
from training.grpo.rollouts import Rollouts
from training.grpo.run import trainer_of
from training.grpo.tasks import TaskSets
from training.local_policy import Batcher
from training.model import load_processor
from training.sft import changed

CONFIG = Path("training/configs/grpo-tiny.toml")
PROMPT = (
    "Using the provided image, change only the surface of the plate to introduce a scratch. The defect is "
    "medium-sized and pronounced. Everything else stays exactly as it is."
)


def said(name: str, **arguments: Any) -> str:
    return render_turn(Turn("next", ToolCall(name, arguments)))


ASK = said("prompt_gen", image=1, item_name="plate", anomaly_type="scratch")
EDIT = said("image_gen", prompt=PROMPT, target_image=1)
JUDGE = said("quality_eval", anomaly_image=2, item_name="plate", anomaly_type="scratch")
MASK = said("mask_gen", anomaly_image=2)
DONE = render_turn(Turn("done", Answer("success", 2, True, "a scratch")))
GIVEN_UP = render_turn(Turn("done", Answer("failed", None, False, "")))
UNREADABLE = "I begin."

Script = Sequence[str]
"""Turns; those after its end are unreadable."""


class ScriptedBatcher(Batcher):
    """Says an episode's script, found by the random numbers that the episode was given; it never draws one.

    The log-probability of the n-th token of a turn is -(n % 5 + 1) / 10. Turns of episodes in ``letter_by_letter`` are
    spelled in other tokens than the tokenizer would take.
    """

    scripts: Mapping[str, Script]
    letter_by_letter: Sequence[str] = ()
    step: int = 0

    def generate(self, prompts: Sequence[Encoded], draws: Sequence[Random]) -> list[Generated]:
        episodes = {Random(f"{self.sampling.seed} {self.step} {name}").getstate(): name for name in self.scripts}
        return [self._turn(episodes[draw.getstate()], prompt) for prompt, draw in zip(prompts, draws, strict=True)]

    def _turn(self, episode: str, prompt: Encoded) -> Generated:
        tokenizer = self.encoder.processor.tokenizer
        begun = tokenizer.decode(prompt.ids).count("<|im_start|>assistant")
        text = [*self.scripts[episode], *[UNREADABLE] * begun][begun - 1]
        pieces = text if episode in self.letter_by_letter else [text]
        ids = [token for piece in pieces for token in tokenizer(piece)["input_ids"]]
        return Generated(ids, [-(place % 5 + 1) / 10 for place in range(len(ids))], "stop")


@dataclass
class Stage:
    """A trainer on two photos of plates, and the scripts that its episodes say, by name ("00000-0": task-rollout)."""

    config: GrpoConfig
    trainer: Any
    own: Batcher
    """What the trainer would generate with if nothing else were put in its place."""
    scripts: dict[str, Script] = field(default_factory=dict)
    letter_by_letter: tuple[str, ...] = ()

    def rows(self, numbers: Sequence[int]) -> list[dict[str, Any]]:
        """What TRL's sampler gives for tasks: each as often as a group has rollouts."""
        size = self.config.grpo.group_size
        return [
            {"prompt": [{"role": "user", "content": "x"}], "task": number} for number in numbers for _ in range(size)
        ]

    def batch(self, numbers: Sequence[int]) -> dict[str, Any]:
        """The batch that TRL makes of the rollouts of tasks."""
        self.trainer.model.train()
        self.trainer.current_gradient_accumulation_steps = 1
        batch: dict[str, Any] = self.trainer._generate_and_score_completions(self.rows(numbers))
        return batch

    @contextmanager
    def generating(self) -> Iterator[Batcher]:
        """In place of the trainer's own."""
        batcher = ScriptedBatcher(self.own.model, self.own.encoder, self.own.sampling, max_batch=8)
        batcher.scripts, batcher.letter_by_letter = self.scripts, self.letter_by_letter
        batcher.step = self.trainer.state.global_step
        yield batcher


def tasks(folder: Path, count: int = 2) -> list[Task]:
    """One task for each of some photos of plates; any score passes."""
    folder.mkdir(parents=True, exist_ok=True)
    made = []
    for seed in range(count):
        photo = folder / f"{seed}.png"
        cv2.imwrite(str(photo), make_photo(96, 96, seed))
        made.append(Task(str(photo), "plate", "scratch", seed=seed, threshold=0.0, max_turns=6))
    return made


def configuration(output: Path, *changes: str) -> GrpoConfig:
    """The tiny configuration with groups of four and every replay off; ``changes`` come last and win."""
    settings = (
        f"output={output}", f"model.path={tiny_folder()}", 'tasks.files=["unused"]', "grpo.group_size=4",
        "grpo.groups=1", "grpo.beta=0.0", "train.batch_size=4", "replay.size=0", "grpo.filter_zero_advantage=false",
        "held_out.episodes=0", "rollout.max_tokens=8192", *changes,
    )  # fmt: skip
    return check_config(changed(read_toml(CONFIG), settings), GrpoConfig, "test")


@contextmanager
def stage(folder: Path, *changes: str, tools: bool = True) -> Iterator[Stage]:
    """A trainer with its tool server, which stands until the block ends; without ``tools`` there is none."""
    config = configuration(folder / "out", *changes)
    config.output.mkdir(parents=True)
    processor = load_processor(config.model)
    sets = TaskSets(tasks(folder / "photos"), [])
    rollouts = Rollouts(config, sets.train, config.output / "rollouts")
    with rollouts if tools else nullcontext():
        trainer = trainer_of(config, processor, sets, rollouts)
        with trainer.generating() as own:
            made = Stage(config, trainer, own)
        trainer.generating = made.generating
        yield made
