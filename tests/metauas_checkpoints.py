"""Checkpoints for the MetaUAS tests: random weights in the published layout, and a network taught on a toy pair."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from mcp_servers.mask_gen.metauas.network import MetaUAS

SIDE = 64
SPOT = (slice(20, 44), slice(12, 36))
"""Rows and columns of what was changed in the toy pair."""


def random_network(seed: int = 0) -> MetaUAS:
    """Random weights, and batch normalisation whose statistics are not the initial ones."""
    torch.manual_seed(seed)
    network = MetaUAS()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    return network.eval()


def toy_pair() -> tuple[torch.Tensor, torch.Tensor]:
    """Query and prompt (1, 3, 64, 64): soft colours; in the query a square of them is inverted."""
    generator = torch.Generator().manual_seed(1)
    coarse = torch.rand(1, 3, 8, 8, generator=generator)
    prompt = nn.functional.interpolate(coarse, size=(SIDE, SIDE), mode="bilinear")
    query = prompt.clone()
    query[..., SPOT[0], SPOT[1]] = 1 - query[..., SPOT[0], SPOT[1]].round()
    return query, prompt


def teach(steps: int) -> tuple[MetaUAS, list[float]]:
    """A network trained on the toy pair, and on its prompt alone, where nothing changed; the loss of each step."""
    torch.manual_seed(0)
    network = MetaUAS().train()
    for module in network.decoder.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 0.5
    query, prompt = toy_pair()
    truth = torch.zeros(2, 1, SIDE, SIDE)
    truth[0, 0, SPOT[0], SPOT[1]] = 1
    queries, prompts = torch.cat([query, prompt]), torch.cat([prompt, prompt])
    learned = [values for values in network.parameters() if values.requires_grad]
    optimizer = torch.optim.Adam(learned, lr=3e-3)
    losses = []
    for _ in range(steps):
        loss = nn.functional.binary_cross_entropy_with_logits(network.logits(queries, prompts), truth)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return network.eval(), losses


def saved(network: MetaUAS, path: Path) -> Path:
    torch.save(network.state_dict(), path)
    return path
