"""Standard errors of the measures other than D_LR: against literal deletion, and against the spread over draws."""

import pytest
import torch

from lazyrich import DataError, DegenerateError, Gram
from lazyrich.functional import (
    effective_rank,
    kernel_alignment,
    neural_collapse,
    participation_ratio,
    standard_error,
    target_alignment,
)
from lazyrich.functional.inputs import one_hot
from lazyrich.gram import FeaturePair, update_together

FUNCTIONS = {
    "participation_ratio": lambda x, y, z, w: participation_ratio(x, weights=w),
    "effective_rank": lambda x, y, z, w: effective_rank(x, weights=w),
    "kernel_alignment": lambda x, y, z, w: float(kernel_alignment(x, z, weights=w)),
    "target_alignment": lambda x, y, z, w: float(target_alignment(x, y, weights=w)),
    "nc1": lambda x, y, z, w: neural_collapse(x, y, weights=w).nc1,
}
TOLERANCE = dict.fromkeys(FUNCTIONS, 1e-6) | {
    "effective_rank": 1e-4,
    "nc1": 0.1,
}  # of NC1, the change of Σ_B is taken to first order


def rows(n, seed=0, p=8, classes=3, apart=2.0):
    """Features (n, p) about class means, labels, and (n, 5) features that are noisy functions of them; float64."""
    g, of_means = torch.Generator().manual_seed(seed), torch.Generator().manual_seed(99)
    means = apart * torch.randn(classes, p, generator=of_means, dtype=torch.float64)
    mixed = torch.randn(p, 5, generator=of_means, dtype=torch.float64)
    y = torch.randint(0, classes, (n,), generator=g)
    x = means[y] + torch.randn(n, p, generator=g, dtype=torch.float64) * torch.linspace(1, 0.1, p, dtype=torch.float64) + 3
    return x, y, x @ mixed + torch.randn(n, 5, generator=g, dtype=torch.float64)


def other(measure, y, z):
    return {"kernel_alignment": z, "target_alignment": y, "nc1": y}.get(measure)


def without_each(measure, x, y, z, w, strata=None):
    """(n,) the measure without each of the rows, the others of whose stratum take its weight."""
    values = []
    for i in range(len(x)):
        left = w.clone()
        left[i] = 0
        if strata is not None:
            among = strata == strata[i]
            left[among] *= w[among].sum() / left[among].sum()
        some = left > 0
        values.append(FUNCTIONS[measure](x[some], y[some], z[some], left[some]))
    return torch.tensor(values, dtype=torch.float64)


class TestAgainstLiteralDeletion:
    @pytest.mark.parametrize("measure", FUNCTIONS)
    @pytest.mark.parametrize("weighed", [False, True])
    def test_of_each_row(self, measure, weighed):
        x, y, z = rows(30)
        w = (
            torch.rand(30, generator=torch.Generator().manual_seed(1), dtype=torch.float64) + 0.2
            if weighed
            else torch.ones(30).double()
        )
        share = w / w.sum()
        influence = (FUNCTIONS[measure](x, y, z, w) - without_each(measure, x, y, z, w)) * (1 - share) / share
        expected = (share.square() / (1 - share) * (influence - share @ influence).square()).sum().sqrt()
        found = standard_error(measure, x, other(measure, y, z), weights=w if weighed else None)
        assert found == pytest.approx(float(expected), rel=TOLERANCE[measure])

    @pytest.mark.parametrize("measure", FUNCTIONS)
    def test_of_strata(self, measure):
        """Classes that count equally: a row's weight goes to its class."""
        x, _, z = rows(60)
        y = torch.repeat_interleave(torch.arange(3), torch.tensor([30, 18, 12]))
        w = (1 / torch.bincount(y).double())[y]
        gram, pair = Gram(strata=3), FeaturePair(strata=3)
        gram.update(x, None, one_hot(y), w, y)
        pair.update(x, z, w, y)
        without, variance = without_each(measure, x, y, z, w, strata=y), 0.0
        for c in range(3):
            of_class = without[y == c]
            variance += (len(of_class) - 1) / len(of_class) * float((of_class - of_class.mean()).square().sum())
        found = standard_error(measure, pair if measure == "kernel_alignment" else gram)
        assert found == pytest.approx(variance**0.5, rel=0.08)

    def test_fewer_samples_than_features(self):
        x, y, z = rows(20, p=30)
        one = torch.ones(20, dtype=torch.float64)
        for measure in ("participation_ratio", "effective_rank", "kernel_alignment", "target_alignment"):
            without = without_each(measure, x, y, z, one)
            expected = (19 / 20 * (without - without.mean()).square().sum()).sqrt()
            assert standard_error(measure, x, other(measure, y, z)) == pytest.approx(float(expected), rel=1e-4)


