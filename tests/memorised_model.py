"""A tiny real Qwen3-VL that has learnt one conversation by heart, in the form in which a server with function calling
renders it: what ``transformers serve`` needs to drive an episode in the native dialect."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .tiny_model import tiny_folder

NATIVE_TEMPLATE = """\
{%- macro body(content) -%}
    {%- if content is string -%}{{- content -}}{%- elif content -%}
        {%- for part in content -%}
            {{- part.text if part.type == 'text' else '<|vision_start|><|image_pad|><|vision_end|>' -}}
        {%- endfor -%}
    {%- endif -%}
{%- endmacro -%}
{%- for message in messages -%}
    {{- '<|im_start|>' ~ message.role ~ '\\n' -}}
    {%- if message.role == 'assistant' -%}
        {%- generation -%}
            {{- body(message.content) -}}
            {%- for call in message.tool_calls -%}
                {%- set said = {'name': call.function.name, 'arguments': call.function.arguments} -%}
                {{- '<tool_call>' ~ said | tojson ~ '</tool_call>' -}}
            {%- endfor -%}
            {{- '<|im_end|>' -}}
        {%- endgeneration -%}
    {%- else -%}
        {{- body(message.content) -}}
        {%- if message.role == 'system' -%}
            {{- ' ' ~ (tools | map(attribute='function') | map(attribute='name') | join(' ')) -}}
        {%- endif -%}
        {{- '<|im_end|>' -}}
    {%- endif -%}
    {{- '\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}
"""
"""Calls between tags, as Qwen writes them; of the tools the names only, to keep the conversation short."""
CERTAIN = 0.95
"""Least probability of any token that was learnt."""


def memorise(messages: Sequence[dict[str, Any]], tools: Sequence[dict[str, Any]], folder: Path) -> Path:
    """Train on one conversation (OpenAI's messages, as the server is sent them) until each of its tokens is certain.

    A low mean would not do: one doubtful token in hundreds hardly shows in it, and greedy decoding may take another.
    """
    import torch
    from transformers import AutoModelForImageTextToText, AutoProcessor
    from transformers.cli.serving.utils import BaseHandler, Modality

    from training.compat import without_video

    without_video()
    torch.set_num_threads(1)
    tiny = tiny_folder()
    processor = AutoProcessor.from_pretrained(tiny)
    processor.chat_template = NATIVE_TEMPLATE
    processor.tokenizer.response_template = None  # the server's own one for Qwen reads the calls out of the text
    batch = processor.apply_chat_template(
        BaseHandler.get_processor_inputs_from_messages(list(messages), Modality.VLM),
        tools=list(tools),
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        return_assistant_tokens_mask=True,
    )
    labels = batch["input_ids"].masked_fill(torch.as_tensor(batch.pop("assistant_masks")) == 0, -100)
    taught = labels[:, 1:].flatten() != -100
    model = AutoModelForImageTextToText.from_pretrained(tiny, dtype=torch.float32)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(300):
        logits = model(**batch).logits[:, :-1].flatten(0, 1)
        losses: Any = torch.nn.functional.cross_entropy(logits, labels[:, 1:].flatten(), reduction="none")[taught]
        losses.mean().backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        least = losses.detach().max().neg().exp().item()
        if least > CERTAIN:
            break
    else:
        raise AssertionError(f"the tiny model did not learn the conversation: a token's probability is {least:.3f}")
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    shutil.copy(tiny / "video_preprocessor_config.json", folder)
    return folder
