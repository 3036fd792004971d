"""The yardstick: a small U-Net that learns defects from synthetic pairs only. The one module that needs torch.

The network is DRAEM's segmentation sub-network (Zavrtanik et al., ICCV 2021): six double-convolution blocks down,
five up, skips at every scale; trained with the focal loss alone, as AnomalyDiffusion's localization protocol does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from evaluation.data import Image, Pair, shrink, shrink_mask

GAMMA = 2.0
"""Focusing parameter of the focal loss."""
NORMAL_SHARE = 0.5
"""Probability that a training draw is a normal photo."""


@dataclass(frozen=True, slots=True)
class Preset:
    """How a detector is trained.

    ``side``: photos are resized to side x side px. ``width``: channels of the first block. ``drops``: shares of
    the steps after which the learning rate falls to ``drop`` of itself. ``epoch``: steps of one epoch, which
    matters only where the best epoch is chosen on the test set.
    """

    side: int
    width: int
    steps: int
    batch: int
    rate: float
    drops: tuple[float, ...]
    drop: float
    epoch: int


PRESETS = {
    "tiny": Preset(side=32, width=4, steps=8, batch=4, rate=1e-3, drops=(), drop=1.0, epoch=4),
    "fast": Preset(side=128, width=16, steps=300, batch=8, rate=1e-3, drops=(0.8, 0.9), drop=0.2, epoch=50),
    "paper": Preset(side=256, width=64, steps=12_600, batch=8, rate=1e-4, drops=(0.8, 0.9), drop=0.2, epoch=63),
}
"""``paper``: 200 epochs of 500 draws (63 batches of 8), rate x 0.2 at epochs 160 and 180."""


class Block(nn.Sequential):
    """Two 3x3 convolutions with batch normalisation and ReLU."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__(*_layer(before, after), *_layer(after, after))


class UNet(nn.Module):
    """(N, 3, S, S) in [0, 1] -> (N, 2, S, S) logits of good and defective; S a multiple of 32."""

    def __init__(self, width: int) -> None:
        super().__init__()
        down = [width, 2 * width, 4 * width, 8 * width, 8 * width, 8 * width]
        up = [8 * width, 4 * width, 2 * width, width, width]
        self.down = nn.ModuleList(Block(a, b) for a, b in zip([3, *down[:-1]], down, strict=True))
        self.lift = nn.ModuleList(nn.Sequential(*_layer(a, b)) for a, b in zip([down[-1], *up[:-1]], up, strict=True))
        self.up = nn.ModuleList(Block(a + b, a) for a, b in zip(up, reversed(down[:-1]), strict=True))
        self.out = nn.Conv2d(width, 2, 3, padding=1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, 0.0, 0.02)
            elif isinstance(module, nn.BatchNorm2d):
                nn.init.normal_(module.weight, 1.0, 0.02)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The logits."""
        skips: list[torch.Tensor] = []
        for block in self.down:
            x = block(nn.functional.max_pool2d(x, 2) if skips else x)
            skips.append(x)
        skips.pop()
        for lift, block in zip(self.lift, self.up, strict=True):
            x = lift(nn.functional.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True))
            x = block(torch.cat([x, skips.pop()], dim=1))
        return cast(torch.Tensor, self.out(x))


@dataclass(frozen=True, slots=True)
class Detector:
    """A trained network and how to ask it."""

    network: UNet
    side: int
    device: torch.device

    def predict(self, images: Sequence[Image]) -> NDArray[np.float32]:
        """Anomaly maps (N, side, side) in [0, 1] of photos of any size."""
        self.network.eval()
        maps = []
        with torch.inference_mode():
            for start in range(0, len(images), 16):
                small = np.stack([shrink(image, self.side) for image in images[start : start + 16]])
                maps.append(self.network(_batch(small, self.device)).float().softmax(1)[:, 1].cpu().numpy())
        return np.concatenate(maps)


def train(
    pairs: Sequence[Pair],
    normals: Sequence[Image],
    preset: Preset,
    seed: int,
    *,
    bfloat16: bool = False,
    judge: Callable[[Detector], float] | None = None,
) -> Detector:
    """Train on pairs and normal photos, half and half, every kind of defect equally often; the last state counts.

    The same arguments give the same detector on the same machine. ``bfloat16``: mixed precision, faster where the
    processor has it. ``judge``: keep the epoch that it scores highest instead; with test data in it, that is the
    published protocol's leak, for comparison only.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False
    torch.manual_seed(seed)
    rng = np.random.default_rng([seed, 1])
    good = np.stack([shrink(image, preset.side) for image in normals])
    bad = np.stack([shrink(pair.image, preset.side) for pair in pairs])
    labels = np.stack([shrink_mask(pair.mask, preset.side) for pair in pairs])
    names = np.array([pair.kind for pair in pairs])
    kinds = [np.flatnonzero(names == name) for name in sorted(set(names))]
    network = UNet(preset.width).to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    detector = Detector(network, preset.side, device)
    optimizer = torch.optim.Adam(network.parameters(), preset.rate)
    drops = [round(share * preset.steps) for share in preset.drops]
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, drops, preset.drop)
    best, kept = -np.inf, network.state_dict()
    for step in range(1, preset.steps + 1):
        network.train()
        images = np.empty((preset.batch, preset.side, preset.side, 3), np.uint8)
        truth = np.zeros((preset.batch, preset.side, preset.side), np.int64)
        for slot in range(preset.batch):
            if rng.random() < NORMAL_SHARE:
                images[slot] = good[rng.integers(len(good))]
            else:
                at = rng.choice(kinds[rng.integers(len(kinds))])
                images[slot], truth[slot] = bad[at], labels[at]
        with torch.autocast(device.type, torch.bfloat16, enabled=bfloat16):
            logits = network(_batch(images, device))
        loss = focal_loss(logits.float(), torch.from_numpy(truth).to(device))
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
        if judge and (step % preset.epoch == 0 or step == preset.steps) and (reached := judge(detector)) > best:
            best, kept = reached, {name: value.clone() for name, value in network.state_dict().items()}
    if judge:
        network.load_state_dict(kept)
    return detector


def focal_loss(logits: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """Mean focal loss (gamma 2) of logits (N, 2, H, W) against classes (N, H, W)."""
    log_p = logits.log_softmax(1).gather(1, truth[:, None])
    return (-((1 - log_p.exp()) ** GAMMA) * log_p).mean()


def _layer(before: int, after: int) -> tuple[nn.Module, nn.Module, nn.Module]:
    return nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU(inplace=True)


def _batch(images: NDArray[np.uint8], device: torch.device) -> torch.Tensor:
    """(N, S, S, 3) uint8 to (N, 3, S, S) float32 in [0, 1], channels last in memory."""
    return torch.from_numpy(images).to(device).permute(0, 3, 1, 2).float() / 255
