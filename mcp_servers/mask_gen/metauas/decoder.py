"""The U-Net decoder with scSE attention (Roy et al., MICCAI 2018) that turns fused features into a full-size map.

Parameter names are those of ``segmentation_models_pytorch`` 0.2; as in the fork of it that MetaUAS was trained with,
the last block, which has no skip connection, has no attention.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import nn

REDUCTION = 16
"""Of the channel attention's bottleneck."""


class ScSE(nn.Module):
    """Concurrent spatial and channel squeeze and excitation: x cSE(x) + x sSE(x)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        narrow = channels // REDUCTION
        self.cSE = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(channels, narrow, 1),
            nn.ReLU(),
            nn.Conv2d(narrow, channels, 1),
            nn.Sigmoid(),
        )
        self.sSE = nn.Sequential(nn.Conv2d(channels, 1, 1), nn.Sigmoid())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) -> (N, C, H, W)."""
        return cast(torch.Tensor, x * self.cSE(x) + x * self.sSE(x))


class Attention(nn.Module):
    """scSE, or nothing; a level of its own because the checkpoint's names have one."""

    def __init__(self, channels: int, used: bool) -> None:
        super().__init__()
        self.attention = ScSE(channels) if used else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) -> (N, C, H, W)."""
        return cast(torch.Tensor, self.attention(x))


class Block(nn.Module):
    """Twice the size by nearest neighbour, the skip's features appended, two convolutions, attention on both sides."""

    def __init__(self, before: int, skip: int, after: int) -> None:
        super().__init__()
        self.conv1 = layer(before + skip, after)
        self.attention1 = Attention(before + skip, skip > 0)
        self.conv2 = layer(after, after)
        self.attention2 = Attention(after, skip > 0)

    def forward(self, x: torch.Tensor, skip: torch.Tensor | None) -> torch.Tensor:
        """(N, before, H, W) and (N, skip, 2 H, 2 W) -> (N, after, 2 H, 2 W)."""
        x = nn.functional.interpolate(x, scale_factor=2, mode="nearest")
        if skip is not None:
            x = self.attention1(torch.cat([x, skip], dim=1))
        return cast(torch.Tensor, self.attention2(self.conv2(self.conv1(x))))


class Decoder(nn.Module):
    """One block per feature map, from the deepest up.

    ``features``: channels of the maps at strides 2, 4, ..., as they come in; ``widths``: of the blocks' outputs,
    deepest first.
    """

    def __init__(self, features: Sequence[int], widths: Sequence[int]) -> None:
        super().__init__()
        deepest, *skips = reversed(features)
        befores = [deepest, *widths[:-1]]
        self.blocks = nn.ModuleList(
            Block(before, skip, after) for before, skip, after in zip(befores, [*skips, 0], widths, strict=True)
        )

    def forward(self, features: Sequence[torch.Tensor]) -> torch.Tensor:
        """Feature maps, finest first -> (N, widths[-1], H, W) at twice the finest map's size."""
        x, *skips = reversed(features)
        for block, skip in zip(self.blocks, [*skips, None], strict=True):
            x = block(x, skip)
        return x


def layer(before: int, after: int) -> nn.Sequential:
    """3x3 convolution, batch normalisation, ReLU."""
    return nn.Sequential(nn.Conv2d(before, after, 3, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU())
