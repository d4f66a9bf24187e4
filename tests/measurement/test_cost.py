"""The cost model against closed forms and against counts of operations, numbers, tensors, allocations and exchanges."""

import pickle
import re

import pytest
import torch
from torch import nn
from torch.autograd.profiler import profile
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.data import DataLoader, TensorDataset
from torch.utils.flop_counter import FlopCounterMode

import lazyrich
from lazyrich import DataError, MeasurementCost, measurement_cost
from lazyrich.measurement import cost as cost_module
from lazyrich.measurement.cost import machine_rates
from lazyrich.measurement.narrow import NarrowGram

pytestmark = pytest.mark.filterwarnings("ignore::lazyrich.RankWarning")


def rows(n, p, c, dtype=torch.float32):
    g = torch.Generator().manual_seed(n + p + c)
    return torch.randn(n, p, generator=g, dtype=dtype), torch.randn(n, c, generator=g, dtype=dtype)


def filled(n, p, c, targets, dtype=torch.float32, retain=1024):
    gram = lazyrich.Gram(retain=retain)
    one_hot = nn.functional.one_hot(torch.arange(n) % targets, targets) if targets else None
    gram.update(*rows(n, p, c, dtype), one_hot)
    return gram


def held(gram):
    return sum(x.nbytes for x in gram.tensors().values())


def within(factor, counted, estimated):
    return 1 / factor < counted / estimated < factor


def counting():
    """PyTorch's counter of operations, which knows no products in place."""

    def product(added, first, second, **others):
        return 2 * first[0] * first[1] * second[1]

    return FlopCounterMode(display=False, custom_mapping={torch.ops.aten.addmm_: product})


class Written(TorchDispatchMode):
    """Counts the numbers that operations write or read, whichever are more, without products, decompositions and mere views."""

    PRODUCTS = ("mm", "addmm", "bmm", "mv", "dot", "_linalg_eigh", "_linalg_svd", "_unsafe_view", "empty")

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        view = any(a.alias_info is not None and not a.alias_info.is_write for a in func._schema.arguments)
        if not view and func.overloadpacket.__name__ not in self.PRODUCTS:
            self.count += max((x.numel() for x in tree_leaves((out, args, kwargs)) if isinstance(x, torch.Tensor)), default=0)
        return out


class TestClosedForms:
    def test_the_pass(self):
        """Half of a symmetric product, in panels of 128 columns; 2s(p + s) a sample in float64, s = C + T."""
        cost = measurement_cost(1000, 512, 10)
        assert cost.filling == 1000 * 512 * (512 + 128)
        assert cost.filling_double == 1000 * 2 * 20 * (512 + 20)
        assert measurement_cost(1000, 64, 10).filling == 1000 * 2 * 64**2

    def test_decompositions(self):
        """Two of p × p, and the spans of outputs and targets; of very many features the leading part alone."""
        assert measurement_cost(1000, 512, 10, targets=0).decompositions == 2 * 9 * 512**3 + 27 * 10**3
        assert measurement_cost(1000, 5000, 10).decompositions == 2 * 27 * 10**3

    def test_processes_share_the_pass_alone(self):
        one, eight = measurement_cost(80_000, 512, 10), measurement_cost(80_000, 512, 10, processes=8)
        assert one.filling == 8 * eight.filling
        assert (one.reading, one.decompositions) == (eight.reading, eight.decompositions)
        assert eight.samples == 10_000

    def test_very_many_outputs_cost_as_many_as_features(self):
        """Beyond the width of the features, more outputs are more rows of the head's weight and nothing else."""
        few, many = (measurement_cost(10**6, 512, c, positions=True) for c in (50_000, 100_000))
        assert many.filling_double - few.filling_double == 2 * 50_000 * 513**2
        assert (many.reading, many.peak_bytes) == (few.reading, few.peak_bytes)

    def test_bytes_do_not_grow_with_samples(self):
        assert len({measurement_cost(n, 256, 10).peak_bytes for n in (10**4, 10**6, 10**9)}) == 1


