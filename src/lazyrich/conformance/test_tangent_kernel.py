"""The empirical tangent kernel."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from .conftest import Implementation
from .designs import normal


@pytest.mark.parametrize("outputs", [1, 3])
def test_linear_model(implementation: Implementation, outputs: int) -> None:
    """A linear model with bias: δ_cd (x_i·x_j + 1)."""
    x = normal(5, 4)
    kernel = implementation["tangent_kernel"](nn.Linear(4, outputs).double(), x)
    expected = torch.kron(x @ x.T + 1, torch.eye(outputs, dtype=torch.float64))
    torch.testing.assert_close(kernel, expected, rtol=1e-9, atol=1e-9)


def test_pairs_of_outputs(implementation: Implementation) -> None:
    """f = W V x: (w_c·w_d)(x_i·x_j) + δ_cd (V x_i·V x_j); every pair of outputs has a block of its own."""
    x, v, w = normal(5, 4), normal(6, 4, seed=1), normal(3, 6, seed=2)
    model = nn.Sequential(nn.Linear(4, 6, bias=False), nn.Linear(6, 3, bias=False)).double()
    with torch.no_grad():
        for layer, weight in zip(model, (v, w), strict=True):
            layer.weight.copy_(weight)  # type: ignore[union-attr]
    hidden = x @ v.T
    expected = torch.kron(x @ x.T, w @ w.T) + torch.kron(hidden @ hidden.T, torch.eye(3, dtype=torch.float64))
    torch.testing.assert_close(implementation["tangent_kernel"](model, x), expected, rtol=1e-9, atol=1e-9)


def test_model_stays(implementation: Implementation) -> None:
    """The model comes back in the mode it was in, with no gradients and no hooks."""
    model = nn.Sequential(nn.Linear(4, 6), nn.Dropout(0.5), nn.Linear(6, 2)).train()
    implementation["tangent_kernel"](model, normal(3, 4).float())
    assert all(module.training for module in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
