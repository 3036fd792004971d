"""The same rollouts through TRL's own loop: a GRPOTrainer whose environments call the same tool servers.

TRL (1.16) generates the next turns of all episodes together, then runs their tools one episode after another. What is
put in its way is the generation alone: ``_generate_single_turn`` returns the script's turns, written as the chat
template that TRL ships for Qwen3-VL writes calls, and read by TRL's own parser. Environments hand images back as
content parts. Nothing is recorded and nothing is scored here, which the project's rollouts do within their time.
"""

from __future__ import annotations

import io
import json
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from anyio.from_thread import BlockingPortal, start_blocking_portal
from datasets import Dataset
from PIL import Image
from trl import GRPOConfig, GRPOTrainer
from trl.chat_template_utils import add_response_schema, qwen3_vl_chat_template

from agent.chat_template import END_OF_TURN
from agent.protocol import ImageRef, ToolCall, user_prompt
from agent.task import Task
from agent.toolbox import Server, Toolbox
from benchmarks.processes import Watch
from benchmarks.rollout_script import PLACES, scripted_turn, turn_due

FIELDS = ("image", "item_name", "anomaly_type", "seed")
RULES = "You turn a photo of a good part into a realistic defective one, one tool call after another."


class Environment:
    """One episode's tools as TRL calls them. ``tool_s``: seconds that its calls took; ``answered``: how many were."""

    def __init__(self, portal: BlockingPortal, toolbox: Toolbox) -> None:
        self._portal, self._toolbox = portal, toolbox
        self._images: list[ImageRef] = []
        self.tool_s, self.answered = 0.0, 0

    def reset(self, task: dict[str, Any], **row: Any) -> list[dict[str, Any]]:
        """Open the task's photo, which goes with the prompt."""
        self._task = Task(task["image"], task["item_name"], task["anomaly_type"], seed=task["seed"])
        self._images = [self._portal.call(self._toolbox.open_photo, self._task.image)]
        self.tool_s, self.answered = 0.0, 0
        return [_part(self._images[0])]

    def prompt_gen(self, image: int, item_name: str, anomaly_type: str) -> list[dict[str, Any]]:
        """Write the first editing prompt.

        Args:
            image: Number of the photo of the good part.
            item_name: What the photo shows.
            anomaly_type: The defect to make.
        """
        return self._call("prompt_gen", image=image, item_name=item_name, anomaly_type=anomaly_type)

    def image_gen(self, prompt: str, target_image: int) -> list[dict[str, Any]]:
        """Edit an image as the prompt says.

        Args:
            prompt: The editing prompt.
            target_image: Number of the image to edit.
        """
        return self._call("image_gen", prompt=prompt, target_image=target_image)

    def quality_eval(self, anomaly_image: int, item_name: str, anomaly_type: str) -> list[dict[str, Any]]:
        """Judge a synthesized image.

        Args:
            anomaly_image: Number of the image to judge.
            item_name: What the photo shows.
            anomaly_type: The defect that was asked for.
        """
        return self._call("quality_eval", anomaly_image=anomaly_image, item_name=item_name, anomaly_type=anomaly_type)

    def mask_gen(self, anomaly_image: int) -> list[dict[str, Any]]:
        """Find the mask of a synthesized image's defect.

        Args:
            anomaly_image: Number of the image to mask.
        """
        return self._call("mask_gen", anomaly_image=anomaly_image)

    def _call(self, name: str, **arguments: Any) -> list[dict[str, Any]]:
        started = time.perf_counter()
        seen = self._portal.call(self._toolbox.call, ToolCall(name, arguments), self._task, self._images)
        self.tool_s += time.perf_counter() - started
        self.answered += not seen.error
        text = {"type": "text", "text": json.dumps(seen.shown)}
        if seen.image is None:
            return [text]
        self._images.append(seen.image)
        return [text, _part(seen.image)]


@dataclass(slots=True)
class Measured:
    """One step's rollouts: seconds in all, CPU seconds of this and of other programs, seconds of each episode's tools,
    and calls that were answered.
    """

    wall_s: float = 0.0
    watch: Watch = field(default_factory=Watch)
    tool_s: list[float] = field(default_factory=list)
    answered: int = 0


class ScriptedTrainer(GRPOTrainer):
    """TRL's trainer with given turns; it measures a step's rollouts and goes no further."""

    def __init__(self, **named: Any) -> None:
        super().__init__(**named)
        self.measured = Measured()

    def _generate(self, prompts: list[Any]) -> tuple[Any, ...]:
        with self.measured.watch:
            started = time.perf_counter()
            super()._generate(prompts)
            self.measured.wall_s = time.perf_counter() - started
        self.measured.tool_s = [environment.tool_s for environment in self.environments]
        self.measured.answered = sum(environment.answered for environment in self.environments)
        raise RolledOut

    def _tokenize_prompts(self, prompts: list[Any]) -> tuple[Any, Any, dict[str, Any]]:
        ids, images, fields = super()._tokenize_prompts(prompts)
        for name in ("pixel_values", "image_grid_thw"):  # lists, where the processor does without torchvision
            fields[name] = torch.as_tensor(np.asarray(fields[name]))
        return ids, images, fields

    def _generate_single_turn(self, prompt_ids: Sequence[Sequence[int]], *_: Any, **__: Any) -> tuple[Any, None]:
        tokenizer = self.processing_class.tokenizer
        end = tokenizer.convert_tokens_to_ids(END_OF_TURN)
        made = []
        for row, ids in enumerate(prompt_ids):
            turn = scripted_turn(turn_due(ids, end), PLACES[row % len(PLACES)])
            text = turn.thinking
            if isinstance(turn.action, ToolCall):
                call = {"name": turn.action.name, "arguments": turn.action.arguments}
                text += f"\n<tool_call>\n{json.dumps(call)}\n</tool_call>"
            made.append([*tokenizer.encode(text), end])
        return made, None


class RolledOut(Exception):  # noqa: N818 - no error
    """Ends a step behind its rollouts: the update is not measured."""


def measure(
    tasks: Sequence[Task], copies: int, server: Server, processes: int, model: Any, processor: Any, folder: Path
) -> Measured:
    """Roll out ``copies`` episodes of every task. Raises ToolboxError where the tools cannot be started."""
    processor.chat_template = qwen3_vl_chat_template
    add_response_schema(processor)  # in place of the project's own, which leaves calls in the text
    rows = [
        {
            "prompt": [{"role": "system", "content": RULES}, {"role": "user", "content": user_prompt(task)}],
            "task": {name: value for name, value in task.to_json().items() if name in FIELDS},
        }
        for task in tasks
    ]
    count = copies * len(tasks)
    arguments = GRPOConfig(
        output_dir=str(folder), num_generations=copies, per_device_train_batch_size=count, max_steps=1,
        max_completion_length=16384, bf16=False, report_to="none", disable_tqdm=True, remove_unused_columns=False,
        beta=0.0, use_cpu=True, dataloader_pin_memory=False,
    )  # fmt: skip
    with (
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(Toolbox([server], processes=processes)) as toolbox,
    ):
        trainer = ScriptedTrainer(
            model=model,
            args=arguments,
            train_dataset=Dataset.from_list(rows),
            processing_class=processor,
            reward_funcs=[lambda completions, **_: [0.0] * len(completions)],
            environment_factory=lambda: Environment(portal, toolbox),
        )
        with suppress(RolledOut):
            trainer.train()
    return trainer.measured


def _part(image: ImageRef) -> dict[str, Any]:
    return {"type": "image", "image": Image.open(io.BytesIO(image.png)).convert("RGB")}
