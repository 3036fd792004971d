"""Episodes whose turns are given: what stands in for a trained policy where rollouts are measured.

Prompt, edit, judge, mask, answer. Which turn is due is read off the prompt's ids, and the edit's place on the part is
drawn, so that episodes of one task differ. Everything behind the turns is real.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from random import Random
from typing import Any

from agent.chat_template import END_OF_TURN
from agent.protocol import Answer, ToolCall, Turn, render_turn
from training.encoding import Encoded, Encoder
from training.generation import Generated, Sampling, generate
from training.local_policy import Batcher

ITEM, ANOMALY = "flange", "scratch"
PLACES = ("upper", "lower", "left", "right", "central")
EDIT = (
    "Using the provided image, change only the surface of the flange: a long, pronounced scratch runs over the {} part "
    "of its face, with raised bright edges. Everything else stays exactly as it is."
)


def scripted_turn(number: int, place: str) -> Turn:
    """Turn ``number`` of an episode, from 0. Raises IndexError behind the last."""
    names = {"item_name": ITEM, "anomaly_type": ANOMALY}
    return (
        Turn(f"Image 1 is a good {ITEM}. I need an editing prompt.", ToolCall("prompt_gen", {"image": 1, **names})),
        Turn(
            "I edit the original with a prompt of my own.",
            ToolCall("image_gen", {"prompt": EDIT.format(place), "target_image": 1}),
        ),
        Turn("Image 2 is made. I have it judged.", ToolCall("quality_eval", {"anomaly_image": 2, **names})),
        Turn("Now the mask of image 2.", ToolCall("mask_gen", {"anomaly_image": 2})),
        Turn("Image 2 is the result.", Answer("success", 2, True, "a scratch on the face of the flange")),
    )[number]


def turn_due(ids: Sequence[int], end: int) -> int:
    """Which turn a prompt asks for, from 0: behind the system's and the user's message, turns and observations
    alternate. ``end``: the id of the end-of-turn token.
    """
    return (list(ids).count(end) - 2) // 2


class ScriptedBatcher(Batcher):
    """Generates nothing: the turn that is due, at once, each token as if its probability were 1.

    ``batches``: how many turns each batch had.
    """

    def __init__(self, model: Any, encoder: Encoder, sampling: Sampling, max_batch: int = 32) -> None:
        super().__init__(model, encoder, sampling, max_batch)
        self.batches: list[int] = []

    def generate(self, prompts: Sequence[Encoded], draws: Sequence[Random]) -> list[Generated]:
        """The turns that are due."""
        self.batches.append(len(prompts))
        tokenizer = self.encoder.processor.tokenizer
        end = tokenizer.convert_tokens_to_ids(END_OF_TURN)
        made = []
        for prompt, draw in zip(prompts, draws, strict=True):
            turn = scripted_turn(turn_due(prompt.ids, end), draw.choice(PLACES))
            ids: list[int] = tokenizer.encode(render_turn(turn))
            made.append(Generated([*ids, end], [0.0] * (len(ids) + 1), "stop"))
        return made


class ComputingBatcher(ScriptedBatcher):
    """The same turns, for each of which the model works: it samples as many tokens as the turn has, from its random
    weights, before the script's tokens take their place.
    """

    def generate(self, prompts: Sequence[Encoded], draws: Sequence[Random]) -> list[Generated]:
        """The turns that are due, after as much work as generating them takes."""
        turns = super().generate(prompts, draws)
        sampling = replace(self.sampling, max_new_tokens=max(len(turn.ids) for turn in turns))
        generate(self.model, self.encoder.processor, prompts, sampling, draws)
        return turns
