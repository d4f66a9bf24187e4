"""Effective ranks: of the centred covariance (entropy rank, participation ratio) and of the raw matrix (stable rank, RankMe)."""

from __future__ import annotations

import math

import pytest
import torch

from .conftest import Implementation
from .designs import DTYPES, OFFSETS, SCALES, TOLERANCE, design, normal, refused, rotation

CENTRED, RAW = ("effective_rank", "participation_ratio"), ("stable_rank", "rankme")
every = pytest.mark.parametrize("name", [*CENTRED, *RAW])


def entropy_rank(*shares: float) -> float:
    """exp(-Σ p log p)."""
    return math.exp(-sum(p * math.log(p) for p in shares))


@every
@pytest.mark.parametrize("k", [1, 5, 31])
def test_equal_directions(implementation: Implementation, name: str, k: int) -> None:
    """k equally strong, uncorrelated, centred features: k."""
    assert float(implementation[name](design(64, *range(1, k + 1)))) == pytest.approx(k, rel=1e-5)


# strengths 3 and 1: variances 9 and 1, singular values 3 and 1
UNEQUAL = {
    "effective_rank": entropy_rank(0.9, 0.1),
    "participation_ratio": 100 / 82,
    "stable_rank": 10 / 9,
    "rankme": entropy_rank(0.75, 0.25),
}


@every
def test_unequal_directions(implementation: Implementation, name: str) -> None:
    """Strengths 3 and 1: entropy of (0.9, 0.1), 100/82, 10/9; RankMe takes singular values, entropy of (0.75, 0.25)."""
    x = design(16, 1, 2) * torch.tensor([3.0, 1.0], dtype=torch.float64)
    assert float(implementation[name](x)) == pytest.approx(UNEQUAL[name], rel=1e-5)


@every
def test_constant_feature(implementation: Implementation, name: str) -> None:
    """A feature that is constant beside three that vary: 3 where the definition centres, 4 where it does not."""
    found = float(implementation[name](design(16, 0, 1, 2, 3)))
    assert found == pytest.approx(3 if name in CENTRED else 4, rel=1e-5)


@pytest.mark.parametrize("name", CENTRED)
@pytest.mark.parametrize("offset", OFFSETS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_offset(implementation: Implementation, name: str, offset: float, dtype: torch.dtype) -> None:
    """A common offset does not change the centred ranks: 5."""
    x = (design(64, *range(1, 6)) @ rotation(5) + offset).to(dtype)
    assert float(implementation[name](x)) == pytest.approx(5, rel=1e-4)


@every
@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_scale(implementation: Implementation, name: str, scale: float, dtype: torch.dtype) -> None:
    """Very small and very large features: 5."""
    x = (design(64, *range(1, 6)) * scale).to(dtype)
    assert float(implementation[name](x)) == pytest.approx(5, rel=1e-4)


@every
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_precision(implementation: Implementation, name: str, dtype: torch.dtype) -> None:
    """Double, single and half precision, with numbers that all of them hold exactly: 5."""
    found = float(implementation[name](design(64, *range(1, 6)).to(dtype)))
    assert found == pytest.approx(5, rel=max(TOLERANCE[dtype], 1e-5))


@every
@pytest.mark.parametrize(("n", "p"), [(64, 64), (8, 40), (64, 10)])
def test_rank_deficient(implementation: Implementation, name: str, n: int, p: int) -> None:
    """Five equally strong directions in p features, also with fewer samples than features: 5."""
    found = float(implementation[name](design(n, *range(1, 6)) @ rotation(p)[:5]))
    assert found == pytest.approx(5, rel=1e-3)


@every
@pytest.mark.parametrize("seed", range(3))
def test_invariances(implementation: Implementation, name: str, seed: int) -> None:
    """Scale, rotation and order change nothing: the value of the features as they are."""
    x = normal(16, 4) * torch.tensor([3.0, 1.0, 1.0, 0.5], dtype=torch.float64)
    moved = (7 * x @ rotation(4, seed))[normal(16, seed=seed).argsort()]
    assert float(implementation[name](moved)) == pytest.approx(float(implementation[name](x)), rel=1e-5)


BAD = {
    "zero": torch.zeros(16, 3),
    "NaN": design(16, 1, 2).float().index_fill(0, torch.tensor([5]), math.nan),
    "infinity": design(16, 1, 2).float().index_fill(0, torch.tensor([5]), math.inf),
    "constant": torch.full((16, 3), 2.5),
    "one sample": torch.ones(1, 3),
}


@every
@pytest.mark.parametrize("case", BAD)
def test_no_answer(implementation: Implementation, name: str, case: str) -> None:
    """Zero, NaN or infinite data; for the centred ranks constant data and one sample too: no number."""
    if name in RAW and case in ("constant", "one sample"):
        pytest.skip("a constant feature has a raw rank of 1")
    assert refused(implementation[name], BAD[case])


@every
def test_arguments_stay(implementation: Implementation, name: str) -> None:
    """The tensor is not written into, and the same call gives the same bits."""
    x = normal(30, 6) + 3
    kept = x.clone()
    first, second = (float(implementation[name](x)) for _ in range(2))
    assert first == second
    assert torch.equal(x, kept)