class TestCounts:
    @pytest.mark.parametrize(("p", "c"), [(64, 10), (200, 30)])
    def test_of_the_pass(self, p, c):
        gram = lazyrich.Gram(retain=0)
        with counting() as counted:
            gram.update(*rows(4096, p, c))
        cost = measurement_cost(4096, p, c, targets=0)
        assert within(1.1, counted.get_total_flops(), cost.filling + cost.filling_double)

    @pytest.mark.parametrize(
        ("n", "p", "c", "positions"),
        [(2000, 64, 10, 0), (1500, 256, 2, 0), (500, 96, 60, 0), (2000, 64, 10, 20), (2000, 32, 5000, 0)],
        ids=["small", "wide", "many classes", "positions", "very many outputs"],
    )
    def test_of_a_measurement(self, n, p, c, positions):
        x, _ = rows(n, p, c)
        x = x * torch.logspace(0, -0.8, p) if c > p else x
        x = x.unflatten(0, (-1, positions)) if positions else x
        model = nn.Sequential(nn.Linear(p, c))
        parts = x.chunk(50) if positions else zip(x.chunk(50), (torch.arange(n) % c).chunk(50), strict=True)
        batches = list(parts)
        cost = measurement_cost(n, p, c, targets=0 if positions else None, positions=bool(positions))
        with counting() as counted, Written() as written:
            lazyrich.measure(model, batches)  # the first is checked, at some passes over its outputs: 1 of 50
        forward = 2 * n * p * c
        assert within(1.5, counted.get_total_flops() - forward, cost.filling + cost.filling_double + cost.reading)
        assert within(1.5, written.count, cost.elementwise)

    @pytest.mark.parametrize("width", [60, 4500])
    def test_of_a_layer(self, width):
        """Another layer costs its own products, those of its n × n kernel if it is wide."""
        n, p, c = 600, 16, 4
        model = nn.Sequential(nn.Linear(width, p), nn.Linear(p, c))
        x, _ = rows(n, width, c)
        counts = []
        for layers in (None, ["0"]):
            with counting() as counted:
                lazyrich.measure(model, x, layers=layers)
            counts.append(counted.get_total_flops())
        with_layer, without = (measurement_cost(n, p, c, targets=0, layers=layers) for layers in ((width,), ()))
        estimated = sum(getattr(with_layer, name) - getattr(without, name) for name in ("filling", "filling_double", "reading"))
        assert within(1.5, counts[1] - counts[0], estimated)

    @pytest.mark.parametrize(("p", "c", "targets"), [(64, 10, 10), (300, 2, 7), (17, 120, 120)])
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    @pytest.mark.parametrize("positions", [False, True])
    def test_of_the_bytes_that_stay(self, p, c, targets, dtype, positions):
        counted = held(filled(50, p, c, targets, dtype, retain=0 if positions else 1024))
        cost = measurement_cost(50, p, c, targets=targets, positions=positions, double=dtype == torch.float64)
        assert within(1.1, counted, cost.state_bytes)

    @pytest.mark.parametrize("processes", [1, 3])
    @pytest.mark.parametrize("width", [40, 5000])
    def test_of_a_layer_s_bytes_that_stay(self, width, processes):
        """As wide as it is; as its n × n kernel; on several processes as a sketch."""
        n, p, c = 90, 8, 3
        layer = NarrowGram(lazyrich.Gram(), hold=processes == 1)
        layer.update(*rows(n, width, c), None, None)
        costs = [measurement_cost(n, p, c, layers=layers, processes=processes).state_bytes for layers in ((), (width,))]
        assert within(1.1, held(layer.finish()[0]), costs[1] - costs[0])

    @pytest.mark.parametrize(("p", "c"), [(64, 10), (384, 4), (96, 60)])
    def test_of_the_peak(self, p, c):
        """What PyTorch's allocator hands out during the call."""
        model, (x, _), labels = nn.Linear(p, c), rows(2000, p, c), torch.arange(2000) % c
        with profile(profile_memory=True) as seen:
            lazyrich.measure(model, (x, labels))
        events = [(e.start_ns(), e.nbytes()) for e in seen.kineto_results.events() if e.name() == "[memory]"]
        sizes = torch.tensor([size for _, size in sorted(events)])
        assert within(1.5, int(sizes.cumsum(0).max()), measurement_cost(2000, p, c).peak_bytes)

    def test_of_what_is_sent(self):
        """What a Gram adds up and gathers, recorded."""
        gram, added, gathered = filled(2000, 48, 5, 5), [], []

        class Two:
            together, size = True, 2

            def gather(self, value):
                gathered.append(len(pickle.dumps(value)))
                return [value, value]

            def add(self, x):
                added.append(x.nbytes)

        gram.reduce(Two())
        assert within(1.1, sum(added) + sum(gathered), measurement_cost(2000, 48, 5, processes=2).sent_bytes)
        # a ring of eight: each passes on seven parts of the rows, and twice seven eighths of the sums
        eight = 7 * sum(gathered) + 2 * 7 / 8 * sum(added)
        assert within(1.1, eight, measurement_cost(2000, 48, 5, processes=8).sent_bytes)
        assert measurement_cost(2000, 48, 5).sent_bytes == 0


