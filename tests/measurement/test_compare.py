"""Differences between networks on the same rows, and between groups of runs."""

import copy
import json
import math

import pytest
import torch
from moved import moved, network, rows
from scipy import stats
from torch import nn

import lazyrich
from lazyrich import CheckpointError, DataError, Difference, HeadError, ModelComparison, compare, compare_runs, measure
from lazyrich.functional import laziness_ratio, low_rank_estimate

pytestmark = pytest.mark.filterwarnings("ignore::lazyrich.RankWarning")


class TestTwo:
    def test_values_are_those_of_measure(self):
        models, x = {"a": network(0), "b": network(1, width=17, outputs=5)}, rows(600)
        found = compare(models, x)
        for name, model in models.items():
            alone = measure(model, x)
            assert found.values[name]["low_rank"] == pytest.approx(alone.low_rank, abs=1e-9)
            assert found.values[name]["balanced"] == pytest.approx(alone.balanced, abs=1e-9)
            assert found.values[name]["low_rank_corrected"] == pytest.approx(alone.low_rank_corrected, abs=1e-6)
            assert found.values[name]["low_rank_stderr"] == pytest.approx(alone.low_rank_stderr, rel=0.02)
        difference = found.difference("a", "b")
        values = [found.values[name]["low_rank_corrected"] for name in models]
        assert difference.value == pytest.approx(values[0] - values[1], abs=1e-12)
        assert found.difference("b", "a").value == -difference.value
        assert found.difference("b", "a").interval == (-difference.interval[1], -difference.interval[0])

    def test_the_error_is_that_of_the_difference_without_each_row(self):
        """Delete-one by hand: both plug-in values without each row, and the spread of their differences."""
        model, x = network().double(), rows(80).double()
        other = moved(model, 0.3)
        found = compare({"a": model, "b": other}, x).difference("a", "b")
        with torch.no_grad():
            phi, f = ([m[:2](x) for m in (model, other)], [m(x) for m in (model, other)])
        without = []
        for i in range(80):
            keep = torch.arange(80) != i
            a, b = (lazyrich.functional.low_rank_measure(phi[k][keep], f[k][keep]).item() for k in (0, 1))
            without.append(a - b)
        spread = torch.tensor(without, dtype=torch.float64)
        assert found.stderr == pytest.approx(((79 / 80) * (spread - spread.mean()).square().sum()).sqrt().item(), rel=0.1)

    def test_the_error_is_seen(self):
        """The spread of the difference over 40 data sets, and how often the interval holds its mean."""
        model = network()
        other = moved(model, 0.05)
        found = [compare({"a": model, "b": other}, rows(300, seed)).difference("a", "b") for seed in range(40)]
        values, errors = torch.tensor([d.value for d in found]), torch.tensor([d.stderr for d in found])
        truth = compare({"a": model, "b": other}, rows(30_000, 99)).difference("a", "b").value
        assert 0.7 < float(errors.median() / values.std()) < 1.5
        assert sum(d.interval[0] < truth < d.interval[1] for d in found) >= 34

    def test_two_checkpoints_of_one_run(self):
        """1 % of training apart: the paired error is under 0.7 of that of two separate measurements."""
        torch.manual_seed(0)
        x, model = rows(1500), network()
        y = (x[:, 0] * x[:, 1] > 0).long() + (x[:, 2] > 1).long()
        optimizer = torch.optim.Adam(model.parameters(), 0.01)
        for step in range(300):
            if step == 297:
                before = copy.deepcopy(model)
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
        found = compare({"before": before, "after": model}, rows(1000, 7))
        separate = math.hypot(*(found.values[name]["low_rank_stderr"] for name in ("before", "after")))
        assert 0 < found.difference("before", "after").stderr < 0.7 * separate

    @pytest.mark.parametrize("size", [7, 1024])
    def test_batches_do_not_matter(self, size):
        models, x = {"a": network(), "b": moved(network(), 0.2)}, rows(2000)
        whole, parts = compare(models, x), compare(models, list(x.split(size)))
        one, other = whole.difference("a", "b"), parts.difference("a", "b")
        assert other.value == pytest.approx(one.value, abs=0.1 * one.stderr)
        assert other.stderr == pytest.approx(one.stderr, rel=0.03)

    def test_nothing_is_disturbed(self):
        models = {"a": network().train(), "b": network(1).train()}
        before = {name: copy.deepcopy(model.state_dict()) for name, model in models.items()}
        state = torch.get_rng_state()
        compare(models, rows(64))
        assert torch.equal(torch.get_rng_state(), state)
        for name, model in models.items():
            assert model.training
            assert all(torch.equal(x, before[name][key]) for key, x in model.state_dict().items())
            assert not model[2]._forward_hooks


