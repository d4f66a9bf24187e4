"""The cost model against what is really counted: operations, numbers written, tensors, allocations, exchanges."""

import pickle
import re

import pytest
import torch
from torch import nn
from torch.autograd.profiler import profile
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

import lazyrich
from lazyrich import measurement_cost
from lazyrich.cli.main import main
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


class TestBytes:
    @pytest.mark.parametrize(("p", "c", "targets"), [(1, 1, 0), (64, 10, 10), (300, 2, 7), (17, 120, 120)])
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
    @pytest.mark.parametrize("positions", [False, True])
    def test_of_the_state_are_exact(self, p, c, targets, dtype, positions):
        found = held(filled(50, p, c, targets, dtype, retain=0 if positions else 1024))
        cost = measurement_cost(50, p, c, targets=targets, positions=positions, double=dtype == torch.float64)
        assert cost.state_bytes == found

    @pytest.mark.parametrize("processes", [1, 3])
    @pytest.mark.parametrize("width", [40, 5000])
    def test_of_layers_are_exact(self, width, processes):
        """As wide as it is; by the n × n dual; on several processes by a sketch."""
        n, p, c = 90, 8, 3
        layer = NarrowGram(lazyrich.Gram(), hold=processes == 1)
        layer.update(*rows(n, width, c), None)
        costs = [measurement_cost(n, p, c, layers=layers, processes=processes).state_bytes for layers in ((), (width,))]
        assert costs[1] - costs[0] == held(layer.finish())

    @pytest.mark.parametrize(("p", "c"), [(64, 10), (384, 4), (96, 60)])
    def test_at_the_peak(self, p, c):
        """What PyTorch's allocator hands out during the call: never more than the model says, nor much less."""
        model, (x, _), labels = nn.Linear(p, c), rows(2000, p, c), torch.arange(2000) % c
        with profile(profile_memory=True) as seen:
            lazyrich.measure(model, (x, labels))
        events = [(e.start_ns(), e.nbytes()) for e in seen.kineto_results.events() if e.name() == "[memory]"]
        sizes = torch.tensor([size for _, size in sorted(events)])
        peak = int(sizes.cumsum(0).max())
        assert 0.75 < peak / measurement_cost(2000, p, c).peak_bytes < 1.05

    def test_do_not_grow_with_samples(self):
        assert len({measurement_cost(n, 256, 10).peak_bytes for n in (10**4, 10**6, 10**9)}) == 1

    def test_that_are_sent(self):
        """What a Gram adds up and hands round, caught."""
        gram, added, given = filled(2000, 48, 5, 5), [], []

        class Two:
            together, size = True, 2

            def gather(self, value):
                given.append(len(pickle.dumps(value)))
                return [value, value]

            def add(self, x):
                added.append(x.nbytes)

        gram.reduce(Two())
        assert measurement_cost(2000, 48, 5, processes=2).sent_bytes == pytest.approx(sum(added) + sum(given), rel=0.01)
        # a ring of eight: each hands on seven parts of the rows, and twice seven eighths of the sums
        eight = 7 * sum(given) + 2 * 7 / 8 * sum(added)
        assert measurement_cost(2000, 48, 5, processes=8).sent_bytes == pytest.approx(eight, rel=0.01)
        assert measurement_cost(2000, 48, 5).sent_bytes == 0


