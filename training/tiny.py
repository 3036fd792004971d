"""A tiny real Qwen3-VL, made on the spot: same classes, same files, same tokens as the 4B model, a few million weights.

It has random weights and a byte-level BPE tokenizer trained on the protocol's own words (with phrases that recur as one
token each, see ``recurring.py``), and is saved as an ordinary model folder that ``AutoModelForImageTextToText`` and
``AutoProcessor`` load. Tests and the closed-circle example train it until it speaks the protocol, on the very path that
a large model takes.

    python -m training.tiny DIR [--size small] [--sessions SESSIONS] [--seed 0]
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.chat_template import END_OF_TEXT, END_OF_TURN, chat_template
from agent.protocol import SYSTEM, user_prompt
from agent.session import SessionError, read_session
from agent.task import Task
from training.compat import without_video
from training.handover import write_folder
from training.recurring import recurring_phrases
from training.sessions import find_sessions

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase, Qwen3VLConfig

CONTROL_TOKENS = (
    END_OF_TEXT, "<|im_start|>", END_OF_TURN, "<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>",
    "<|box_end|>", "<|quad_start|>", "<|quad_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>",
    "<|image_pad|>", "<|video_pad|>",
)  # fmt: skip
"""Qwen's tokens that are no text, in its order."""
TEXT_TOKENS = ("<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>", "<think>", "</think>")
"""Qwen's added tokens that are text, and stay when special tokens are left out of a decoded turn."""
PATCH, MERGE, TEMPORAL = 16, 2, 2
"""Pixels a patch, patches a token along each side, frames a patch: Qwen3-VL's own."""


@dataclass(frozen=True, slots=True)
class TinySize:
    """How large the model is. ``max_tokens`` bounds an image's tokens (32 x 32 pixels each); ``phrases`` is the share
    of sessions in which a phrase recurs that becomes one token.
    """

    hidden: int = 128
    layers: int = 4
    heads: int = 4
    feed_forward: int = 384
    vocabulary: int = 2048
    vision_hidden: int = 64
    vision_layers: int = 2
    max_tokens: int = 1280
    phrases: float = 0.3


SIZES = {
    "smallest": TinySize(hidden=64, layers=2, feed_forward=128, vocabulary=1024, vision_hidden=32),
    "small": TinySize(),
}


def make_tiny(
    folder: Path, sessions: Sequence[Sequence[str]] = (), size: TinySize = SIZES["small"], seed: int = 0
) -> Path:
    """Write a model folder with random weights. Raises OSError.

    ``sessions``: the messages of each session that the tokenizer is trained on, beside the protocol's own texts.
    """
    import torch
    from transformers import Qwen2VLImageProcessorPil, Qwen3VLForConditionalGeneration, Qwen3VLProcessor

    without_video()
    images = Qwen2VLImageProcessorPil(
        patch_size=PATCH,
        merge_size=MERGE,
        temporal_patch_size=TEMPORAL,
        image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
        size={"shortest_edge": (PATCH * MERGE) ** 2, "longest_edge": size.max_tokens * (PATCH * MERGE) ** 2},
    )
    tokenizer = train_tokenizer(sessions, size)
    processor = Qwen3VLProcessor(image_processor=images, tokenizer=tokenizer, chat_template=chat_template())
    torch.manual_seed(seed)
    model = Qwen3VLForConditionalGeneration(tiny_config(tokenizer, size))
    write_folder(model, processor, folder)
    return folder


def train_tokenizer(sessions: Sequence[Sequence[str]], size: TinySize) -> PreTrainedTokenizerBase:
    """A byte-level BPE tokenizer with Qwen's splitting rules and added tokens; any text survives encode and decode."""
    from tokenizers import AddedToken
    from transformers import Qwen2TokenizerFast

    texts = dict.fromkeys([*protocol_texts(), *(text for messages in sessions for text in messages)])
    blank = Qwen2TokenizerFast(pad_token=END_OF_TEXT)
    added = len(CONTROL_TOKENS) + len(TEXT_TOKENS)
    tokenizer = blank.train_new_from_iterator(texts, size.vocabulary - added, show_progress=False)
    phrases = recurring_phrases(sessions, tokenizer, size.phrases) if sessions else []
    tokenizer.add_tokens([AddedToken(token, special=True, normalized=False) for token in CONTROL_TOKENS])
    tokenizer.add_tokens([AddedToken(text, special=False, normalized=False) for text in (*TEXT_TOKENS, *phrases)])
    tokenizer.eos_token = END_OF_TURN
    tokenizer.pad_token = END_OF_TEXT
    return tokenizer


