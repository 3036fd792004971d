"""The chat template that turns a conversation into a model's tokens: in SFT, in GRPO, in the server, in the agent.

The template itself is ``chat_template.jinja``. It is append-only, where Qwen's own one drops earlier thoughts; a policy
that was trained with it must be served with it, which is why every trained folder carries it and its hash is kept.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from agent.protocol import Message

TEMPLATE_FILE = Path(__file__).with_name("chat_template.jinja")
GENERATION_PROMPT = "<|im_start|>assistant\n"
"""What stands before every turn that the model writes."""
END_OF_TURN = "<|im_end|>"
"""The token that ends a turn; the model writes it, and it carries loss."""
END_OF_TEXT = "<|endoftext|>"
"""Qwen's other token that ends generation; it also pads."""


def chat_template() -> str:
    """The template's Jinja source."""
    return TEMPLATE_FILE.read_text(encoding="utf-8")


def template_hash() -> str:
    """Fingerprint (SHA-256) of the template."""
    return hashlib.sha256(TEMPLATE_FILE.read_bytes()).hexdigest()


def template_messages(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """A conversation as the template takes it: a message's text first, then one image part per image.

    The image parts are placeholders without pixels, in the order of ``message_images``.
    """
    return [
        {
            "role": message.role,
            "content": [{"type": "text", "text": message.content}, *({"type": "image"} for _ in message.images)],
        }
        for message in messages
    ]


def message_images(messages: Sequence[Message]) -> list[bytes]:
    """The PNG bytes of a conversation's images, in the order in which the template names them."""
    return [image.png for message in messages for image in message.images]
