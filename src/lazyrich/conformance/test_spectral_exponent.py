"""The spectral exponent of α-ReQ."""

from __future__ import annotations

import math

import pytest
import torch

from .conftest import Implementation
from .designs import OFFSETS, SCALES, normal, refused, rotation, spectrum


def power_law(alpha: float, p: int = 60) -> torch.Tensor:
    """Centred features whose covariance has exactly the eigenvalues i^-α."""
    return spectrum(300, torch.arange(1, p + 1, dtype=torch.float64) ** (-alpha / 2))


@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.0, 3.0])
@pytest.mark.parametrize("fit_range", [(1, 60), (5, 30), (11, 50)], ids=str)
def test_exact_power_law(implementation: Implementation, alpha: float, fit_range: tuple[int, int]) -> None:
    """Eigenvalues i^-α, over the ranks that are asked for: α."""
    assert float(implementation["alpha_req"](power_law(alpha), fit_range=fit_range)) == pytest.approx(alpha, abs=1e-6)


@pytest.mark.parametrize("alpha", [1.0, 2.0])
def test_default_range(implementation: Implementation, alpha: float) -> None:
    """The same without a range, on 60 features and 300 samples."""
    assert float(implementation["alpha_req"](power_law(alpha))) == pytest.approx(alpha, abs=1e-6)


@pytest.mark.parametrize("rank", [12, 40])
def test_ranks_of_rounding(implementation: Implementation, rank: int) -> None:
    """Features of low rank in 100 dimensions: eigenvalues that are rounding are not fitted; 1, or no number."""
    x = power_law(1.0, rank) @ rotation(100)[:rank]
    alpha_req = implementation["alpha_req"]
    try:
        found = float(alpha_req(x))
    except Exception:
        assert refused(alpha_req, x)
    else:
        assert math.isnan(found) or found == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("offset", OFFSETS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_offset(implementation: Implementation, offset: float, dtype: torch.dtype) -> None:
    """A common offset changes nothing: 1."""
    x = (power_law(1.0) + offset).to(dtype)
    assert float(implementation["alpha_req"](x, fit_range=(5, 30))) == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_scale(implementation: Implementation, scale: float, dtype: torch.dtype) -> None:
    """Very small and very large features: 1."""
    x = (power_law(1.0) * scale).to(dtype)
    assert float(implementation["alpha_req"](x, fit_range=(5, 30))) == pytest.approx(1, abs=1e-3)


BAD = {
    "constant": torch.full((300, 60), 2.5),
    "NaN": normal(300, 60).index_fill(0, torch.tensor([5]), math.nan),
    "infinity": normal(300, 60).index_fill(0, torch.tensor([5]), math.inf),
}


@pytest.mark.parametrize("case", BAD)
def test_no_answer(implementation: Implementation, case: str) -> None:
    """Constant, NaN or infinite data: no number."""
    assert refused(implementation["alpha_req"], BAD[case], fit_range=(5, 30))


def test_arguments_stay(implementation: Implementation) -> None:
    """The tensor is not written into, and the same call gives the same bits."""
    x = normal(300, 60)
    kept = x.clone()
    first, second = (float(implementation["alpha_req"](x, fit_range=(5, 30))) for _ in range(2))
    assert first == second
    assert torch.equal(x, kept)
