"""Weights and strata in the error bars, against sums over tuples of rows and literal deletion."""

import itertools
import math

import pytest
import torch

from lazyrich import Gram
from lazyrich.functional import low_rank_estimate, low_rank_measure
from lazyrich.functional.retained_design import Design, unbiased_squared_norm

pytestmark = pytest.mark.filterwarnings("ignore::lazyrich.RankWarning")


def norm_of(gram):
    rows = gram.retained()
    x, covariance = rows.blocks["features"].double(), gram.block("features", "features", centered=True)
    along = ((x @ covariance) * x).sum(1)
    return float(unbiased_squared_norm(gram, Design.of(rows, gram.strata_rows), x, x.square().sum(1), along))


def by_tuples(x, w):
    """The weighted U-statistic: every sum over distinct rows, divided by that of the weights."""
    y, rows = x - (w / w.sum()) @ x, range(len(x))
    inner = y @ y.T
    total = 0.0
    for size, sign, value in (
        (2, 1, lambda i, j: inner[i, j] ** 2),
        (3, -2, lambda i, j, k: inner[i, j] * inner[j, k]),
        (4, 1, lambda i, j, k, m: inner[i, j] * inner[k, m]),
    ):
        tuples = list(itertools.permutations(rows, size))
        shares = [math.prod(float(w[i]) for i in some) for some in tuples]
        total += sign * sum(s * float(value(*some)) for s, some in zip(shares, tuples, strict=True)) / sum(shares)
    return total


