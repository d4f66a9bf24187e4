"""λ^{-1/2} as a sum of resolvents, against the power itself."""

import pytest
import torch

from lazyrich.functional.inverse_root import inverse_root


@pytest.mark.parametrize("tolerance", [1e-3, 1e-6, 1e-9])
@pytest.mark.parametrize(("low", "high"), [(1.0, 1.0), (1.0, 1.001), (1e-2, 1.0), (3e-5, 7.0), (1e-14, 1.0), (1e-20, 1e-4)])
def test_everywhere_in_between(low, high, tolerance):
    coefficients, shifts = inverse_root(low, high, tolerance)
    x = torch.logspace(*torch.tensor([low, high], dtype=torch.float64).log10().tolist(), 1001, dtype=torch.float64)
    x = x.clamp(low, high)
    found = (coefficients / (x.unsqueeze(1) + shifts)).sum(1)
    torch.testing.assert_close(found, x**-0.5, rtol=max(tolerance, 1e-8 if low / high < 1e-15 else 0), atol=0)
    assert bool((coefficients > 0).all())
    assert bool((shifts > 0).all())


def test_a_few_points_are_enough():
    assert len(inverse_root(1e-2, 1.0, 1e-9)[0]) < 10
    assert len(inverse_root(1e-14, 1.0, 1e-9)[0]) < 45