def test_it_says_which_is_richer():
    model = network(width=64)
    rich = copy.deepcopy(model)
    with torch.no_grad():  # features that hold little but what the outputs need
        rich[0].weight[3:] *= 0.01
    found = compare({"lazy": model, "rich": rich, "same": copy.deepcopy(model)}, rows(1000))
    text = str(found)
    assert "rich is richer than lazy: D_LR of lazy less that of rich is +0." in text
    assert "lazy and same: the data cannot tell which is richer" in text
    assert found.sentence("rich", "lazy").startswith("rich is richer than lazy: D_LR of rich less that of lazy is -0.")
    stored = found.to_dict()
    assert [(d["first"], d["second"]) for d in stored["differences"]["balanced"]] == [
        ("lazy", "rich"), ("lazy", "same"), ("rich", "same"),
    ]  # fmt: skip
    with pytest.raises(KeyError, match="no differences of 'nc1', only of low_rank, balanced"):
        found.difference("lazy", "rich", "nc1")
    with pytest.raises(KeyError, match="no pair 'lazy', 'x' among lazy, rich, same"):
        found.difference("lazy", "x")


class TestStart:
    def test_values_are_those_of_measure(self, tmp_path):
        start, x = network(), rows(600)
        models = {"a": moved(start, 0.3), "b": moved(start, 0.4, seed=2), "start": start}
        torch.save(start.state_dict(), tmp_path / "start.pt")
        found = compare(models, x, start=start)
        for name in ("a", "b"):
            alone = measure(models[name], x, start=start)
            for key in ("laziness", "laziness_balanced"):
                assert found.values[name][key] == pytest.approx(getattr(alone, key), abs=1e-9)
            assert found.values[name]["laziness_stderr"] == pytest.approx(alone.laziness_stderr, rel=0.02)
        assert found.values["start"]["laziness"] == pytest.approx(1, abs=1e-12)
        assert "λ of a less that of b is" in str(found)
        for same in (start.state_dict(), tmp_path / "start.pt"):
            assert compare(models, x, start=same).differences == found.differences

    def test_the_error_is_that_of_the_difference_without_each_row(self):
        start, x = network().double(), rows(80).double()
        models = {"a": moved(start, 0.3), "b": moved(start, 0.4, seed=2)}
        found = compare(models, x, start=start).difference("a", "b", "laziness")
        with torch.no_grad():
            phi, f = ([m[:2](x) for m in (*models.values(), start)], [m(x) for m in models.values()])
        spread = []
        for i in range(80):
            keep = torch.arange(80) != i
            ratios = [laziness_ratio(phi[k][keep], phi[2][keep], f[k][keep]).item() for k in (0, 1)]
            spread.append(ratios[0] - ratios[1])
        spread = torch.tensor(spread, dtype=torch.float64)
        assert found.stderr == pytest.approx(((79 / 80) * (spread - spread.mean()).square().sum()).sqrt().item(), rel=0.1)

    def test_batch_norm_that_has_seen_no_batch(self):
        """Two networks of which the last layer alone was trained; batch norm saw data in one of them and not in the other."""
        torch.manual_seed(0)
        start = nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 3))
        seen, unseen, x = copy.deepcopy(start), copy.deepcopy(start), rows(512)
        seen(x)
        seen[1].running_mean.copy_(seen[0](x).mean(0).detach())
        seen[1].running_var.copy_(seen[0](x).var(0).detach())
        for model in (seen, unseen):
            nn.init.normal_(model[3].weight)
        found = compare({"seen": seen, "unseen": unseen}, x, start=start)
        assert [found.values[name]["laziness"] for name in ("seen", "unseen")] == pytest.approx([1, 1], abs=1e-3)
        once = compare({"seen": seen, "unseen": unseen}, iter([x]), start=start)
        assert "laziness" not in once.differences
        assert "data can be used once" in str(once)

    def test_errors(self):
        models = {"a": network(), "b": network(1)}
        with pytest.raises(DataError, match="start: it gives 5 rows of a batch of 5 samples where"):
            compare(models, rows(10), start=nn.Sequential(nn.Unflatten(0, (5, 2)), nn.Flatten(1), nn.Linear(16, 3)))
        with pytest.raises(CheckpointError, match="does not fit"):
            compare(models, rows(10), start=network(width=7).state_dict())


