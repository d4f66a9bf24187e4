"""Every metric through one tester."""

import copy
import pickle

import pytest
import reference
import torch
import workers
from matplotlib import pyplot
from torch import nn
from torchmetrics import MetricCollection

import lazyrich
from lazyrich import DataError

N = 240
METRICS = {
    "D_LR": ("LowRankMeasure", {}),
    "balanced": ("LowRankMeasure", {"reference": "balanced"}),
    "outputs": ("LowRankMeasure", {"reference": "outputs"}),
    "cut": ("LowRankMeasure", {"rtol": 0.3}),
    "corrected": ("LowRankMeasure", {"corrected": True}),
    "collapse": ("NeuralCollapse", {}),
    "alignment": ("KernelAlignment", {}),
    "target alignment": ("KernelAlignment", {"other": "targets"}),
    "effective rank": ("EffectiveRank", {}),
    "participation ratio": ("ParticipationRatio", {}),
    "stable rank": ("StableRank", {}),
    "rankme": ("RankMe", {}),
    "exponent": ("AlphaReQ", {}),
}


def data():
    x, y = workers.samples(N)
    model = workers.network()
    with torch.no_grad():
        features = model[:2](x)
        return features, model[2](features), y


def expected(name):
    """From the slow references in NumPy."""
    features, outputs, y = (t.numpy() for t in data())
    simple = {
        "D_LR": lambda: reference.d_lr(features, outputs),
        "balanced": lambda: reference.d_lr(features, outputs, power=0.5),
        "outputs": lambda: reference.d_lr(features, outputs, power=0),
        "cut": lambda: reference.d_lr(features, outputs, rtol=0.3),
        "alignment": lambda: reference.cka(features, outputs),
        "target alignment": lambda: reference.cka(features, torch.nn.functional.one_hot(torch.tensor(y)).numpy()),
        "effective rank": lambda: reference.ranks(features)["effective_rank"],
        "participation ratio": lambda: reference.ranks(features)["participation_ratio"],
        "stable rank": lambda: reference.ranks(features)["stable_rank"],
        "rankme": lambda: reference.ranks(features)["rankme"],
        "collapse": lambda: reference.neural_collapse(features, y),
        "exponent": lambda: reference.exponent(features, 1, 10),
    }
    return simple[name]() if name in simple else None


def made(name):
    kind, options = METRICS[name]
    return getattr(lazyrich, kind)(**options)


def fed(metric, parts=7):
    features, outputs, y = data()
    for f, o, t in zip(features.tensor_split(parts), outputs.tensor_split(parts), y.tensor_split(parts), strict=True):
        metric.update(f, o, t)
    return metric


def same(a, b, tolerance=1e-12):
    if isinstance(a, dict):
        assert a.keys() == b.keys()
        return all(same(a[k], b[k], tolerance) for k in a)
    return float(a) == pytest.approx(float(b), rel=max(tolerance, 1e-10), abs=tolerance)


every = pytest.mark.parametrize("name", METRICS)


