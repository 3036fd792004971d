"""Loading what is trained: processor and model, the template in place, the vision encoder frozen, adapters on.

These functions are for any program that trains or measures the policy; ``sft.py`` is one of them.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from agent.chat_template import END_OF_TURN, GENERATION_PROMPT, TEMPLATE_FILE, chat_template
from training.compat import without_video
from training.config import ConfigError, LoraSection, ModelSection

PROJECTOR = ("merger.", "deepstack_merger_list.")
"""Parts of the vision tower that project its features into the language model; the paper trains them."""
LORA_TARGETS = (
    r".*language_model.*\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)"
    r"|.*visual\.(merger|deepstack_merger_list\.\d+)\.linear_fc[12]"
)
"""Modules that get adapters: the language model's projections and the projector's layers."""


def load_processor(section: ModelSection) -> Any:
    """The model's processor with the project's chat template. Raises ConfigError where the folder is no Qwen3-VL's."""
    from transformers import AutoProcessor

    _check_folder(section.path)
    without_video()
    try:
        processor = AutoProcessor.from_pretrained(section.path)
    except (OSError, ValueError, KeyError) as error:
        raise ConfigError(_not_loaded(section.path, error)) from error
    if type(processor).__name__ != "Qwen3VLProcessor":
        raise ConfigError(f"model.path {section.path} is a {type(processor).__name__}'s: name a Qwen3-VL")
    _check_tokenizer(processor, section.path)
    try:
        processor.chat_template = chat_template()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"the chat template {TEMPLATE_FILE} cannot be read ({error}): restore the file") from error
    if section.max_image_tokens:
        images = processor.image_processor
        side = images.patch_size * images.merge_size
        least = min(images.size["shortest_edge"], section.max_image_tokens * side**2)
        images.size = {"shortest_edge": least, "longest_edge": section.max_image_tokens * side**2}
    check_template(processor)
    return processor


def load_model(section: ModelSection) -> Any:
    """The model with its weights, in training's dtype. Raises ConfigError."""
    import torch
    from safetensors import SafetensorError
    from transformers import AutoModelForImageTextToText

    try:
        model = AutoModelForImageTextToText.from_pretrained(
            section.path, dtype=getattr(torch, section.dtype), attn_implementation=section.attention
        )
    except (OSError, ValueError, ImportError, SafetensorError) as error:
        raise ConfigError(_not_loaded(section.path, error)) from error
    if section.freeze_vision:
        freeze_vision(model)
    return model


def random_model(config: Any, section: ModelSection) -> Any:
    """A model of a configuration's shape with random weights, for measuring speed and memory."""
    import torch
    from transformers import AutoModelForImageTextToText

    model = AutoModelForImageTextToText.from_config(
        config, dtype=getattr(torch, section.dtype), attn_implementation=section.attention
    )
    if section.freeze_vision:
        freeze_vision(model)
    return model


def freeze_vision(model: Any) -> None:
    """Take the gradients from the vision encoder and leave them to the projector and the language model."""
    for name, parameter in model.model.visual.named_parameters():
        parameter.requires_grad_(name.startswith(PROJECTOR))


def lora_config(section: LoraSection) -> Any:
    """PEFT's configuration of the adapters."""
    from peft import LoraConfig

    return LoraConfig(
        r=section.rank,
        lora_alpha=section.alpha,
        lora_dropout=section.dropout,
        target_modules=LORA_TARGETS,
        task_type="CAUSAL_LM",
    )


def check_template(processor: Any) -> None:
    """Refuse a chat template that would train something else than what a server asks for. Raises ConfigError.

    It must be valid Jinja, mark the assistant's turns, end of turn included, put the generation prompt before them, and
    render a message the same whatever follows it.
    """
    from jinja2 import TemplateError, TemplateSyntaxError

    try:
        _check_template(processor)
    except TemplateError as error:
        line = f"line {error.lineno}: " if isinstance(error, TemplateSyntaxError) else ""
        raise ConfigError(f"the chat template cannot be rendered: {line}{_first_line(error)}: mend it") from error


def _check_template(processor: Any) -> None:
    from trl.chat_template_utils import has_generation_markers, is_chat_template_stop_token_trained

    if not has_generation_markers(processor.chat_template):
        raise ConfigError("the chat template has no generation marks, so it does not say which tokens to learn")
    turn = "<thinking>a</thinking><answer>{}</answer>"
    said = [("system", "rules"), ("user", "task"), ("assistant", turn), ("tool", "result"), ("assistant", turn)]
    said += [("tool", "more"), ("assistant", turn)]
    messages = [{"role": role, "content": [{"type": "text", "text": text}]} for role, text in said]
    whole = processor.apply_chat_template(messages)
    for n, (role, text) in enumerate(said):
        if not whole.startswith(processor.apply_chat_template(messages[: n + 1])):
            raise ConfigError("the chat template is not append-only: what it writes of a message depends on later ones")
        if role == "assistant":
            prompt = processor.apply_chat_template(messages[:n], add_generation_prompt=True)
            if not (prompt.endswith(GENERATION_PROMPT) and whole.startswith(prompt + text + END_OF_TURN)):
                raise ConfigError("the chat template does not put the generation prompt right before a turn")
    if not is_chat_template_stop_token_trained(processor):
        raise ConfigError(f"the chat template leaves {END_OF_TURN} out of what is learned: a turn would never end")


def parameter_counts(model: Any) -> tuple[int, int]:
    """How many weights train, and how many there are."""
    sizes = [(parameter.numel(), parameter.requires_grad) for parameter in model.parameters()]
    return sum(size for size, trains in sizes if trains), sum(size for size, _ in sizes)


def _check_folder(path: str) -> None:
    """Look at a model folder's files before anything is loaded. Raises ConfigError; a name for the hub passes."""
    from safetensors import SafetensorError, safe_open

    folder = Path(path)
    for weights in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(weights, "np"):
                pass
        except (OSError, SafetensorError) as error:
            cure = "copy the file again from where it came"
            raise ConfigError(f"{weights} is damaged or cut short ({_first_line(error)}): {cure}") from error
    if folder.is_dir() and not any((folder / name).exists() for name in ("tokenizer.json", "vocab.json")):
        raise ConfigError(f"model.path {path} holds no tokenizer.json: copy it from the model that this one came from")


def _check_tokenizer(processor: Any, path: str) -> None:
    """Refuse a tokenizer that knows no words: it would train on nothing. Raises ConfigError."""
    tokenizer = processor.tokenizer
    if len(tokenizer) <= len(tokenizer.added_tokens_decoder):
        raise ConfigError(f"the tokenizer of model.path {path} has no words: copy its tokenizer.json again")


def _not_loaded(path: str, error: Exception) -> str:
    if not Path(path).exists() and not re.fullmatch(r"[\w.-]+/[\w.-]+", path):
        return f"model.path {path} does not exist: name a model folder, or a model of the hub"
    return f"model.path {path} cannot be loaded: {_first_line(error)[:200]}"


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