class TestOperations:
    @pytest.mark.parametrize(("p", "c"), [(64, 10), (200, 30)])
    def test_of_filling(self, p, c):
        gram = lazyrich.Gram(retain=0)
        with counting() as counted:
            gram.update(*rows(4096, p, c))
        cost = measurement_cost(4096, p, c, targets=0)
        assert counted.get_total_flops() == pytest.approx(cost.filling + cost.filling_double, rel=0.01)

    @pytest.mark.parametrize(
        ("n", "p", "c", "positions"),
        [(2000, 64, 10, 0), (1500, 256, 2, 0), (500, 96, 60, 0), (2000, 64, 10, 20), (2000, 32, 5000, 0)],
        ids=["small", "wide", "many classes", "positions", "very many outputs"],
    )
    def test_of_a_measurement(self, n, p, c, positions):
        x, _ = rows(n, p, c)
        x = x * torch.logspace(0, -0.8, p) if c > p else x  # outputs as uneven as the model takes them to be
        x = x.unflatten(0, (-1, positions)) if positions else x
        labels = torch.arange(n) % c
        model = nn.Sequential(nn.Linear(p, c))
        data = x if positions else (x, labels)
        cost = measurement_cost(n, p, c, targets=0 if positions else None, positions=bool(positions))
        with counting() as counted:
            lazyrich.measure(model, data)
        forward = 2 * n * p * c
        assert counted.get_total_flops() - forward == pytest.approx(cost.filling + cost.filling_double + cost.reading, rel=0.1)
        with Written() as written:
            lazyrich.measure(model, data)
        assert written.count == pytest.approx(cost.elementwise, rel=0.2)

    @pytest.mark.parametrize("width", [60, 4500])
    def test_of_a_layer(self, width):
        """A layer beside the head costs its own products, by its dual too."""
        n, p, c = 600, 16, 4
        model = nn.Sequential(nn.Linear(width, p), nn.Linear(p, c))
        x, _ = rows(n, width, c)
        counts = []
        for layers in (None, ["0"]):
            with counting() as counted:
                lazyrich.measure(model, x, layers=layers)
            counts.append(counted.get_total_flops())
        with_layer, without = (measurement_cost(n, p, c, targets=0, layers=layers) for layers in ((width,), ()))
        model_says = sum(getattr(with_layer, name) - getattr(without, name) for name in ("filling", "filling_double", "reading"))
        assert counts[1] - counts[0] == pytest.approx(model_says, rel=0.1)

    def test_processes_share_the_pass_alone(self):
        one, eight = measurement_cost(80_000, 512, 10), measurement_cost(80_000, 512, 10, processes=8)
        assert one.filling == 8 * eight.filling
        assert (one.reading, one.decompositions) == (eight.reading, eight.decompositions)
        assert eight.samples == 10_000

    def test_very_many_outputs_cost_as_many_as_features(self):
        """Past the width of the features, more outputs are more rows of the head's weight and nothing else."""
        few, many = (measurement_cost(10**6, 512, c, positions=True) for c in (50_000, 100_000))
        assert many.filling_double - few.filling_double == 2 * 50_000 * 513**2
        assert (many.reading, many.peak_bytes) == (few.reading, few.peak_bytes)


class TestResult:
    def test_seconds(self):
        cost = lazyrich.MeasurementCost(10, 6_000, 100, 200, 400, 50, 1, 2, 3)
        assert cost.seconds(1_000, 100, 40, 5) == 6 + 3 + 10 + 10
        assert cost.seconds(1_000) == pytest.approx(6 + 300 / 500 + 400 / 500 + 5)

    def test_what_it_says(self):
        cost = lazyrich.MeasurementCost(1_281_167, 5_242_880_000, 100, 999_499, 999_500, 0, 2_000, 1_500, 0)
        assert str(cost).splitlines() == [
            "pass over 1,281,167 samples    5.24 Gop, and 100 op in float64",
            "reading                        999 kop of products, 1 Mop of decompositions, in float64",
            "elementwise                    0 numbers",
            "memory                         2 kB kept, at most 3.5 kB",
        ]
        assert cost.to_dict()["filling"] == 5_242_880_000

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
    def test_mistakes_are_named(self, wrong, message):
        with pytest.raises(ValueError, match=re.escape(message)):
            measurement_cost(**({"samples": 10, "features": 4, "outputs": 2} | wrong))

    def test_from_the_shell(self, capsys):
        assert main(["cost", "--samples", "1000", "--features", "64", "--outputs", "10", "--layers", "32", "64"]) == 0
        assert capsys.readouterr().out.strip() == str(measurement_cost(1000, 64, 10, layers=(32, 64)))