class TestOverDraws:
    """The claimed error is the seen one: median of 40 over the standard deviation of the values."""

    @pytest.mark.parametrize("draw", ["few rows", "large rows", "importance weights"])
    def test_claimed_over_seen(self, draw):
        n = {"few rows": 30, "large rows": 1500}.get(draw, 200)
        values, errors = {m: [] for m in FUNCTIONS}, {m: [] for m in FUNCTIONS}
        for seed in range(40):
            x, y, z = rows(n, seed, p=16, apart=1.0)
            w, g = None, torch.Generator().manual_seed(1000 + seed)
            if draw == "large rows":  # a hundredth, five times as large
                x = (x - 3) * torch.where(torch.rand(n, 1, generator=g) < 0.01, 5.0, 1.0).double()
            if draw == "importance weights":
                w = (0.3 * (x[:, 0] - 3)).exp()
            gram, pair = Gram(retain=256), FeaturePair(retain=256)
            gram.fill_together(pair)
            blocks = [{"features": x, "targets": one_hot(y, 3)}, {"features_a": x, "features_b": z}]
            update_together([gram, pair], blocks, w)
            plain = {
                "participation_ratio": participation_ratio(gram),
                "effective_rank": effective_rank(gram),
                "kernel_alignment": float(kernel_alignment(pair)),
                "target_alignment": float(target_alignment(gram)),
                "nc1": neural_collapse(gram).nc1,
            }
            for measure, value in plain.items():
                values[measure].append(value)
                errors[measure].append(standard_error(measure, pair if measure == "kernel_alignment" else gram))
        for measure, seen in values.items():
            claimed = float(torch.tensor(errors[measure], dtype=torch.float64).median())
            ratio = claimed / float(torch.tensor(seen, dtype=torch.float64).std())
            assert 0.7 < ratio < 1.5, (measure, ratio)


class TestWhereThereIsNone:
    def test_too_few_samples_or_rows(self):
        x, y, z = rows(40)
        assert standard_error("participation_ratio", x[:7]) is None
        assert standard_error("participation_ratio", x[:8]) is not None
        assert standard_error("nc1", x, y, retain=0) is None
        assert standard_error("kernel_alignment", pair_of(x, z, 0)) is None

    def test_one_row_decides(self):
        x, y, z = rows(40)
        x[0], y[0] = 1e4 * torch.randn(8, generator=torch.Generator().manual_seed(0)).double(), 0
        z[0] = 1e4
        for measure in ("participation_ratio", "effective_rank", "kernel_alignment", "target_alignment"):
            assert standard_error(measure, x, other(measure, y, z)) is None

    def test_a_class_of_one_sample(self):
        x, y, _ = rows(40, classes=3)
        y[y == 2] = 1
        y[0] = 2
        assert standard_error("nc1", x, y) is None
        gram = Gram(strata=3)
        gram.update(x, None, one_hot(y), (1 / torch.bincount(y).double())[y], y)
        assert standard_error("participation_ratio", gram) is None

    def test_errors(self):
        x, _, z = rows(40)
        with pytest.raises(ValueError, match="measure must be one of participation_ratio, effective_rank"):
            standard_error("rankme", x)
        with pytest.raises(DegenerateError, match="features are constant"):
            standard_error("participation_ratio", torch.ones(40, 3))
        with pytest.raises(DegenerateError, match="targets are constant"):
            standard_error("target_alignment", x, torch.ones(40, 1))
        with pytest.raises(DataError, match="one class per sample"):
            standard_error("nc1", x, z)
        with pytest.raises(TypeError, match="a FeaturePair has no nc1"):
            standard_error("nc1", pair_of(x, z))
        for measure in ("nc1", "target_alignment"):
            with pytest.raises(DataError, match="needs targets, and none were passed"):
                standard_error(measure, x)
        with pytest.raises(DataError, match="needs features_b"):
            standard_error("kernel_alignment", x)


def pair_of(x, z, retain=1024):
    pair = FeaturePair(retain=retain)
    pair.update(x, z)
    return pair


def test_unmoved_features_have_no_error_in_s_init():
    x, _, _ = rows(500)
    assert standard_error("kernel_alignment", x, 2 * x + 1) == pytest.approx(0, abs=1e-6)
