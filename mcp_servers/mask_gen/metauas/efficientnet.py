"""EfficientNet-B4 (Tan and Le, ICML 2019) as a feature extractor, with the parameter names of the published checkpoint.

Attribute names are those of the ``efficientnet_pytorch`` package, from which the checkpoint's encoder was saved.
"""

from __future__ import annotations

from typing import NamedTuple, cast

import torch
from torch import nn


class Stage(NamedTuple):
    """A run of blocks: how many, kernel size, stride of the first, expansion, output channels."""

    blocks: int
    kernel: int
    stride: int
    expansion: int
    channels: int


STEM, HEAD = 48, 1792
"""Channels after the first convolution, and after the classifier's."""
STAGES = (
    Stage(2, 3, 1, 1, 24),
    Stage(4, 3, 2, 6, 32),
    Stage(4, 5, 2, 6, 56),
    Stage(6, 3, 2, 6, 112),
    Stage(6, 5, 1, 6, 160),
    Stage(8, 5, 2, 6, 272),
    Stage(2, 3, 1, 6, 448),
)
"""B0's stages with widths times 1.4, rounded to multiples of 8, and depths times 1.8, rounded up."""
TAPS = (6, 10, 22, 32)
"""Number of blocks after which a feature map is given out; the stem's comes before them."""
CHANNELS = (STEM, 32, 56, 160, 448)
"""Channels of the five feature maps, at strides 2, 4, 8, 16 and 32."""
SQUEEZE = 0.25
"""Width of the squeeze-and-excitation bottleneck as a share of the block's input channels."""
EPSILON, MOMENTUM = 1e-3, 0.01
"""Of every batch normalisation."""


class Conv(nn.Conv2d):
    """Convolution with TensorFlow's "same" padding on maps with even sides: the odd pixel goes right and below.

    As in ``efficientnet_pytorch`` 0.6.3, with which MetaUAS was trained; from 0.7 on that package pads the third
    stage's first block otherwise.
    """

    def __init__(
        self, before: int, after: int, kernel: int = 1, stride: int = 1, groups: int = 1, bias: bool = False
    ) -> None:
        super().__init__(before, after, kernel, stride, groups=groups, bias=bias)
        least = (kernel - stride) // 2
        self.same = (least, kernel - stride - least) * 2 if kernel > 1 else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, before, H, W) -> (N, after, H / stride, W / stride)."""
        return super().forward(nn.functional.pad(x, self.same) if self.same else x)


class Block(nn.Module):
    """Inverted residual with squeeze and excitation (MBConv)."""

    def __init__(self, before: int, after: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner, narrow = before * expansion, max(1, int(before * SQUEEZE))
        self.residual = stride == 1 and before == after
        self._expand_conv = Conv(before, inner) if expansion > 1 else None
        self._bn0 = norm(inner) if expansion > 1 else None
        self._depthwise_conv = Conv(inner, inner, kernel, stride, groups=inner)
        self._bn1 = norm(inner)
        self._se_reduce = Conv(inner, narrow, bias=True)
        self._se_expand = Conv(narrow, inner, bias=True)
        self._project_conv = Conv(inner, after)
        self._bn2 = norm(after)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, before, H, W) -> (N, after, H / stride, W / stride)."""
        y = x
        if self._expand_conv is not None and self._bn0 is not None:
            y = nn.functional.silu(self._bn0(self._expand_conv(y)))
        y = nn.functional.silu(self._bn1(self._depthwise_conv(y)))
        gate = self._se_expand(nn.functional.silu(self._se_reduce(nn.functional.adaptive_avg_pool2d(y, 1))))
        y = self._bn2(self._project_conv(torch.sigmoid(gate) * y))
        return cast(torch.Tensor, y + x if self.residual else y)


class EfficientNetB4(nn.Module):
    """(N, 3, H, W), normalised, H and W multiples of 32 -> five feature maps (``CHANNELS``), finest first.

    ``_conv_head`` and ``_bn1`` belonged to the classifier; the checkpoint carries them, features do not need them.
    """

    def __init__(self) -> None:
        super().__init__()
        self._conv_stem = Conv(3, STEM, 3, 2)
        self._bn0 = norm(STEM)
        blocks, before = [], STEM
        for stage in STAGES:
            for index in range(stage.blocks):
                stride = stage.stride if index == 0 else 1
                blocks.append(Block(before, stage.channels, stage.kernel, stride, stage.expansion))
                before = stage.channels
        self._blocks = nn.ModuleList(blocks)
        self._conv_head = Conv(before, HEAD)
        self._bn1 = norm(HEAD)

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        """The feature maps at strides 2, 4, 8, 16 and 32."""
        x = nn.functional.silu(self._bn0(self._conv_stem(x)))
        features = [x]
        for count, block in enumerate(self._blocks, start=1):
            x = block(x)
            if count in TAPS:
                features.append(x)
        return features


def norm(channels: int) -> nn.BatchNorm2d:
    """Batch normalisation with EfficientNet's constants."""
    return nn.BatchNorm2d(channels, eps=EPSILON, momentum=MOMENTUM)
