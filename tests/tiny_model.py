"""The tiny Qwen3-VL and conversations for tests."""

from __future__ import annotations

import hashlib
import os
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from agent.protocol import ImageRef, Message

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")


@cache
def tiny_folder(size: str = "smallest") -> Path:
    """A model folder with random weights, made once."""
    from training.tiny import SIZES, make_tiny

    return make_tiny(Path(mkdtemp(prefix="tiny-qwen3-vl-")), size=SIZES[size])


@cache
def tiny_processor() -> Any:
    """The processor of ``tiny_folder``, loaded as any model's."""
    from transformers import AutoProcessor

    from training.compat import without_video

    without_video()
    return AutoProcessor.from_pretrained(tiny_folder())


@cache
def tiny_model() -> Any:
    """The model of ``tiny_folder``, with its random weights."""
    from transformers import AutoModelForImageTextToText

    return AutoModelForImageTextToText.from_pretrained(tiny_folder()).eval()


def image_ref(index: int, png: bytes, width: int, height: int) -> ImageRef:
    return ImageRef(index, f"img_{index}", png, hashlib.sha256(png).hexdigest(), width, height)


def ids_of(processor: Any, messages: list[Message], generate: bool = False) -> list[int]:
    """The token ids of a conversation through the processor's own chat template."""
    import io

    from PIL import Image

    from agent.chat_template import message_images, template_messages

    text = processor.apply_chat_template(template_messages(messages), add_generation_prompt=generate)
    images = [Image.open(io.BytesIO(png)) for png in message_images(messages)]
    ids: list[int] = processor(text=[text], images=[images] if images else None)["input_ids"][0]
    return ids
