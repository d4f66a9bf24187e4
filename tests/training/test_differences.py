"""Differences between two steps of a series, with paired errors: against delete-one by hand, and over repeated draws."""

import copy
import math

import numpy as np
import pytest
import reference
import torch
from moved import moved, network, rows

import lazyrich
from lazyrich import DataError, Gram, Monitor, Series
from lazyrich.functional import low_rank_estimate
from lazyrich.functional.influence import Influence
from lazyrich.gram.retained_rows import number_keys
from lazyrich.results.comparison import difference_of
from lazyrich.results.series import Evaluation, SeriesFolder

pytestmark = pytest.mark.filterwarnings("ignore::lazyrich.RankWarning")
MEASURES = ("low_rank", "balanced", "laziness")


def monitored(x, later, steps=(1, 2), **options):
    """A series in which the start is at step 0 and each network of ``later`` at its step."""
    model = copy.deepcopy(network()).to(x.dtype)
    monitor = Monitor(model, x, every=1, num_samples=len(x), **options)
    for step, other in zip(steps, later, strict=False):
        model.load_state_dict(other.state_dict())
        monitor.step(step)
    return monitor.series


def two():
    early = moved(network())
    return early, moved(early, 0.1, seed=2)


@pytest.mark.parametrize("preset", ["light", "standard"])
def test_the_error_is_that_of_the_difference_without_each_row(preset):
    """Delete-one by hand, for 80 rows: both values without each row, and the spread of their differences."""
    x = rows(80).double()
    start, (a, b) = network().double(), (m.double() for m in two())
    series = monitored(x, (a, b), preset=preset)
    with torch.no_grad():
        features, outputs = [m[:2](x) for m in (start, a, b)], [m(x) for m in (start, a, b)]

    def value(measure, k, keep):
        power = 0.5 if measure == "balanced" else 1.0
        d = reference.d_lr(features[k][keep], outputs[k][keep], power=power, head_bias=True)
        return d / reference.d_lr(features[0][keep], outputs[k][keep]) if measure == "laziness" else d

    for measure in MEASURES:
        found, keeps = series.difference(1, 2, measure), [torch.arange(80) != i for i in range(80)]
        spread = np.array([value(measure, 1, keep) - value(measure, 2, keep) for keep in keeps])
        assert found.stderr == pytest.approx(math.sqrt(79) * spread.std(), rel=0.1), measure
        assert found.value == pytest.approx(series[f"{measure}_corrected"][1] - series[f"{measure}_corrected"][2], abs=1e-12)
        assert found.note is None


def test_the_error_is_seen():
    """The spread of the difference over 20 probe sets, and how often the interval holds the difference over very many rows."""
    later = two()
    found = [monitored(rows(300, seed), later) for seed in range(20)]
    truth = monitored(rows(6000, 99), later)
    for measure in MEASURES:
        differences = [series.difference(1, 2, measure) for series in found]
        errors = [d.stderr for d in differences]
        assert 0.7 < np.median(errors) / np.std([d.value for d in differences]) < 1.5, measure
        exact = truth.difference(1, 2, measure).value
        assert sum(d.interval[0] < exact < d.interval[1] for d in differences) >= 17, measure
        separate = np.median([np.hypot(*series[f"{measure}_stderr"][1:]) for series in found])
        assert np.median(errors) < 0.7 * separate, measure


class TestRetained:
    """3,000 rows, of which few are retained: two times, with other features and other sizes, on the same numbers."""

    def estimates(self, retain, first=1, strata=None):
        g = torch.Generator().manual_seed(0)
        x = torch.randn(3000, 12, generator=g, dtype=torch.float64) * (1 + 3 * (torch.rand(3000, 1, generator=g) < 0.1))
        outputs = x @ torch.randn(12, 3, generator=g, dtype=torch.float64)
        change = torch.randn(12, 12, generator=g, dtype=torch.float64) / 12**0.5
        found = []
        for now in (x + torch.tanh(x @ change), x + 0.8 * torch.tanh(x @ change)):
            gram = Gram(retain=retain, strata=0 if strata is None else 3)
            gram.update(now, outputs, numbers=torch.arange(first, first + 3000), strata=strata)
            found.append(low_rank_estimate(gram).influence)
        return found

    @pytest.mark.parametrize("strata", [None, torch.arange(3000) ** 2 % 7 % 3])
    def test_the_common_rows_estimate_the_variance_without_bias(self, strata):
        exact = self.estimates(3000, strata=strata)
        exact = exact[0].less(exact[1]).variance
        found, common = [], []
        for draw in range(20):
            a, b = self.estimates(300, 1 + 3000 * draw, strata)
            less = a.less(b)
            assert float(less.stands_for.sum()) == pytest.approx(3000)
            found.append(less.variance / exact)
            common.append(len(less.moves))
        assert min(common) > 200
        assert max(common) < 300  # some rows are in one of the two only
        assert abs(np.mean(found) - 1) < 4 * np.std(found) / math.sqrt(20)
        assert np.std(found) < 0.35

    def test_which_rows_are_retained_follows_from_their_numbers(self):
        (a, _), (b, _) = (self.estimates(300, first) for first in (1, 9001))
        assert set(a.keys.tolist()) < set(number_keys(torch.arange(1, 3001)).tolist())
        assert set(b.keys.tolist()) < set(number_keys(torch.arange(9001, 12001)).tolist())
        assert a.less(b) is None  # the rows are others

    def test_other_numbers_of_samples_are_other_rows(self):
        one = Influence(torch.ones(40), torch.ones(40), torch.arange(40), 40.0)
        assert one.less(Influence(torch.ones(40), torch.ones(40), torch.arange(40), 41.0)) is None
        assert one.less(Influence(torch.ones(40), torch.ones(40), torch.arange(11, 51), 40.0)) is None  # 29 common rows
        assert len(one.less(Influence(torch.ones(40), torch.ones(40), torch.arange(10, 50), 40.0)).moves) == 30


