"""Which kernel gradient descent in a two-layer linear network ends with, and what the references say of it."""

import pytest
import torch
from reference import d_lr
from torch import nn

from lazyrich import measure, measure_arrays
from lazyrich.functional import low_rank_estimate, low_rank_measure

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


def test_figures_of_the_documentation():
    """A mark of 0 does not mean a small D_LR; and a rich linear network with unequal targets."""
    x = torch.linalg.qr(
        torch.cat([torch.ones(400, 1), torch.randn(400, 5, generator=torch.Generator().manual_seed(0))], 1).double()
    ).Q
    x = x[:, 1:] * 400**0.5  # centred and orthonormal
    estimate = low_rank_estimate(x[:, :3] * torch.tensor([10.0, 1.0, 1.0]), x[:, :3])
    assert (estimate.value, estimate.isotropic) == (
        pytest.approx(1 - 102 / (10002 * 3) ** 0.5, abs=1e-9),
        pytest.approx(0, abs=1e-9),
    )
    assert round(estimate.value, 3) == 0.411
    values = torch.linspace(1, 10, 5, dtype=torch.float64)
    assert round(low_rank_measure(x * values.sqrt(), x * values).item(), 4) == 0.1344
    assert low_rank_measure(x * values.sqrt(), x * values, reference="balanced").item() == pytest.approx(0, abs=1e-9)
    assert low_rank_estimate(x[:, :2], x).isotropic is None  # fewer features than output directions


@pytest.mark.parametrize("bias", [True, False])
def test_every_door_passes_the_head_bias(bias):
    """A shift of a head's bias changes no balanced value; without a bias, the constant function is paid for by the features."""
    g = torch.Generator().manual_seed(0)
    x = torch.randn(150, 5, generator=g, dtype=torch.float64)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 12), nn.Tanh(), nn.Linear(12, 3, bias=bias)).double()
    model[0].bias.data += 1.0  # so that the outputs have a mean without a bias, too
    start = nn.Sequential(nn.Linear(5, 12), nn.Tanh(), nn.Linear(12, 3, bias=bias)).double()
    measured = measure(model, x, layers="all", start=start)
    features, outputs = model[:2](x).detach(), model(x).detach()
    expected = d_lr(features, outputs, power=0.5, head_bias=bias)
    assert measured.balanced == pytest.approx(expected, abs=1e-9)
    assert measured.layers["0"].balanced == pytest.approx(d_lr(x, outputs, power=0.5, head_bias=bias), abs=1e-9)
    of_start = d_lr(start[:2](x).detach(), outputs, power=0.5, head_bias=bias)
    assert measured.laziness_balanced == pytest.approx(expected / of_start, abs=1e-8)
    head = {"head_weight": model[2].weight.detach(), "head_bias": model[2].bias.detach() if bias else None}
    assert measure_arrays(features, outputs, **head).balanced == pytest.approx(expected, abs=1e-9)
    assert measure_arrays(features, **head).balanced == pytest.approx(expected, abs=1e-9)
    assert measured.constant_share == pytest.approx(low_rank_estimate(features, outputs).constant_share)
    if bias:
        model[2].bias.data += 5
        assert measure(model, x).balanced == pytest.approx(expected, abs=1e-9)
        assert measure_arrays(features, outputs + 5).balanced == pytest.approx(expected, abs=1e-9)
    else:
        assert abs(expected - d_lr(features, outputs, power=0.5)) > 0.01
