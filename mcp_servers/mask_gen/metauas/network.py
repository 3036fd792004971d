"""The whole network; its ``state_dict`` has exactly the keys and shapes of the published checkpoints."""

from __future__ import annotations

from typing import cast

import torch
from torch import nn

from mcp_servers.mask_gen.metauas.alignment import Fusion
from mcp_servers.mask_gen.metauas.decoder import Decoder
from mcp_servers.mask_gen.metauas.efficientnet import CHANNELS, EfficientNetB4

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of ImageNet's red, green and blue in [0, 1], by which the encoder's input is normalised."""
ALIGNED = 3
"""How many feature maps, the deepest, are aligned and fused; the others pass as the query's alone."""
WIDTHS = (256, 128, 64, 64, 48)
"""Channels of the decoder's blocks, deepest first."""
STEP = 32
"""The sides of what goes in are multiples of this."""


class MetaUAS(nn.Module):
    """Where the query differs from the prompt: one probability per pixel.

    The encoder is frozen: it takes no gradients, and its batch normalisation stays in evaluation mode.
    """

    def __init__(self) -> None:
        super().__init__()
        self.encoder = EfficientNetB4().requires_grad_(False)
        fused = [*CHANNELS[:-ALIGNED], *(2 * channels for channels in CHANNELS[-ALIGNED:])]
        self.decoder = Decoder(fused, WIDTHS)
        self.alignment = nn.ModuleList(Fusion(channels, channels // 2) for channels in CHANNELS[: -ALIGNED - 1 : -1])
        self.mask_head = nn.Conv2d(WIDTHS[-1], 1, 1)
        self.train(self.training)

    def train(self, mode: bool = True) -> MetaUAS:
        """As for every module, but for the encoder."""
        super().train(mode)
        self.encoder.eval()
        return self

    def logits(self, query: torch.Tensor, prompt: torch.Tensor) -> torch.Tensor:
        """Both (N, 3, H, W) RGB in [0, 1] -> (N, 1, H, W). Raises ValueError for sides that are no multiples of 32."""
        if query.shape != prompt.shape or query.shape[-1] % STEP or query.shape[-2] % STEP:
            shapes = f"{tuple(query.shape)} and {tuple(prompt.shape)}"
            raise ValueError(f"query and prompt are {shapes}: resize both to one size, sides multiples of {STEP}")
        with torch.no_grad():
            features, prompted = self.encoder(normalised(query)), self.encoder(normalised(prompt))
        for depth, fusion in enumerate(self.alignment, start=1):
            features[-depth] = fusion(features[-depth], prompted[-depth])
        return cast(torch.Tensor, self.mask_head(self.decoder(features)))

    def forward(self, query: torch.Tensor, prompt: torch.Tensor) -> torch.Tensor:
        """As `logits`, but the probability in [0, 1] that a pixel changed."""
        return torch.sigmoid(self.logits(query, prompt))


def normalised(rgb: torch.Tensor) -> torch.Tensor:
    """(N, 3, H, W) RGB in [0, 1] with ImageNet's mean taken off, divided by its standard deviation."""
    mean, std = (rgb.new_tensor(values)[:, None, None] for values in (MEAN, STD))
    return (rgb - mean) / std
