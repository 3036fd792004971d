"""Batches for supervised fine-tuning: TRL's collator, given every picture in its place, and a check of what it made.

TRL fills image parts of user messages only and leaves those of tool messages empty; here all are filled first. A batch
whose image tokens and image features differ would be trained without its images: it is an error instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from training.encoding import check_image_tokens

Row = dict[str, Any]
"""A conversation for the trainer: ``messages`` (role, list of parts) and ``images`` (pictures, in order)."""


class EpisodeCollator:
    """Makes model inputs and labels of rows; labels are the assistant's turns, -100 elsewhere."""

    def __init__(self, processor: Any) -> None:
        from trl.trainer.sft_trainer import DataCollatorForVisionLanguageModeling

        self.processor = processor
        self._collate = DataCollatorForVisionLanguageModeling(processor, max_length=None, assistant_only_loss=True)

    def __call__(self, rows: Sequence[Row]) -> dict[str, Any]:
        """Tensors: input_ids, attention_mask, labels (batch, width), pixel_values (patches, values), image_grid_thw.

        Raises EncodingError where image tokens and image features differ.
        """
        filled = [{"messages": fill(row), "images": []} for row in rows]
        batch: dict[str, Any] = dict(self._collate(filled))
        check_image_tokens(batch["input_ids"].flatten().tolist(), batch["image_grid_thw"].tolist(), self.processor)
        return batch


def fill(row: Row) -> list[dict[str, Any]]:
    """The messages with a picture in every image part. Raises ValueError where the numbers differ."""
    images = iter(row["images"])
    return [
        {
            "role": message["role"],
            "content": [
                {"type": "image", "image": next(images).convert("RGB")}
                if part["type"] == "image"
                else {"type": "text", "text": part["text"]}
                for part in message["content"]
            ],
        }
        for message in row["messages"]
    ]