def test_two_independent_measurements():
    """Moves of 1/n for n rows have the variance 1/n; of independent rows the variances add up."""
    parts = [
        ({"low_rank": 0.5, "low_rank_corrected": value}, {"low_rank": Influence(torch.full((n,), 1 / n), torch.ones(n), keys, n)})
        for value, n, keys in ((0.6, 100, torch.arange(100)), (0.2, 300, torch.arange(300, 600)))
    ]
    found = difference_of("low_rank", *parts)
    assert (found.value, found.stderr) == pytest.approx((0.4, math.sqrt(1 / 100 + 1 / 300)))
    assert "not of the same rows" in str(found)
    assert difference_of("low_rank", *reversed(parts)).interval == pytest.approx((-found.interval[1], -found.interval[0]))


def test_training_batches_are_independent():
    model = network()
    monitor = Monitor(model, every=2, num_samples=200)
    for k in range(4):
        monitor.step(batch=rows(100, seed=k))
    series = monitor.series
    found = series.difference(2, 4)
    assert "not of the same rows" in found.note
    assert found.stderr == pytest.approx(np.hypot(*series["low_rank_stderr"]), rel=0.15)


class TestSaved:
    def test_a_series_that_was_resumed_has_the_same(self, tmp_path):
        """The second monitor knows nothing of the first but its folder; the network went on from the same weights."""
        x, later, whole = rows(1500), two(), monitored(rows(1500), two())
        monitored(x, later[:1], out=tmp_path)
        model = copy.deepcopy(later[1])
        monitor = Monitor(model, x, every=1, num_samples=1500, out=tmp_path, resume=True)
        monitor.step(2)
        for series in (monitor.series, SeriesFolder(tmp_path).read()):
            for measure in MEASURES:
                for steps in ((0, 1), (2, 0), (1, 2)):
                    assert series.difference(*steps, measure) == whole.difference(*steps, measure)
        stored = sum(path.stat().st_size for path in (tmp_path / "influences").iterdir())
        assert stored < 3 * 32_000  # 1,024 rows, three measures, three evaluations

    def test_another_probe_set(self, tmp_path):
        monitored(rows(300), two()[:1], out=tmp_path)
        monitor = Monitor(two()[1], rows(300, seed=6), every=1, num_samples=300, out=tmp_path, resume=True)
        monitor.step(2)
        found = monitor.series.difference(1, 2)
        assert "not of the same rows" in found.note
        assert found.stderr == pytest.approx(np.hypot(*monitor.series["low_rank_stderr"][1:]), rel=0.15)

    def test_what_was_dropped_leaves_nothing(self, tmp_path):
        """Training was resumed before step 1, where the network is now dead: the old file must not stand for the new step."""
        influence = Influence(torch.ones(9), torch.ones(9), torch.arange(9), 9.0)
        folder = SeriesFolder(tmp_path)
        folder.add(Evaluation(1, {"low_rank": 0.5}, {"quality": np.ones(2)}, None, {"low_rank": influence}))
        assert folder.read().influences(0)["low_rank"].samples == 9
        folder.rewind(0)
        folder.add(Evaluation(1, {"loss": 2.0}, note="features are constant"))
        assert (folder.read().influences(0), folder.read().curves(0)) == ({}, {})

    def test_damage_is_named(self, tmp_path):
        monitored(rows(100), two(), out=tmp_path)
        path = tmp_path / "influences/step-00000001.npz"
        path.write_bytes(path.read_bytes()[:-9])
        series = SeriesFolder(tmp_path).read()
        assert series.difference(0, 2).stderr > 0
        with pytest.raises(DataError, match=r"step-00000001\.npz is damaged .*: delete it to continue without these influences"):
            series.difference(0, 1)
        path.unlink()
        assert series.difference(0, 1).stderr is None


def test_checkpoints(tmp_path):
    """The same from ``trace`` as from a monitor on the same rows, also where classes count equally."""
    x, later = rows(200), two()
    for step, model in enumerate((network(), *later)):
        torch.save(model.state_dict(), tmp_path / f"step-{step}.pt")
    expected, found = monitored(x, later), lazyrich.trace(network(), tmp_path, x)
    for measure in MEASURES:
        a, b = found.difference(1, 2, measure), expected.difference(1, 2, measure)
        assert (a.value, a.stderr) == pytest.approx((b.value, b.stderr), rel=1e-6)
    balanced = lazyrich.trace(network(), tmp_path, (x, (x[:, 0] > 1).long()), class_balanced=True)
    assert balanced.difference(1, 2).stderr < 0.7 * np.hypot(*balanced["low_rank_stderr"][1:])


def test_errors():
    series = monitored(rows(64), two())
    with pytest.raises(KeyError, match="step 7 was not measured; the steps are 0, 1, 2"):
        series.difference(0, 7)
    with pytest.raises(KeyError, match="step 1 has no 'nc1'"):
        series.difference(1, 0, "nc1")
    with pytest.raises(KeyError, match="step 5 has no 'low_rank': features are constant"):
        Series([Evaluation(5, {}, note="features are constant")]).difference(5, 5)
    ranks = series.difference(0, 1, "output_rank")
    assert (ranks.value, ranks.stderr, ranks.decided) == (0, None, False)
    assert series.difference(1, 1).interval == (0, 0)