class TestViews:
    found = ModelComparison(
        {
            "lazy": {"low_rank": 0.6, "low_rank_corrected": 0.58, "low_rank_stderr": 0.01, "balanced": 0.5, "laziness": 1.2},
            "rich": {"low_rank": 0.1, "low_rank_corrected": 0.08, "low_rank_stderr": 0.02, "balanced": 0.1, "laziness": 0.2},
        },
        {
            "low_rank": {("lazy", "rich"): Difference(0.5, 0.01, (0.48, 0.52))},
            "laziness": {("lazy", "rich"): Difference(1.0, None, None)},
        },
        100,
        ("look\x1b[2J",),
    )

    def test_figure(self, tmp_path):
        figure = self.found.plot(tmp_path / "comparison.png")
        assert (tmp_path / "comparison.png").stat().st_size > 10_000
        networks, differences, ratios, _ = figure.axes
        bars = {tuple(segment[:, 0]) for line in networks.collections for segment in line.get_segments()}
        expected = {(c - 1.96 * e, c + 1.96 * e) for c, e in ((0.58, 0.01), (0.08, 0.02))}
        assert sorted(bars) == [pytest.approx(ends) for ends in sorted(expected)]
        (interval,) = differences.collections[0].get_segments()
        assert interval[:, 0] == pytest.approx([0.48, 0.52])
        assert [label.get_text() for label in differences.get_yticklabels()] == ["lazy - rich"]
        assert ratios.get_xlim()[1] > 1.2
        values = {str(k): {"low_rank": 0.5} for k in range(7)}
        with pytest.raises(ValueError, match="at most 6 networks, got 7"):
            ModelComparison(values, {"low_rank": {}}, 1).plot()

    def test_files_and_tables(self, tmp_path):
        self.found.save(tmp_path / "c.json")
        assert json.loads((tmp_path / "c.json").read_text())["differences"]["laziness"][0]["value"] == 1.0
        header, lazy, _ = self.found.to_csv().splitlines()
        assert header == "network,low_rank,low_rank_corrected,low_rank_stderr,laziness,balanced"
        assert lazy == "lazy,0.6,0.58,0.01,1.2,0.5"
        assert r"lazy & 0.6000 & 0.5800 & 0.0100 & 0.5000 & 1.2000 \\" in self.found.to_latex()
        assert "λ of lazy less that of rich is +1.0000 (no error)" in str(self.found)
        assert "\x1b" not in str(self.found)


def test_classes_that_count_equally():
    x = rows(900)
    y = (x[:, 0] > 1).long()
    models = {"a": network(outputs=2), "b": moved(network(outputs=2), 0.3)}
    found = compare(models, (x, y), class_balanced=True)
    alone = measure(models["b"], (x, y), class_balanced=True)
    assert found.values["b"]["low_rank"] == pytest.approx(alone.low_rank, abs=1e-9)
    assert found.values["b"]["low_rank_stderr"] == pytest.approx(alone.low_rank_stderr, rel=0.02)
    assert found.difference("a", "b").stderr > 0


def test_errors():
    model = network()
    with pytest.raises(TypeError, match="models must be a mapping of names"):
        compare([model, model], rows(9))
    with pytest.raises(ValueError, match="at least two models .* got 1"):
        compare({"a": model}, rows(9))
    with pytest.raises(ValueError, match="the same object"):
        compare({"a": model, "b": model}, rows(9))
    with pytest.raises(DataError, match="no samples"):
        compare({"a": model, "b": network(1)}, [])
    with pytest.raises(RuntimeError, match="'b': mat1 and mat2"):
        compare({"a": model, "b": nn.Linear(3, 2)}, rows(9))
    with pytest.raises(HeadError, match="'b': no head found in Sequential"):
        compare({"a": model, "b": nn.Sequential(nn.Tanh())}, rows(9))


class TestRuns:
    def test_welch(self):
        g = torch.Generator().manual_seed(0)
        a, b = (torch.randn(7, generator=g) * 2).tolist(), torch.randn(4, generator=g).tolist()
        (found,) = compare_runs({"a": a, "b": b}).values()
        expected = stats.ttest_ind(a, b, equal_var=False)
        low, high = expected.confidence_interval()
        assert found.value == pytest.approx(sum(a) / 7 - sum(b) / 4)
        assert found.stderr == pytest.approx(found.value / expected.statistic)
        assert found.interval == pytest.approx((low, high), rel=0.02)

    def test_results(self):
        x = rows(64)
        runs = {name: [measure(network(seed, width), x) for seed in range(3)] for name, width in (("narrow", 8), ("wide", 64))}
        found = compare_runs(runs, "balanced")["narrow", "wide"]
        expected = [sum(r.balanced for r in group) / 3 for group in runs.values()]
        assert found.value == pytest.approx(expected[0] - expected[1])
        with pytest.raises(DataError, match="a result has no 's_init'; it has low_rank"):
            compare_runs(runs, "s_init")

    def test_errors(self):
        with pytest.raises(DataError, match="at least two groups"):
            compare_runs({"a": [1.0, 2.0]})
        with pytest.raises(DataError, match="at least two runs .* 'b' has 1"):
            compare_runs({"a": [1.0, 2.0], "b": [1.0]})
        assert compare_runs({"a": [1.0, 1.0], "b": [0.5, 0.5]})["a", "b"] == Difference(0.5, 0.0, (0.5, 0.5))


def test_an_estimate_that_has_no_error_has_no_difference():
    x = rows(6)
    assert low_rank_estimate(x, x[:, :2]).stderr is None
    found = compare({"a": network(), "b": network(1)}, x).difference("a", "b")
    assert (found.stderr, found.interval, found.decided) == (None, None, False)
    assert str(found).endswith("(no error)")
