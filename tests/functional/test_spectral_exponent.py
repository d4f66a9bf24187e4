import numpy as np
import pytest
import reference
import torch

import lazyrich
from lazyrich import DataError, Gram
from lazyrich.functional import alpha_req, spectral_exponent
from lazyrich.functional.spectral_exponent import PowerLaw


def power_law(n, p, alpha, seed=0):
    """Centred features whose covariance has exactly the eigenvalues i^-α."""
    x = torch.randn(n, p, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    basis = torch.linalg.qr(x - x.mean(0)).Q * n**0.5
    return basis * torch.arange(1, p + 1, dtype=torch.float64) ** (-alpha / 2)


@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.0, 3.0])
@pytest.mark.parametrize("fit_range", [None, (1, 60), (5, 30), (11, 50)])
def test_an_exact_power_law(alpha, fit_range):
    """σ_i = i^(-α/2), for α = 2 the σ_i = 1/i."""
    x = power_law(300, 60, alpha) + 10
    kept = x.clone()
    law = alpha_req(x, fit_range=fit_range)
    assert float(law) == pytest.approx(alpha, abs=1e-8)
    assert law.r_squared == pytest.approx(1, abs=1e-9)
    assert (law.first, law.last) == (fit_range or (11, 30))
    assert torch.equal(x, kept)


def test_against_numpy():
    x = torch.randn(200, 40, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * torch.linspace(3, 0.2, 40)
    for first, last in [(1, 20), (3, 40), (10, 14)]:
        law = alpha_req(x, fit_range=(first, last))
        assert law.alpha == pytest.approx(reference.exponent(x.numpy(), first, last), rel=1e-9)
        values = np.linalg.svd(x.numpy() - x.numpy().mean(0), compute_uv=False)[first - 1 : last] ** 2
        i = np.arange(first, last + 1)
        w = 1 / i / (1 / i).sum()
        y = np.log(values)
        line = -law.alpha * np.log(i)
        rest = (y - line) - w @ (y - line)
        spread = y - w @ y
        assert law.r_squared == pytest.approx(1 - w @ rest**2 / (w @ spread**2), rel=1e-9)


def test_a_gram():
    x = power_law(300, 60, 1.5)
    gram = Gram()
    for rows in x.split(7):
        gram.update(rows)
    assert alpha_req(gram).alpha == pytest.approx(1.5, abs=1e-8)


def test_reads_as_text():
    law = PowerLaw(1.25, 3, 40, 0.5)
    assert str(law) == "α = 1.250 over ranks 3 to 40, R² = 0.500"


@pytest.mark.parametrize(("rank", "first", "last"), [(5, 1, 5), (9, 1, 5), (12, 1, 6), (49, 1, 24), (50, 11, 25)])
def test_which_ranks_are_fitted(rank, first, last):
    """All five of five, at least five, else half; the first ten are left out where fifty remain."""
    law = alpha_req(power_law(200, rank, 1.0))
    assert (law.first, law.last) == (first, last)
    assert law.alpha == pytest.approx(1, abs=1e-8)


def test_ranks_under_the_rounding_of_the_products_are_none():
    """Single precision, one direction 10⁴ times as strong as all others, which every feature shares."""
    x = power_law(300, 20, 1.0)
    x[:, 0] *= 1e4
    axes = Gram()
    axes.update(x.float())
    assert alpha_req(axes).last == 10  # products of weak features are not rounded by those of a strong one
    x = x @ torch.linalg.qr(torch.randn(20, 20, generator=torch.Generator().manual_seed(1), dtype=torch.float64)).Q
    single, double = Gram(), Gram()
    single.update(x.float())
    double.update(x)
    with pytest.raises(DataError, match=r"got 1 \(1 to 1\)"):
        alpha_req(single)
    with pytest.raises(DataError, match=r"got 1 \(1 to 1\)"):
        alpha_req(x.float())  # tensors too
    assert alpha_req(double).last == 10


@pytest.mark.parametrize("alpha", [1.0, 3.0, 5.0])
@pytest.mark.parametrize("rotated", [False, True])
def test_tensors_and_a_pass_use_the_same_ranks(alpha, rotated):
    """Float32 features with an exact law: the exponent is that of the law, over the same ranks to a few."""
    x = power_law(1500, 200, alpha)
    if rotated:
        x = x @ torch.linalg.qr(torch.randn(200, 200, generator=torch.Generator().manual_seed(1), dtype=torch.float64)).Q
    x, gram = x.float(), Gram()
    for rows in x.split(333):
        gram.update(rows)
    tensors, streamed = alpha_req(x), alpha_req(gram)
    assert tensors.alpha == pytest.approx(alpha, abs=0.01)
    assert streamed.alpha == pytest.approx(alpha, abs=0.01)
    assert (tensors.first, streamed.last) == (streamed.first, pytest.approx(tensors.last, abs=3))
    assert tensors.last == 100 or (rotated and alpha == 5)


def test_measure_keeps_range_and_quality():
    torch.manual_seed(0)
    model, x = torch.nn.Sequential(torch.nn.Linear(30, 80), torch.nn.ReLU(), torch.nn.Linear(80, 3)), torch.randn(400, 30)
    r, law = lazyrich.measure(model, x), alpha_req(model[:2](x))
    c = r.comparison
    assert (c.alpha_req_first, c.alpha_req_last) == (law.first, law.last)
    assert (c.alpha_req, c.alpha_req_r_squared) == pytest.approx((law.alpha, law.r_squared), abs=1e-5)
    assert f"{law.alpha:.4g} (ranks {law.first} to {law.last}, R² {law.r_squared:.3f})" in r.table()


def test_a_flat_spectrum_is_an_exact_power_law():
    law = spectral_exponent.power_law(torch.ones(20, dtype=torch.float64))
    assert (law.alpha, law.r_squared) == (0, 1)


def test_the_range_stays_above_rounding():
    """Features of rank 12: no eigenvalue of rounding is fitted."""
    law = alpha_req(
        power_law(300, 12, 1.0) @ torch.randn(12, 100, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    )
    assert law.last <= 12


@pytest.mark.parametrize(
    ("x", "fit_range", "error", "match"),
    [
        (power_law(50, 3, 1.0), None, DataError, r"at least 5 ranks, got 3 \(1 to 3\)"),
        (power_law(50, 20, 1.0), (1, 4), DataError, r"at least 5 ranks, got 4 \(1 to 4\)"),
        (power_law(50, 20, 1.0), (1, 40), ValueError, r"fit_range must lie in 1 … 20, .* got \(1, 40\)"),
        (power_law(50, 20, 1.0), (0, 10), ValueError, "fit_range must lie"),
    ],
)
def test_a_fit_that_cannot_be_made_is_no_number(x, fit_range, error, match):
    with pytest.raises(error, match=match):
        alpha_req(x, fit_range=fit_range)


def test_features_whose_variation_is_rounding_have_no_law():
    with pytest.raises(DataError, match="at least 5 ranks, and no eigenvalue is above rounding"):
        spectral_exponent.power_law(torch.zeros(0, dtype=torch.float64))