def tiny_config(tokenizer: PreTrainedTokenizerBase, size: TinySize) -> Qwen3VLConfig:
    """The configuration of a small Qwen3-VL with this tokenizer's ids."""
    from transformers import Qwen3VLConfig

    head = size.hidden // size.heads
    width, height = head // 8, head // 8
    text = {
        "vocab_size": len(tokenizer),
        "hidden_size": size.hidden,
        "intermediate_size": size.feed_forward,
        "num_hidden_layers": size.layers,
        "num_attention_heads": size.heads,
        "num_key_value_heads": size.heads // 2,
        "head_dim": head,
        "initializer_range": size.hidden**-0.5,  # the default suits models a hundred times as wide
        "max_position_embeddings": 32768,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 10000.0,
            "mrope_section": [head // 2 - width - height, height, width],
            "mrope_interleaved": True,
        },
        "pad_token_id": tokenizer.pad_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }
    vision = {
        "depth": size.vision_layers,
        "hidden_size": size.vision_hidden,
        "intermediate_size": 2 * size.vision_hidden,
        "num_heads": 2,
        "patch_size": PATCH,
        "spatial_merge_size": MERGE,
        "temporal_patch_size": TEMPORAL,
        "out_hidden_size": size.hidden,
        "num_position_embeddings": 256,
        "deepstack_visual_indexes": [0],
    }
    token: Any = tokenizer.convert_tokens_to_ids
    return Qwen3VLConfig(
        text_config=text,
        vision_config=vision,
        image_token_id=token("<|image_pad|>"),
        video_token_id=token("<|video_pad|>"),
        vision_start_token_id=token("<|vision_start|>"),
        vision_end_token_id=token("<|vision_end|>"),
        tie_word_embeddings=True,
    )


def protocol_texts() -> list[str]:
    """The words that every conversation holds: rules, a task, the shape of turns and observations."""
    task = Task("", "item", "defect")
    turns = (
        '<thinking></thinking><tool_call>{"name": "prompt_gen", "arguments": {"image": 1, "item_name": "", '
        '"anomaly_type": ""}}</tool_call>',
        '{"name": "image_gen", "arguments": {"prompt": "Using the provided image, change only", "target_image": 1}}',
        '{"name": "quality_eval", "arguments": {"anomaly_image": 2, "item_name": "", "anomaly_type": ""}}',
        '{"name": "knowledge_retrieval", "arguments": {"item_name": "", "anomaly_type": ""}}',
        '{"name": "mask_gen", "arguments": {"anomaly_image": 2}}',
        '<answer>{"status": "below_threshold", "final_image_index": 2, "mask_generated": true, "synthesis_logic": ""}'
        "</answer>",
        "[Tool Response from quality_eval]",
    )
    return [SYSTEM, user_prompt(task), *turns]


def session_texts(places: Sequence[str | Path]) -> list[list[str]]:
    """The messages of each session. Raises SessionError."""
    folders = find_sessions(places) if places else []
    return [[str(event["content"]) for event in read_session(folder).of_type("message")] for folder in folders]


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m training.tiny", description="Make a tiny real Qwen3-VL.")
    parser.add_argument("folder", type=Path, metavar="DIR", help="folder to write the model to")
    parser.add_argument("--size", choices=sorted(SIZES), default="small", help="how large (default small)")
    parser.add_argument(
        "--sessions", nargs="+", default=[], metavar="SESSIONS", help="train the tokenizer on the text of these too"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the random weights (default 0)")
    options = parser.parse_args(argv)
    if options.folder.exists() and any(options.folder.iterdir()):
        parser.error(f"{options.folder} is not empty: choose another folder")
    try:
        make_tiny(options.folder, session_texts(options.sessions), size=SIZES[options.size], seed=options.seed)
    except SessionError as error:
        parser.error(str(error))
    except OSError as error:
        parser.error(f"{options.folder} cannot be written ({error.strerror}): choose another folder")
    return 0


if __name__ == "__main__":
    sys.exit(main())