class TestWeights:
    def test_the_norm_is_the_u_statistic(self):
        g = torch.Generator().manual_seed(0)
        x = torch.randn(9, 1, generator=g, dtype=torch.float64)  # one feature: the part that is not summed exactly is exact
        w = torch.ones(9, dtype=torch.float64)
        for weights in (w, w * 3):
            gram = Gram()
            gram.update(x, weights=weights)
            assert norm_of(gram) == pytest.approx(by_tuples(x, w), rel=1e-9)
        gram = Gram()
        gram.update(x)
        assert norm_of(gram) == pytest.approx(by_tuples(x, w), rel=1e-9)

    def test_unequal_weights(self):
        g = torch.Generator().manual_seed(1)
        x, w = torch.randn(10, 2, generator=g, dtype=torch.float64), torch.rand(10, generator=g, dtype=torch.float64) + 0.5
        gram = Gram()
        gram.update(x, weights=w)
        plug_in = float(torch.cov(x.T, correction=0, aweights=w).square().sum())
        expected = by_tuples(x, w)
        assert norm_of(gram) == pytest.approx(expected, abs=0.02 * abs(expected - plug_in))

    @pytest.mark.parametrize("retain", [4000, 300])
    def test_weights_that_depend_on_the_row(self, retain):
        """Importance weights exp(x₁/2): the law that they stand for has its mean moved by ½ along the first axis."""
        scale = torch.linspace(1, 0.2, 16, dtype=torch.float64)
        truth, found, plug_in = float(scale.pow(4).sum()), [], []
        for seed in range(60):
            x = torch.randn(500, 16, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
            w, x = (0.5 * x[:, 0]).exp(), x * scale
            gram = Gram(retain=retain)
            gram.update(x, weights=w)
            found.append(norm_of(gram))
            plug_in.append(float(gram.block("features", "features", centered=True).square().sum()))
        found, plug_in = torch.tensor(found), torch.tensor(plug_in)
        error = float(found.std()) / 60**0.5
        assert abs(float(found.mean()) - truth) < 3 * error
        assert float(plug_in.mean()) - truth > 3.5 * error


def imbalanced(counts, seed, noise=0.15, p=12):
    means = torch.randn(len(counts), p, generator=torch.Generator().manual_seed(99), dtype=torch.float64)
    labels = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    x = means[labels] + noise * torch.randn(len(labels), p, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return x, x @ torch.linalg.pinv(means), labels


def balanced_gram(x, f, labels, classes, **options):
    counts = torch.bincount(labels, minlength=classes).double()
    gram = Gram(strata=classes, **options)
    gram.update(x, f, weights=(1 / counts)[labels], strata=labels)
    return gram


class TestStrata:
    COUNTS = (150, 30, 20)

    @pytest.mark.parametrize("reference", ["projection", "balanced"])
    def test_against_literal_deletion(self, reference):
        """Every row is deleted once, and the others of its class take its weight: the plug-in value, in n evaluations."""
        x, f, labels = imbalanced(self.COUNTS, 0, noise=0.5)
        estimate = low_rank_estimate(balanced_gram(x, f, labels, 3), reference=reference)
        w = (1 / torch.bincount(labels).double())[labels]
        without = []
        for i in range(len(x)):
            left = w.clone()
            left[i] = 0
            among = labels == labels[i]
            left[among] *= w[among].sum() / left[among].sum()
            without.append(low_rank_measure(x, f, weights=left, reference=reference))
        without, variance, bias = torch.stack(without), 0.0, 0.0
        for c, n in enumerate(self.COUNTS):
            of_class = without[labels == c]
            variance += (n - 1) / n * float((of_class - of_class.mean()).square().sum())
            bias += (n - 1) * float(of_class.mean() - estimate.value)
        assert estimate.stderr == pytest.approx(variance**0.5, rel=0.03)
        assert estimate.corrected - estimate.value == pytest.approx(-bias, rel=0.1)

    def test_one_stratum_is_none(self):
        x, f, _ = imbalanced(self.COUNTS, 0)
        gram = Gram(strata=1)
        gram.update(x, f, strata=torch.zeros(len(x), dtype=torch.int64))
        plain, one = low_rank_estimate(x, f), low_rank_estimate(gram)
        assert one.stderr == pytest.approx(plain.stderr, rel=0.02)
        assert one.corrected == pytest.approx(plain.corrected, abs=0.02 * plain.stderr)

    @pytest.mark.parametrize("retain", [1024, 200])
    def test_the_interval_holds_the_truth(self, retain):
        many = imbalanced((40_000,) * 3, 1000)
        truth = float(low_rank_measure(many[0], many[1]))
        counts, inside, ratios = (900, 80, 20), 0, []
        values = []
        for seed in range(60):
            estimate = low_rank_estimate(balanced_gram(*imbalanced(counts, seed), 3, retain=retain))
            low, high = estimate.interval
            inside += low <= truth <= high
            values.append(estimate.corrected)
            ratios.append(estimate.stderr)
        assert inside >= 51
        assert 0.7 < float(torch.tensor(ratios).median() / torch.tensor(values).std()) < 1.5

    def test_too_few_rows_of_a_class(self):
        x, f, labels = imbalanced((60, 30, 1), 0)
        estimate = low_rank_estimate(balanced_gram(x, f, labels, 3))
        assert (estimate.corrected, estimate.stderr, estimate.interval) == (None, None, None)
        assert estimate.note == "no error, because a class has fewer than two rows"


class TestFewRowsDecide:
    def rare(self, seed, large, n=3000, size=30.0):
        g = torch.Generator().manual_seed(seed)
        x = torch.randn(n, 30, generator=g, dtype=torch.float64) * torch.arange(1, 31, dtype=torch.float64) ** -0.5
        x[:large] *= size
        return x, x @ torch.randn(30, 4, generator=torch.Generator().manual_seed(7), dtype=torch.float64)

    def test_one_row(self):
        estimate = low_rank_estimate(*self.rare(0, 1, size=100.0))
        assert estimate.stderr is None
        assert "no error, because one row has" in estimate.note
        assert estimate.effective_rows < 1.3

    def test_many_rows(self):
        estimate = low_rank_estimate(*self.rare(0, 0))
        assert estimate.note is None
        assert estimate.effective_rows > 100

    def test_rare_large_rows_are_seen(self):
        """Thirty of 20,000 rows are 30 times as long: with 1,024 retained rows the error is that of all rows."""
        x, f = self.rare(1, 30, n=20_000)
        part, whole = low_rank_estimate(x, f), low_rank_estimate(x, f, retain=20_000)
        assert part.stderr == pytest.approx(whole.stderr, rel=0.05)
        assert part.corrected == pytest.approx(whole.corrected, abs=0.1 * whole.stderr)

    def test_few_inputs_that_come_again_and_again(self):
        """Four different rows, 5,000 times: the error is that of all rows, as if none were equal."""
        x = torch.tensor([[0.0, 0, 1, 0.5], [0, 1, 0, 0.2], [1, 0, 0, -0.1], [1, 1, 1, 0.4]], dtype=torch.float64)
        x = x[torch.randint(4, (5000,), generator=torch.Generator().manual_seed(0))]
        part, whole = low_rank_estimate(x, x[:, :2]), low_rank_estimate(x, x[:, :2], retain=5000)
        assert part.stderr == pytest.approx(whole.stderr, rel=0.1)
        assert part.corrected == pytest.approx(whole.corrected, abs=whole.stderr)

    def test_an_impossible_correction_is_none(self):
        x = torch.randn(8, 60, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        estimate = low_rank_estimate(x, x[:, :7])
        assert estimate.corrected is None or -3 * estimate.stderr <= estimate.corrected <= 1