@every
class TestEveryMetric:
    def test_against_the_reference(self, name):
        value = expected(name)
        if value is None:  # the corrected value has tests of its own
            features, outputs, _ = data()
            value = lazyrich.functional.low_rank_estimate(features, outputs).corrected
        assert same(fed(made(name)).compute(), value, 1e-9)

    def test_of_every_batch_and_in_total(self, name):
        """`forward` gives the value of the batch and gathers the total."""
        features, outputs, y = data()
        metric = made(name)
        for rows in torch.arange(N).tensor_split(3):
            alone = made(name)
            alone.update(features[rows], outputs[rows], y[rows])
            assert same(metric(features[rows], outputs[rows], y[rows]), alone.compute())
        assert same(metric.compute(), fed(made(name)).compute())

    def test_pickled_and_cloned_halfway(self, name):
        features, outputs, y = data()
        whole = fed(made(name)).compute()
        metric = made(name)
        metric.update(features[:100], outputs[:100], y[:100])
        for other in (pickle.loads(pickle.dumps(metric)), metric.clone(), copy.deepcopy(metric)):
            other.update(features[100:], outputs[100:], y[100:])
            assert same(other.compute(), whole)
        assert metric.gram.count == 100
        metric.update(features[100:], outputs[100:], y[100:])
        assert same(metric.compute(), whole)

    def test_merged_also_after_compute(self, name):
        features, outputs, y = data()
        first, second = made(name), made(name)
        first.update(features[:100], outputs[:100], y[:100])
        second.update(features[100:], outputs[100:], y[100:])
        first.compute(), second.compute()
        first.merge_state(second)
        if name != "corrected":  # rows of two streams have the same numbers, all are kept here, but in another order
            assert same(first.compute(), fed(made(name)).compute(), 1e-11)
        assert second.gram.count == N - 100
        empty = made(name)
        empty.merge_state(second)
        assert same(empty.compute(), second.compute(), 1e-11)

    def test_reset(self, name):
        features, outputs, y = data()
        metric = made(name)
        metric.update(features[:50] * 3, outputs[:50], y[:50])
        metric.compute()
        metric.reset()
        assert metric.gram.count == 0
        assert same(fed(metric).compute(), fed(made(name)).compute())

    @pytest.mark.parametrize("how", [nn.Module.half, nn.Module.float, nn.Module.bfloat16, lambda m: m.to(torch.float16)])
    def test_half_precision_of_a_parent_leaves_the_sums_alone(self, name, how):
        parent = nn.Sequential(made(name))
        features, outputs, y = data()
        parent[0].update(features[:100], outputs[:100], y[:100])
        how(parent)
        parent[0].update(features[100:], outputs[100:], y[100:])
        assert parent[0].features.dtype == torch.float64
        assert same(parent[0].compute(), fed(made(name)).compute())

    def test_saved_and_loaded(self, name):
        features, outputs, y = data()
        metric = made(name)
        metric.persistent(True)
        metric.update(features[:100], outputs[:100], y[:100])
        other = made(name)
        other.persistent(True)
        other.load_state_dict(metric.state_dict())
        other.update(features[100:], outputs[100:], y[100:])
        assert same(other.compute(), fed(made(name)).compute())

    def test_half_precision_features(self, name):
        features, outputs, y = data()
        metric, exact = made(name), made(name)
        metric.update(features.half(), outputs.half(), y)
        exact.update(features.half().double(), outputs.half().double(), y)
        if name not in (
            "D_LR",
            "corrected",
            "cut",
            "rankme",
            "exponent",
        ):  # these count directions, and halves round more of them
            assert same(metric.compute(), exact.compute(), 2e-3)
        else:
            assert torch.isfinite(metric.compute())

    def test_bad_input_leaves_the_state(self, name):
        features, outputs, y = data()
        metric = fed(made(name))
        before = metric.compute()
        with pytest.raises(DataError, match="NaN"):
            metric.update(features * float("nan"), outputs, y)
        metric._computed = None
        assert same(metric.compute(), before)


@pytest.fixture(scope="module")
def found():
    return workers.in_two_processes(workers.metrics, METRICS, N)


class TestTwoProcesses:
    @every
    def test_are_one(self, found, name):
        single = fed(made(name)).compute()
        for rank in range(2):
            for value in found[rank][name]:  # computed, from the cache, and after an update without rows
                assert same(value, single, 1e-12)

    def test_one_without_data(self):
        values = workers.in_two_processes(workers.one_without_data)
        x, _ = workers.samples(50)
        model = workers.network()
        with torch.no_grad():
            alone = lazyrich.functional.low_rank_measure(model[:2](x), model(x))
        assert all(same(value, alone) for value in values)


class TestCollection:
    def test_one_gram_serves_all(self):
        collection = MetricCollection({name: made(name) for name in METRICS})
        fed(collection)
        assert [sorted(group) for group in collection.compute_groups.values()] == [sorted(METRICS)]
        first = next(iter(collection.values(copy_state=False)))
        assert all(m.features is first.features for m in collection.values(copy_state=False))
        computed = collection.compute()
        for name in METRICS:
            value = fed(made(name)).compute()
            value = value if isinstance(value, dict) else {name: value}
            assert all(same(computed[key], v) for key, v in value.items())

    def test_reset_and_again(self):
        collection = MetricCollection({name: made(name) for name in METRICS})
        before = fed(collection).compute()
        collection.reset()
        after = fed(collection, parts=3).compute()
        assert all(same(after[key], before[key], 1e-11) for key in before)


def test_figure():
    figure, axis = pyplot.subplots()
    values = [fed(made("D_LR")).compute(), torch.tensor(0.5)]
    assert made("D_LR").plot(values, ax=axis)[1] is axis
    pyplot.close(figure)
    assert axis.lines[0].get_ydata().tolist() == pytest.approx([float(value) for value in values])


class TestErrors:
    def test_options(self):
        with pytest.raises(ValueError, match="reference must be one of"):
            lazyrich.LowRankMeasure("identity")
        with pytest.raises(ValueError, match="other must be"):
            lazyrich.KernelAlignment(other="inputs")

    def test_labels_without_a_number_of_classes(self):
        with pytest.raises(ValueError, match="NeuralCollapse needs num_classes"):
            lazyrich.NeuralCollapse().update(torch.randn(4, 2), targets=torch.tensor([0, 1, 0, 1]))

    def test_merging_something_else(self):
        with pytest.raises(ValueError, match="must be a metric over a Gram or its state, got int"):
            lazyrich.RankMe().merge_state(3)
        with pytest.raises(DataError, match="not the state of a Gram"):
            lazyrich.RankMe().merge_state({"weight": torch.ones(3)})

    @pytest.mark.filterwarnings("ignore:The ``compute`` method")
    def test_nothing_seen(self):
        with pytest.raises(DataError, match="at least 2 samples"):
            lazyrich.LowRankMeasure().compute()