class TestOfAModel:
    """The sizes that one batch gives."""

    MODEL = nn.Sequential(nn.Linear(6, 20), nn.ReLU(), nn.Linear(20, 3))
    X = torch.randn(500, 6, generator=torch.Generator().manual_seed(0))

    @pytest.mark.parametrize(
        ("targets", "columns"),
        [(torch.arange(500) % 3, 3), (torch.randn(500, 2), 2), (torch.randn(500), 1)],
        ids=["labels", "two columns", "one column"],
    )
    def test_targets(self, targets, columns):
        assert MeasurementCost.of(self.MODEL, (self.X, targets)) == measurement_cost(500, 20, 3, targets=columns)

    def test_no_targets(self):
        assert MeasurementCost.of(self.MODEL, self.X) == measurement_cost(500, 20, 3, targets=0)

    def test_a_loader(self):
        """All batches are taken to be as large as the first."""
        loader = DataLoader(TensorDataset(self.X), batch_size=64)
        assert MeasurementCost.of(self.MODEL, loader) == measurement_cost(8 * 64, 20, 3, targets=0)
        cost = MeasurementCost.of(self.MODEL, loader, num_samples=100, processes=2)
        assert cost == measurement_cost(100, 20, 3, targets=0, processes=2)

    def test_layers(self):
        model = nn.Sequential(nn.Conv2d(3, 5, 3), nn.Flatten(), nn.Linear(5 * 6 * 6, 4))
        x = torch.randn(10, 3, 8, 8)
        assert MeasurementCost.of(model, x, layers="all") == measurement_cost(10, 180, 4, targets=0, layers=[3, 180])
        flat = MeasurementCost.of(model, x, layers=["0"], pooling="flatten")
        assert flat == measurement_cost(10, 180, 4, targets=0, layers=[3 * 8 * 8])

    def test_tokens_and_precision(self):
        model = nn.Linear(8, 3, dtype=torch.float64)
        cost = MeasurementCost.of(model, torch.randn(10, 7, 8, dtype=torch.float64))
        assert cost == measurement_cost(70, 8, 3, targets=0, positions=True, double=True)

    def test_the_model_stays_as_it_is(self):
        before = torch.get_rng_state()
        self.MODEL.train()
        MeasurementCost.of(self.MODEL, DataLoader(TensorDataset(self.X), batch_size=64, shuffle=True))
        assert self.MODEL.training
        assert torch.equal(torch.get_rng_state(), before)

    @pytest.mark.parametrize(
        ("data", "message"),
        [
            (iter([X]), "data is an iterator that can be used only once"),
            ([], "data gave no samples"),
            (type("Stream", (), {"__iter__": lambda self: iter([torch.zeros(2, 6)])})(), "data has no length: pass num_samples="),
        ],
    )
    def test_errors(self, data, message):
        with pytest.raises(DataError, match=message):
            MeasurementCost.of(self.MODEL, data)


class TestResult:
    def test_seconds(self):
        cost = MeasurementCost(10, 6_000, 100, 200, 400, 50, 1, 2, 3)
        assert cost.seconds(1_000, 100, 40, 5) == 6 + 3 + 10 + 10
        assert cost.seconds(1_000) == pytest.approx(6 + 300 / 500 + 400 / 500 + 5)

    def test_the_rates_of_a_machine(self):
        """With a clock by which every call takes one second, the rates are the operations of one call."""
        assert machine_rates(4, clock=iter(range(40)).__next__) == (4 * 4**3, 4 * 4**3, 9 * 4**3, 2**21)

    def test_seconds_on_this_machine(self, monkeypatch):
        monkeypatch.setattr(cost_module, "machine_rates", lambda: (1_000, 100, 40, 5))
        assert MeasurementCost(10, 6_000, 100, 200, 400, 50, 1, 2, 3).seconds() == 6 + 3 + 10 + 10

    def test_what_it_says(self):
        cost = MeasurementCost(1_281_167, 5_242_880_000, 100, 999_499, 999_500, 0, 2_000, 1_500, 0)
        assert str(cost).splitlines() == [
            "pass over 1,281,167 samples    5.24 Gop, and 100 op in float64",
            "after the pass                 999 kop of products, 1 Mop of decompositions",
            "elementwise                    0 numbers",
            "memory                         2 kB during the pass, 3.5 kB at the peak",
        ]

    @pytest.mark.parametrize(
        ("wrong", "message"),
        [
            ({"samples": 1}, "samples must be at least 2, got 1"),
            ({"features": 0}, "features must be at least 1, got 0"),
            ({"outputs": 0}, "outputs must be at least 1, got 0"),
            ({"processes": 0}, "processes must be at least 1, got 0"),
            ({"targets": -1}, "targets must be at least 0, got -1"),
            ({"layers": (8, 0)}, "layers must be at least 1, got 0"),
        ],
    )
    def test_errors(self, wrong, message):
        with pytest.raises(ValueError, match=re.escape(message)):
            measurement_cost(**({"samples": 10, "features": 4, "outputs": 2} | wrong))
