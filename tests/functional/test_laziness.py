from dataclasses import replace

import numpy as np
import pytest
import reference
import torch

from lazyrich import DegenerateError, Gram
from lazyrich.functional import laziness_ratio, low_rank_estimate
from lazyrich.functional.laziness import laziness_estimate
from lazyrich.gram import update_together


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


class TestEstimate:
    """λ with its error, from features that moved a little."""

    def filled(self, n, seed, moved):
        g = torch.Generator().manual_seed(seed)
        start = torch.randn(n, 20, generator=g, dtype=torch.float64)
        outputs = start @ torch.randn(20, 3, generator=torch.Generator().manual_seed(99), dtype=torch.float64)
        now, then = Gram(), Gram()
        now.fill_together(then)
        features = start + moved * torch.tanh(outputs) @ WIDEN
        update_together([now, then], [{"features": x, "outputs": outputs} for x in (features, start)])
        return low_rank_estimate(now), low_rank_estimate(then)

    def test_unmoved_features_have_no_error(self):
        found = laziness_estimate(*self.filled(500, 0, 0.0))
        assert found.value == pytest.approx(1, abs=1e-12)
        assert found.corrected == pytest.approx(1, abs=1e-9)
        assert found.stderr == pytest.approx(0, abs=1e-9)

    def test_the_interval_holds_the_truth_and_the_error_is_seen(self):
        truth = laziness_estimate(*self.filled(100_000, 1000, 0.3)).value
        found = [laziness_estimate(*self.filled(200, seed, 0.3)) for seed in range(80)]
        inside = sum(one.interval[0] < truth < one.interval[1] for one in found)
        spread = torch.tensor([one.corrected for one in found]).std()
        assert inside >= 68
        assert 0.7 < float(torch.tensor([one.stderr for one in found]).median() / spread) < 1.5

    def test_other_rows_have_no_error(self):
        now, _ = self.filled(300, 0, 0.3)
        _, then = self.filled(301, 1, 0.3)
        found = laziness_estimate(now, then)
        assert found.stderr is None
        assert found.corrected == pytest.approx(now.corrected / then.corrected)

    def test_no_room(self):
        now, _ = self.filled(300, 0, 0.3)
        with pytest.raises(DegenerateError, match=r"D_LR 0.100 .* under 0.3: they leave no room"):
            laziness_estimate(now, replace(now, value=0.1, stderr=0.1))


WIDEN = torch.randn(3, 20, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
