"""D_LR."""

from __future__ import annotations

import math

import pytest
import torch

from .conftest import Implementation
from .designs import DTYPES, OFFSETS, SCALES, TOLERANCE, design, normal, refused, rotation, spectrum


@pytest.mark.parametrize(("p", "r"), [(3, 1), (16, 5), (40, 10), (30, 30)])
def test_isotropic(implementation: Implementation, p: int, r: int) -> None:
    """Isotropic features, r of which are the outputs: 1 - sqrt(r/p)."""
    x = design(64, *range(1, p + 1))
    assert float(implementation["low_rank_measure"](x, x[:, :r])) == pytest.approx(1 - math.sqrt(r / p), abs=1e-9)


@pytest.mark.parametrize("tail", [0.0, 0.3, 1.0, 5.0])
def test_two_blocks(implementation: Implementation, tail: float) -> None:
    """r features of variance 1 in use and p - r of variance t beside them: 1 - sqrt(r/(r + (p - r)t²))."""
    r, p = 5, 25
    x = design(64, *range(1, p + 1)) * torch.tensor([1.0] * r + [tail] * (p - r), dtype=torch.float64).sqrt()
    expected = 1 - math.sqrt(r / (r + (p - r) * tail**2))
    assert float(implementation["low_rank_measure"](x, x[:, :r])) == pytest.approx(expected, abs=1e-9)


def test_zero(implementation: Implementation) -> None:
    """Features that are one-hot outputs, turned and shifted: 0."""
    outputs = torch.nn.functional.one_hot(torch.arange(60) % 6).double()
    assert float(implementation["low_rank_measure"](outputs @ rotation(6) + 7, outputs)) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("mean", [0.5, 2.0, 30.0])
def test_span_before_centring(implementation: Implementation, mean: float) -> None:
    """The span is that of the uncentred outputs; for (g₁ + m, g₂): 1 - (1 + a)/sqrt(2(1 + a²)), a = 1/(1 + m²)."""
    x, a = design(64, 1, 2), 1 / (1 + mean**2)
    value = implementation["low_rank_measure"](x, x + torch.tensor([mean, 0.0], dtype=torch.float64))
    assert float(value) == pytest.approx(1 - (1 + a) / math.sqrt(2 * (1 + a**2)), abs=1e-9)


def test_constant_output(implementation: Implementation) -> None:
    """An output that is constant spans the constant function, which centring removes: 1 - sqrt(4/16)."""
    x = design(64, *range(1, 17))
    outputs = torch.cat([x[:, :4], torch.full((64, 1), 3.0, dtype=torch.float64)], dim=1)
    assert float(implementation["low_rank_measure"](x, outputs)) == pytest.approx(0.5, abs=1e-9)


@pytest.mark.parametrize("classes", [3, 10, 30])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_outputs_that_sum_to_zero(implementation: Implementation, classes: int, dtype: torch.dtype) -> None:
    """C outputs that sum to zero up to rounding span C - 1 directions: 1 - sqrt((C - 1)/p)."""
    x = design(64, *range(1, 41))
    outputs = x[:, :classes] - x[:, :classes].mean(1, keepdim=True)
    value = implementation["low_rank_measure"](x.to(dtype), outputs.to(dtype))
    assert float(value) == pytest.approx(1 - math.sqrt((classes - 1) / 40), abs=TOLERANCE[dtype])


