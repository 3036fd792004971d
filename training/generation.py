"""Sampling turns from a Qwen3-VL, a batch at a time, with the log-probability of every sampled token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, Any

from agent.chat_template import END_OF_TEXT, END_OF_TURN
from training.encoding import Encoded

if TYPE_CHECKING:
    import torch

CLOSING_TAGS = ("</tool_call>", "</answer>")
_TAIL = 16
"""Tokens at the end of a row that are decoded to look for a closing tag: more than any tokenizer needs for one."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How turns are sampled. ``temperature`` 0: the likeliest token; else from the whole distribution (no top-p or
    top-k, so that log-probabilities are those of the policy). ``max_new_tokens`` bounds one turn. ``seed``: two runs
    with the same seed draw the same, whatever is generated side by side.
    """

    temperature: float = 0.0
    max_new_tokens: int = 1024
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Generated:
    """One sampled turn: its ids, the last of which ended it, their log-probabilities (natural logarithm, at the
    sampling temperature), and "stop", or "length" where the turn was cut off.
    """

    ids: list[int]
    logprobs: list[float]
    finish_reason: str


def generate(
    model: Any, processor: Any, prompts: Sequence[Encoded], sampling: Sampling, draws: Sequence[Random] | None = None
) -> list[Generated]:
    """Sample one turn for each prompt, in one batch, padded on the left.

    Control tokens other than those that end a turn cannot be sampled: an image token without an image would break the
    next step. ``draws``: the random numbers of each row (one a token, by inversion of the distribution function), so
    that a row's turn does not depend on its neighbours; None takes them from the sampling's seed.
    """
    import torch

    tokenizer = processor.tokenizer
    ends = end_ids(tokenizer)
    draws = draws or [Random(f"{sampling.seed} {row}") for row in range(len(prompts))]
    watch = _watcher(tokenizer, ends, sampling.temperature, draws)
    inputs = padded(prompts, tokenizer.pad_token_id, processor.image_token_id)
    width = inputs["input_ids"].shape[1]
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            out = model.generate(
                **{name: value.to(device) for name, value in inputs.items()},
                do_sample=False,  # the watcher draws
                temperature=None,
                top_p=None,
                top_k=None,
                max_new_tokens=sampling.max_new_tokens,
                eos_token_id=ends,
                pad_token_id=tokenizer.pad_token_id,
                suppress_tokens=control_ids(tokenizer, keep=ends),
                logits_processor=[watch.see],
                stopping_criteria=[watch.stop],
                use_cache=True,
            )
    finally:
        model.train(was_training)
    rows = out[:, width:].tolist()
    return [_cut(row, watch.logprobs_of(n), watch.ended[n]) for n, row in enumerate(rows)]


def end_ids(tokenizer: Any) -> list[int]:
    """Ids of the tokens that end a turn."""
    return [int(tokenizer.convert_tokens_to_ids(token)) for token in (END_OF_TURN, END_OF_TEXT)]


def control_ids(tokenizer: Any, keep: Sequence[int]) -> list[int]:
    """Ids of the tokens that are no text (images, roles, boxes), but those to keep."""
    special = {int(i) for i, token in tokenizer.added_tokens_decoder.items() if token.special}
    return sorted(special - set(keep))


def padded(prompts: Sequence[Encoded], pad_id: int, image_id: int) -> dict[str, torch.Tensor]:
    """Model inputs of a batch, padded on the left: ids, mask and token types (batch, width), patches and grids."""
    import torch

    width = max(len(prompt.ids) for prompt in prompts)
    ids = torch.full((len(prompts), width), pad_id)
    mask = torch.zeros((len(prompts), width), dtype=torch.long)
    for row, prompt in enumerate(prompts):
        ids[row, width - len(prompt.ids) :] = torch.tensor(prompt.ids)
        mask[row, width - len(prompt.ids) :] = 1
    inputs = {"input_ids": ids, "attention_mask": mask, "mm_token_type_ids": ((ids == image_id) & (mask == 1)).long()}
    patches = [part for prompt in prompts for part in prompt.patches]
    if patches:
        inputs["pixel_values"] = torch.cat(patches)
        inputs["image_grid_thw"] = torch.tensor([grid for prompt in prompts for grid in prompt.grids])
    return inputs


def closes(tokenizer: Any, ids: Sequence[int]) -> bool:
    """Whether ids end with a closing tag."""
    return bool(tokenizer.decode(ids[-_TAIL:]).rstrip().endswith(CLOSING_TAGS))


def cut_turn(tokenizer: Any, ids: list[int], logprobs: list[float]) -> Generated:
    """A turn that was sampled elsewhere, cut where ``generate`` would have ended it."""
    stops = end_ids(tokenizer)
    ends = (n for n in range(1, len(ids) + 1) if ids[n - 1] in stops or closes(tokenizer, ids[max(0, n - _TAIL) : n]))
    return _cut(ids, logprobs, next(ends, None))


def _cut(row: list[int], logprobs: list[float], end: int | None) -> Generated:
    """A row without what stands behind its end."""
    length = len(row) if end is None else end
    return Generated(row[:length], logprobs[:length], "length" if end is None else "stop")


def _watcher(tokenizer: Any, ends: Sequence[int], temperature: float, draws: Sequence[Random]) -> Any:
    """Draws the tokens of a batch, keeps their log-probabilities and stops a row at a closing tag.

    A row that has ended takes no more random numbers: its next turn must not depend on its neighbours' lengths.
    """
    import torch
    from transformers import LogitsProcessor, StoppingCriteria

    class See(LogitsProcessor):
        """Draws the next token and leaves no other choice; it runs after suppression."""

        def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
            watcher.distribution = torch.log_softmax(scores.float() / (temperature or 1.0), dim=-1)
            if temperature == 0:
                return scores
            heights = watcher.distribution.double().exp().cumsum(-1)
            ended = watcher.ended or [None] * len(draws)
            numbers = [[draw.random() if end is None else 0.0] for draw, end in zip(draws, ended, strict=True)]
            levels = torch.tensor(numbers, dtype=torch.double, device=scores.device)
            chosen = torch.searchsorted(heights, levels * heights[:, -1:], right=True).clamp(max=scores.shape[1] - 1)
            return torch.full_like(scores, -torch.inf).scatter(1, chosen, 0.0)

    class Stop(StoppingCriteria):
        """Sees the token that was drawn."""

        def __call__(self, input_ids: torch.Tensor, scores: object, **_: Any) -> torch.Tensor:
            drawn = input_ids[:, -1:]
            watcher.drawn.append(watcher.distribution.gather(1, drawn).squeeze(1).cpu())
            if not watcher.ended:
                watcher.ended = [None] * len(drawn)
            length = len(watcher.drawn)
            for row, tail in enumerate(input_ids[:, -min(_TAIL, length) :].tolist()):
                if watcher.ended[row] is not None:
                    continue
                if tail[-1] in ends or closes(tokenizer, tail):
                    watcher.ended[row] = length
            return torch.tensor([end is not None for end in watcher.ended], device=input_ids.device)

    class Watcher:
        def __init__(self) -> None:
            self.distribution: torch.Tensor = torch.empty(0)
            self.drawn: list[torch.Tensor] = []
            self.ended: list[int | None] = []
            self.see, self.stop = See(), Stop()

        def logprobs_of(self, row: int) -> list[float]:
            return [float(step[row]) for step in self.drawn]

    watcher = Watcher()
    return watcher
