import numpy as np
import pytest
import reference
import torch

from lazyrich import DegenerateError, Gram
from lazyrich.functional import laziness_ratio


@pytest.fixture
def arrays():
    """Features of the start, features now, outputs now."""
    g = torch.Generator().manual_seed(0)
    start, change = (torch.randn(120, 9, generator=g, dtype=torch.float64) for _ in range(2))
    return start, start + 0.5 * change, (start + change)[:, :3] @ torch.randn(3, 4, generator=g, dtype=torch.float64)


@pytest.mark.parametrize(("name", "power"), [("projection", 1.0), ("balanced", 0.5), ("outputs", 0.0)])
@pytest.mark.parametrize("weighted", [False, True])
def test_against_explicit_kernels(arrays, name, power, weighted):
    start, now, outputs = arrays
    weights = torch.rand(120, generator=torch.Generator().manual_seed(1), dtype=torch.float64) if weighted else None
    expected = reference.d_lr(now, outputs, weights, power=power) / reference.d_lr(start, outputs, weights, power=power)
    assert float(laziness_ratio(now, start, outputs, weights=weights, reference=name)) == pytest.approx(expected, rel=1e-9)


def test_features_that_are_only_rotated_scaled_and_shifted_did_not_move(arrays):
    start, _, outputs = arrays
    rotation = torch.linalg.qr(torch.randn(9, 9, generator=torch.Generator().manual_seed(2), dtype=torch.float64)).Q
    assert float(laziness_ratio(3 * start @ rotation + 5, start, outputs)) == pytest.approx(1, abs=1e-9)


def test_the_least_kernel_of_the_outputs_is_zero(arrays):
    start, _, outputs = arrays
    outputs = torch.linalg.qr(outputs - outputs.mean(0)).Q[:, :2]
    assert float(laziness_ratio(outputs, start, outputs)) == pytest.approx(0, abs=1e-12)


def test_grams_with_the_present_outputs(arrays):
    start, now, outputs = arrays
    grams = [Gram(), Gram()]
    for gram, features in zip(grams, (now, start), strict=True):
        gram.update(features, outputs)
    assert float(laziness_ratio(*grams)) == pytest.approx(float(laziness_ratio(now, start, outputs)), rel=1e-12)


def test_no_room_is_an_error_with_the_value(arrays):
    *_, outputs = arrays
    start = torch.linalg.qr(outputs - outputs.mean(0)).Q[:, :2]  # the least kernel is there from the start
    extra = torch.cat([start, 0.05 * torch.randn(120, 1, dtype=torch.float64)], 1)
    value = reference.d_lr(extra, start)
    assert 0 < value < 0.05
    with pytest.raises(DegenerateError, match=f"start have D_LR {value:.3f} against the present outputs, under 0.05"):
        laziness_ratio(np.sqrt(2) * extra, extra, start)
