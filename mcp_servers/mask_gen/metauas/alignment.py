"""Soft feature alignment (MetaUAS, section 3.3): what the prompt shows where it matches each place of the query."""

from __future__ import annotations

from typing import cast

import torch
from torch import nn


class Alignment(nn.Module):
    """Attention from every query position over all prompt positions, in a space of ``hidden`` channels.

    One 1x1 convolution reduces both; similarities are plain (unscaled) dot products; the values are the prompt's
    features themselves. Edits may move things, and this finds them again.
    """

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.dimensionality_reduction = nn.Conv2d(channels, hidden, 1)

    def forward(self, query: torch.Tensor, prompt: torch.Tensor) -> torch.Tensor:
        """Both (N, C, H, W) -> the prompt's features rearranged to fit the query, (N, C, H, W)."""
        q, k, v = (
            features.flatten(2).transpose(1, 2)
            for features in (self.dimensionality_reduction(query), self.dimensionality_reduction(prompt), prompt)
        )
        aligned = nn.functional.scaled_dot_product_attention(q, k, v, scale=1.0)
        return aligned.transpose(1, 2).reshape(query.shape)


class Fusion(nn.Module):
    """The query's features followed by the aligned prompt's."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.alignment_layer = Alignment(channels, hidden)

    def forward(self, query: torch.Tensor, prompt: torch.Tensor) -> torch.Tensor:
        """Both (N, C, H, W) -> (N, 2 C, H, W)."""
        return torch.cat([query, cast(torch.Tensor, self.alignment_layer(query, prompt))], dim=1)
