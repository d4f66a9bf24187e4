"""A network and data whose checkpoints the tests trace; as a program: traces in the folders that it is given."""

from pathlib import Path

import killed
import torch
from torch import nn

from lazyrich import trace


def network(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 20), nn.Tanh(), nn.Linear(20, 3))


def samples(n=150):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(n, 6, generator=generator), torch.randint(3, (n,), generator=generator)


def traced(folder):
    """Traces the checkpoints of ``folder/c`` into ``folder/out``."""
    torch.set_num_threads(1)
    trace(network(), Path(folder, "c"), samples(), out=Path(folder, "out"), resume=True)


if __name__ == "__main__":
    killed.main(traced)
