"""Features that a random projection brought to eight independent blocks of columns, from n×n kernels of the blocks."""

import math

import numpy as np
import pytest
import torch

from lazyrich import DegenerateError, Gram
from lazyrich.functional.low_rank import sketched_low_rank
from lazyrich.functional.sketch import unprojected_norm

BLOCKS, N = 8, 60
POWERS = {"projection": 1.0, "balanced": 0.5, "outputs": 0.0}


def data():
    g = torch.Generator().manual_seed(0)
    x = torch.randn(N, BLOCKS * 3, generator=g, dtype=torch.float64) * torch.linspace(1, 3, BLOCKS * 3, dtype=torch.float64)
    f = x[:, ::5] @ torch.randn(5, 2, generator=g, dtype=torch.float64)
    return x + 1, f + torch.tensor([0.5, 0.0], dtype=torch.float64)


def kernels():
    """Centred, one for each block."""
    x = data()[0].numpy()
    x = (x - x.mean(0)).reshape(N, BLOCKS, 3)
    return [x[:, b] @ x[:, b].T / N for b in range(BLOCKS)]


def squared_norm(chosen):
    """Of the whole kernel, from the products of different blocks: m blocks stand for all, and of m² pairs m are left out."""
    m = len(chosen)
    products = sum(np.sum(a * b) for i, a in enumerate(chosen) for j, b in enumerate(chosen) if i != j)
    return products * BLOCKS**2 / (m * (m - 1))


def test_norm():
    x, _ = data()
    expected = squared_norm(kernels())
    assert float(unprojected_norm(torch.cov(x.T, correction=0))) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("head_bias", [True, False])
@pytest.mark.parametrize("reference", POWERS)
def test_value_and_jackknife_over_the_blocks(reference, head_bias):
    x, f = data()
    gram = Gram(retain=0, head_bias=head_bias)
    gram.update(x, f)
    if reference == "balanced" and head_bias:
        f = f - f.mean(0)
    u, s, _ = np.linalg.svd(f.numpy() / math.sqrt(N), full_matrices=False)
    u = u - u.mean(0)
    kernel = (u * s ** (2 - 2 * POWERS[reference])) @ u.T

    def value(chosen):
        aligned = sum(np.sum(k * kernel) for k in chosen) * BLOCKS / len(chosen)
        return 1 - aligned / (math.sqrt(squared_norm(chosen)) * np.linalg.norm(kernel))

    every = kernels()
    without = np.array([value(every[:b] + every[b + 1 :]) for b in range(BLOCKS)])
    found, error = sketched_low_rank(gram, reference)
    assert found == pytest.approx(value(every), abs=1e-10)
    assert error == pytest.approx(math.sqrt((BLOCKS - 1) * without.var()), rel=1e-9)


def test_constant_features_and_outputs():
    x, f = data()
    for features, outputs, match in ((x * 0 + 3, f, "features are constant"), (x, f * 0 + 3, "outputs are constant")):
        gram = Gram(retain=0)
        gram.update(features, outputs)
        with pytest.raises(DegenerateError, match=match):
            sketched_low_rank(gram)
    gram = Gram(retain=0)
    gram.update(x, f)
    with pytest.raises(ValueError, match="reference must be one of"):
        sketched_low_rank(gram, "identity")  # pyright: ignore[reportArgumentType]
