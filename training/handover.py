"""The folder that training leaves for servers: weights, processor, chat template, and what a server has to know.

``transformers serve`` and ``vllm serve`` load it as it is. It holds the whole model (adapters merged in), the
tokenizer with the project's chat template and a response template that keeps a turn's tags in the content, sampling
switched on so that a request's temperature counts, the video processor's settings that a stock installation asks for,
and a README.md that says what the model was trained on.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from agent.chat_template import END_OF_TEXT, END_OF_TURN, GENERATION_PROMPT
from training.compat import write_video_config

RESPONSE_TEMPLATE = {
    "defaults": {"role": "assistant"},
    "start_anchor": GENERATION_PROMPT,
    "fields": {"content": {"close_pattern": f"(?:{re.escape(END_OF_TURN)}|{re.escape(END_OF_TEXT)})"}},
}
"""How a server reads a turn: all of it is content. Without it ``transformers serve`` cuts the tool calls out."""


def write_folder(model: Any, processor: Any, folder: Path) -> None:
    """Save a whole model, in its weights' dtype, so that servers load it. Raises OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    set_generation(model, processor.tokenizer)
    model.save_pretrained(folder)
    write_processor(processor, folder)


def set_generation(model: Any, tokenizer: Any) -> None:
    """Generation settings that servers take as their defaults: what ends a turn, and sampling switched on."""
    settings = model.generation_config
    settings.eos_token_id = tokenizer.convert_tokens_to_ids([END_OF_TURN, END_OF_TEXT])
    settings.pad_token_id = tokenizer.pad_token_id
    settings.do_sample, settings.temperature, settings.top_p, settings.top_k = True, 1.0, 1.0, 0


def write_processor(processor: Any, folder: Path) -> None:
    """Save the processor with its templates, and the video processor's settings. Raises OSError."""
    processor.tokenizer.response_template = RESPONSE_TEMPLATE
    processor.save_pretrained(folder)
    images = processor.image_processor
    write_video_config(folder, images.patch_size, images.merge_size, images.temporal_patch_size)


def merge_adapter(base: Any, adapter: Path) -> Any:
    """The base model with a saved LoRA adapter merged into its weights."""
    from peft import PeftModel

    return PeftModel.from_pretrained(base, os.fspath(adapter)).merge_and_unload()
