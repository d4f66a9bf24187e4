"""The table of cases on which the measure is held against the slow reference."""

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Case:
    name: str
    features: torch.Tensor
    outputs: torch.Tensor
    weights: torch.Tensor | None = None
    rtol: float | None = None


def _normal(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _network(n, p, c, seed, offset=0.0):
    """Features with a decaying spectrum and outputs that are linear in them, as a network's are."""
    x = _normal(n, p, seed=seed) * torch.arange(1, p + 1, dtype=torch.float64) ** -0.7
    x = x @ torch.linalg.qr(_normal(p, p, seed=seed + 1)).Q
    outputs = x @ _normal(p, c, seed=seed + 2) + _normal(c, seed=seed + 3)
    return x + offset * _normal(p, seed=seed + 4), outputs


def _cases():
    for n, p, c in [(200, 16, 3), (300, 64, 10), (40, 100, 5), (64, 64, 8), (3, 50, 2), (2, 4, 1), (2000, 8, 2), (150, 32, 31)]:
        yield Case(f"n{n}-p{p}-c{c}", *_network(n, p, c, seed=n + p + c))
    yield Case("p=1", *_network(50, 1, 1, seed=1))
    yield Case("c=1", *_network(120, 20, 1, seed=2))
    yield Case("c=1 as a vector", _network(120, 20, 1, seed=2)[0], _network(120, 20, 1, seed=2)[1][:, 0])
    yield Case("c>p", *_network(200, 6, 15, seed=3))
    yield Case("c>n", _normal(12, 20, seed=4), _normal(12, 30, seed=5))
    yield Case("c=100", *_network(500, 128, 100, seed=6))
    x, f = _network(256, 32, 6, seed=7)
    yield Case("duplicated outputs", x, torch.cat([f, f], dim=1))
    yield Case("one output a combination", x, torch.cat([f, (f[:, :1] - 2 * f[:, 1:2])], dim=1))
    yield Case("outputs sum to zero", x, f - f.mean(1, keepdim=True))
    yield Case("outputs sum to one", x, f - f.mean(1, keepdim=True) + 1 / 6)
    yield Case("a constant output", x, torch.cat([f, torch.full((256, 1), 3.0, dtype=torch.float64)], dim=1))
    yield Case("a zero output", x, torch.cat([f, torch.zeros(256, 1, dtype=torch.float64)], dim=1))
    yield Case("centred outputs", x, f - f.mean(0))
    yield Case("outputs with a mean of 30", x, f + 30)
    yield Case("unrelated outputs", x, _normal(256, 6, seed=8))
    yield Case("features with no variance", torch.cat([x, torch.zeros(256, 5, dtype=torch.float64)], dim=1), f)
    yield Case("features with a constant column", torch.cat([x, torch.full((256, 2), 7.0, dtype=torch.float64)], dim=1), f)
    yield Case("duplicated features", torch.cat([x, x], dim=1), f)
    for offset in (1, 10, 100, 1000):
        yield Case(f"offset {offset}", *_network(400, 48, 7, seed=9, offset=offset))
    yield Case("relu features", torch.relu(_normal(500, 40, seed=10)), _normal(500, 3, seed=11).cumsum(0) / 20)
    weights = torch.rand(256, generator=torch.Generator().manual_seed(12), dtype=torch.float64)
    yield Case("weights", x, f, weights)
    yield Case("weights with zeros", x, f, weights * (weights > 0.5))
    yield Case("weights and offset", x + 500, f, weights * 1e6)
    yield Case("one heavy sample", x, f, torch.cat([torch.full((1,), 500.0, dtype=torch.float64), weights[1:]]))
    small = f * torch.tensor([1, 0.3, 0.1, 0.03, 0.01, 0.003], dtype=torch.float64)
    yield Case("unequal outputs", x, small)
    yield Case("unequal outputs, rtol 0.05", x, small, rtol=0.05)
    yield Case("one-hot outputs", x, torch.nn.functional.one_hot(torch.arange(256) % 5).double())
    yield Case("large scale", x * 1e12, f * 1e9)
    yield Case("small scale", x * 1e-12, f * 1e-9)


CASES = list(_cases())
