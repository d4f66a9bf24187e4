"""Small networks, the same after a step of a random walk, and rows for them."""

import copy

import torch
from torch import nn


def network(seed=0, width=32, outputs=3):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(8, width), nn.Tanh(), nn.Linear(width, outputs))


def moved(model, by=0.3, seed=1):
    twin, g = copy.deepcopy(model), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in twin.parameters():
            p.add_(by * p.std() * torch.randn(p.shape, generator=g))
    return twin


def rows(n, seed=5):
    return torch.randn(n, 8, generator=torch.Generator().manual_seed(seed))
