"""The frozen vision encoder runs once an image: its features before the projector are kept and reused.

With the encoder frozen (the paper's setting) its output for an image never changes, while the projector (Qwen3-VL's
mergers) trains. So what goes into the mergers is computed without a graph, kept by image, and only the mergers run
again. A trajectory shows the same photo in every epoch, and a group of rollouts shows it many times a step.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import torch
from torch import nn

Features = tuple[torch.Tensor, ...]
"""One image's inputs of the merger and of each deepstack merger: (patches, hidden) each."""


class FrozenVisionCache:
    """Replaces the forward pass of a Qwen3-VL vision model by one that remembers.

    ``visual``: ``model.model.visual``, whose parameters other than the mergers' do not require gradients.
    ``max_bytes`` bounds what is kept (on the device the features were made on, or on the CPU with ``offload``); least
    recently used images go first. ``hits`` and ``misses`` count images. Raises ValueError for an encoder that trains.
    """

    def __init__(self, visual: nn.Module, max_bytes: int = 8 * 2**30, offload: bool = False) -> None:
        mergers: list[nn.Module] = [visual.merger, *visual.deepstack_merger_list]  # type: ignore[list-item, misc]
        projector = {id(parameter) for merger in mergers for parameter in merger.parameters()}
        if any(p.requires_grad and id(p) not in projector for p in visual.parameters()):
            raise ValueError(
                "the vision encoder trains: freeze all of it but its mergers before its features are cached"
            )
        self.hits = self.misses = 0
        self._visual, self._mergers = visual, mergers
        self._encode = visual.forward
        self._max_bytes, self._offload = max_bytes, offload
        self._kept: OrderedDict[tuple[Any, ...], Features] = OrderedDict()
        self._bytes = 0
        self._weights: dict[tuple[int, torch.device], torch.Tensor] = {}
        visual.forward = self._forward

    def remove(self) -> None:
        """Give the vision model its own forward pass back."""
        self._visual.forward = self._encode
        self._kept.clear()
        self._bytes = 0

    def _forward(self, hidden_states: torch.Tensor, grid_thw: torch.Tensor, **_: Any) -> Any:
        from transformers.models.qwen3_vl.modeling_qwen3_vl import BaseModelOutputWithDeepstackFeatures

        features = self._features(hidden_states, grid_thw)
        joined = [torch.cat(parts) for parts in zip(*features, strict=True)]
        merged = self._mergers[0](joined[0])
        deepstack = [merger(part) for merger, part in zip(self._mergers[1:], joined[1:], strict=True)]
        return BaseModelOutputWithDeepstackFeatures(
            last_hidden_state=joined[0], pooler_output=merged, deepstack_features=deepstack
        )

    def _features(self, pixels: torch.Tensor, grid_thw: torch.Tensor) -> list[Features]:
        """Every image's features in order; those that are not kept are encoded together in one pass."""
        grids = [tuple(row) for row in grid_thw.tolist()]
        pieces = torch.split(pixels, [t * h * w for t, h, w in grids])
        keys = self._keys(pieces, grids)
        fresh = {key: position for position, key in enumerate(keys) if key not in self._kept}
        made: dict[tuple[Any, ...], Features] = {}
        if fresh:
            chosen = list(fresh.values())
            encoded = self._run([pieces[i] for i in chosen], grid_thw[chosen])
            made = dict(zip(fresh, encoded, strict=True))
        self.misses += len(fresh)
        self.hits += len(keys) - len(fresh)
        found = [made[key] if key in made else self._recall(key, pixels.device) for key in keys]
        for key, parts in made.items():
            self._keep(key, parts)
        return found

    @torch.no_grad()
    def _run(self, pieces: list[torch.Tensor], grid_thw: torch.Tensor) -> list[Features]:
        """The encoder's own forward pass; what its mergers are given is what is wanted."""
        seen: dict[int, torch.Tensor] = {}
        hooks = [
            merger.register_forward_pre_hook(lambda _, inputs, at=at: seen.__setitem__(at, inputs[0]))
            for at, merger in enumerate(self._mergers)
        ]
        try:
            self._encode(torch.cat(pieces), grid_thw=grid_thw)
        finally:
            for hook in hooks:
                hook.remove()
        lengths = [len(piece) for piece in pieces]
        split = [torch.split(seen[at], lengths) for at in range(len(self._mergers))]
        return [tuple(part.clone() for part in parts) for parts in zip(*split, strict=True)]

    @torch.no_grad()
    def _keys(self, pieces: Any, grids: list[tuple[int, ...]]) -> list[tuple[Any, ...]]:
        """A key an image: its grid and two random projections of its pixels, in double precision."""
        sums = torch.stack([self._projections(piece) @ piece.double().flatten() for piece in pieces])
        return [(grid, *row) for grid, row in zip(grids, sums.tolist(), strict=True)]

    def _projections(self, piece: torch.Tensor) -> torch.Tensor:
        """(2, elements) fixed random weights for images of this many values."""
        place = (piece.numel(), piece.device)
        if place not in self._weights:
            generator = torch.Generator().manual_seed(piece.numel())
            weights = torch.randn(2, piece.numel(), generator=generator, dtype=torch.float64)
            self._weights[place] = weights.to(piece.device)
        return self._weights[place]

    def _recall(self, key: tuple[Any, ...], device: torch.device) -> Features:
        self._kept.move_to_end(key)
        return tuple(part.to(device, non_blocking=True) for part in self._kept[key])

    def _keep(self, key: tuple[Any, ...], parts: Features) -> None:
        size = sum(part.numel() * part.element_size() for part in parts)
        if size > self._max_bytes:
            return
        self._kept[key] = tuple(part.cpu() for part in parts) if self._offload else parts
        self._bytes += size
        while self._bytes > self._max_bytes:
            _, old = self._kept.popitem(last=False)
            self._bytes -= sum(part.numel() * part.element_size() for part in old)