@pytest.mark.parametrize("offset", OFFSETS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_offset(implementation: Implementation, offset: float, dtype: torch.dtype) -> None:
    """A common offset of the features, as ReLU features have, changes nothing: 1 - sqrt(3/12)."""
    x = design(64, *range(1, 13))
    value = implementation["low_rank_measure"]((x @ rotation(12) + offset).to(dtype), x[:, :3].to(dtype))
    assert float(value) == pytest.approx(0.5, abs=max(TOLERANCE[dtype], 1e-9 * offset))


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_scale(implementation: Implementation, scale: float, dtype: torch.dtype) -> None:
    """Very small and very large features and outputs: 1 - sqrt(3/12)."""
    x = (design(64, *range(1, 13)) * scale).to(dtype)
    assert float(implementation["low_rank_measure"](x, x[:, :3])) == pytest.approx(0.5, abs=TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_precision(implementation: Implementation, dtype: torch.dtype) -> None:
    """Double, single and half precision, with numbers that all of them hold exactly: 1 - sqrt(3/12)."""
    x = design(64, *range(1, 13)).to(dtype)
    assert float(implementation["low_rank_measure"](x, x[:, :3])) == pytest.approx(0.5, abs=TOLERANCE[dtype])


def test_rank_deficient(implementation: Implementation) -> None:
    """Features that stand there twice, and outputs that are combinations of others, add nothing: 1 - sqrt(3/12)."""
    x = design(64, *range(1, 13))
    outputs = torch.cat([x[:, :3], x[:, :1] - 2 * x[:, 1:2], x[:, 2:3]], dim=1)
    assert float(implementation["low_rank_measure"](torch.cat([x, x], 1), outputs)) == pytest.approx(0.5, abs=1e-9)


@pytest.mark.parametrize("p", [7, 8, 40])
def test_few_samples(implementation: Implementation, p: int) -> None:
    """n = 8 samples of p ≥ n - 1 features, isotropic in the 7 dimensions they span: 1 - sqrt(2/7)."""
    x = design(8, *range(1, 8))
    features = x @ rotation(p)[:7]
    assert float(implementation["low_rank_measure"](features, x[:, :2])) == pytest.approx(1 - math.sqrt(2 / 7), abs=1e-9)


@pytest.mark.parametrize("seed", range(5))
def test_invariances(implementation: Implementation, seed: int) -> None:
    """Scale, shift, rotation and order of features, an invertible map of the outputs change nothing: as for two blocks."""
    x = spectrum(64, torch.tensor([1.0, 1.0, 0.5, 0.5, 0.5]))
    x, expected = x @ rotation(5).T, 1 - math.sqrt(2 / (2 + 3 * 0.25**2))
    outputs = x[:, :2] @ (rotation(2, seed) + 0.3 * torch.ones(2, 2))
    features = 7 * x @ rotation(5, seed) + normal(5, seed=seed)
    order, columns = normal(64, seed=seed).argsort(), normal(5, seed=seed).argsort()
    value = implementation["low_rank_measure"](features[order][:, columns], outputs[order])
    assert float(value) == pytest.approx(expected, abs=1e-9)


BAD = {
    "constant features": (torch.full((32, 4), 2.5), design(32, 1, 2).float()),
    "zero features": (torch.zeros(32, 4), design(32, 1, 2).float()),
    "constant outputs": (design(32, 1, 2, 3).float(), torch.full((32, 2), 0.1)),
    "NaN": (design(32, 1, 2, 3).float().index_fill(0, torch.tensor([5]), math.nan), design(32, 1, 2).float()),
    "infinity": (design(32, 1, 2, 3).float().index_fill(0, torch.tensor([5]), math.inf), design(32, 1, 2).float()),
    "NaN in the outputs": (design(32, 1, 2).float(), design(32, 1, 2).float().index_fill(0, torch.tensor([5]), math.nan)),
    "one sample": (torch.ones(1, 3), torch.ones(1, 2)),
    "unequal lengths": (design(32, 1, 2).float(), design(16, 1, 2).float()),
}


@pytest.mark.parametrize("case", BAD)
def test_no_answer(implementation: Implementation, case: str) -> None:
    """Dead, NaN or infinite data, one sample, unequal lengths: no number."""
    assert refused(implementation["low_rank_measure"], *BAD[case])


def test_arguments_stay(implementation: Implementation) -> None:
    """Neither tensor is written into, and the same call gives the same bits."""
    x, f = normal(50, 6) + 3, normal(50, 2, seed=1)
    kept = x.clone(), f.clone()
    first, second = (float(implementation["low_rank_measure"](x, f)) for _ in range(2))
    assert first == second
    assert torch.equal(x, kept[0])
    assert torch.equal(f, kept[1])
