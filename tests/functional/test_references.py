"""Which kernel gradient descent in a two-layer linear network ends with, and what the references say of it."""

import pytest
import torch
from torch import nn

from lazyrich import measure

pytestmark = pytest.mark.filterwarnings("ignore::lazyrich.RankWarning")
SAMPLES, INPUTS, WIDTH, OUTPUTS = 200, 12, 40, 4


def trained(values, scale):
    """W V x on whitened inputs, by gradient descent on ½‖W V - M‖² until it fits, M with these singular values."""
    g = torch.Generator().manual_seed(0)
    x = torch.randn(SAMPLES, INPUTS, generator=g, dtype=torch.float64)
    x = torch.linalg.qr(x - x.mean(0)).Q * SAMPLES**0.5
    left, right = (torch.linalg.qr(torch.randn(n, OUTPUTS, generator=g, dtype=torch.float64)).Q for n in (OUTPUTS, INPUTS))
    target = left @ torch.diag(torch.tensor(values, dtype=torch.float64)) @ right.T
    v = scale * torch.randn(WIDTH, INPUTS, generator=g, dtype=torch.float64) / INPUTS**0.5
    w = scale * torch.randn(OUTPUTS, WIDTH, generator=g, dtype=torch.float64) / WIDTH**0.5
    rate = 0.1 / max(max(values), WIDTH / INPUTS * scale**2)
    for _ in range(4000):
        residual = w @ v - target
        w, v = w - rate * residual @ v.T, v - rate * w.T @ residual
    assert (w @ v - target).norm() < 1e-6 * target.norm()
    model = nn.Sequential(nn.Linear(INPUTS, WIDTH, bias=False), nn.Linear(WIDTH, OUTPUTS, bias=False)).double()
    model[0].weight.data, model[1].weight.data = v, w
    return measure(model, x)


ANISOTROPIC = (10.0, 5.0, 2.0, 1.0)


def test_anisotropic_targets_from_small_weights():
    """The exact limit is the balanced factorisation, ΦΦᵀ = (FFᵀ)^{1/2}: the projection sees 1 - Σs/(‖s‖√r)."""
    r = trained(ANISOTROPIC, 1e-3)
    assert r.balanced < 0.02
    assert r.low_rank > 0.1
    s = torch.tensor(ANISOTROPIC)
    assert r.low_rank == pytest.approx(float(1 - s.sum() / (s.norm() * 2)), abs=1e-3)
    assert r.output_alignment == pytest.approx(float(1 - (s**3).sum() / (s.norm() * (s**2).norm())), abs=1e-3)


def test_anisotropic_targets_from_large_weights():
    assert trained(ANISOTROPIC, 10.0).balanced > 0.2


@pytest.mark.parametrize("scale", [1e-3, 10.0])
def test_isotropic_targets(scale):
    r = trained((4.0,) * 4, scale)
    assert abs(r.balanced - r.low_rank) < 0.02
    assert (r.low_rank < 0.001) == (scale < 1)
