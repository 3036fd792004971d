"""The folder that training leaves for servers: weights, processor, chat template, and what a server has to know.

``transformers serve`` and ``vllm serve`` load it as it is. It holds the whole model (adapters merged in), the
tokenizer with the project's chat template and a response template that keeps a turn's tags in the content, sampling
switched on so that a request's temperature counts, the video processor's settings that a stock installation asks for,
and a README.md that says what the model was trained on.
"""

from __future__ import annotations

import logging
import os
import re
from pathlib import Path
from typing import Any

from agent.chat_template import END_OF_TEXT, END_OF_TURN, GENERATION_PROMPT
from training.compat import write_video_config
from training.config import ModelSection
from training.model import load_model

logger = logging.getLogger("training")

RESPONSE_TEMPLATE = {
    "defaults": {"role": "assistant"},
    "start_anchor": GENERATION_PROMPT,
    "fields": {"content": {"close_pattern": f"(?:{re.escape(END_OF_TURN)}|{re.escape(END_OF_TEXT)})"}},
}
"""How a server reads a turn: all of it is content. Without it ``transformers serve`` cuts the tool calls out."""


def hand_over(trainer: Any, processor: Any, section: ModelSection, output: Path, card: str, *, adapter: bool) -> None:
    """Write ``model/`` with its card, and ``adapter/`` with LoRA, into a training's output folder.

    Every process takes part where the weights are spread. Raises ConfigError or OSError.
    """
    folder, adapters = output / "model", output / "adapter"
    processor.tokenizer.response_template = RESPONSE_TEMPLATE
    if adapter:
        trainer.save_model(str(adapters))
    else:
        set_generation(trainer.accelerator.unwrap_model(trainer.model), processor.tokenizer)
        trainer.save_model(str(folder))
    if not trainer.accelerator.is_main_process:
        return
    if adapter:
        write_folder(merge_adapter(load_model(section), adapters), processor, folder)
    else:
        write_processor(processor, folder)
    for place in (folder, adapters):
        (place / "training_args.bin").unlink(missing_ok=True)
    (folder / "README.md").write_text(card, encoding="utf-8")
    logger.info("the trained model is in %s", folder)


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
