"""What is not deterministic is noticed and named; what is, and mere order, passes."""

import random

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import dropout
from torch.utils.data import DataLoader, Dataset, IterableDataset, RandomSampler, TensorDataset

from lazyrich import DataError, NondeterminismError, measure

pytestmark = pytest.mark.filterwarnings("ignore::lazyrich.RankWarning")
X = torch.randn(60, 6, generator=torch.Generator().manual_seed(0))
Y = torch.arange(60) % 3


class Noisy(nn.Dropout):
    """Dropout that stays on."""

    def forward(self, x):
        return dropout(x, self.p, training=True)


class Counting(nn.Module):
    calls = 0

    def forward(self, x):
        self.calls += 1
        return x + self.calls


class Inside(nn.Module):
    """Noise between two modules, by a function."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(6, 20), nn.Linear(20, 20)

    def forward(self, x):
        return self.second(torch.relu(self.first(x)) + torch.randn(20))


class Skipping(nn.Module):
    """Leaves a layer out every second time."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.calls = nn.Linear(6, 20), nn.Linear(20, 20), 0

    def forward(self, x):
        self.calls += 1
        x = self.first(x)
        return self.second(x) if self.calls % 2 else x


class Doubling(nn.Module):
    """Writes into what it is given."""

    def forward(self, x):
        return x.mul_(2)


def network(*body):
    torch.manual_seed(0)
    return nn.Sequential(nn.Sequential(*body) if body else nn.Linear(6, 20), nn.Tanh(), nn.Linear(20, 3))


class Samples(Dataset):
    """The samples, changed by a function."""

    def __init__(self, change):
        self.change = change

    def __len__(self):
        return len(X)

    def __getitem__(self, i):
        return self.change(X[i]), Y[i]


class Batches:
    """An iterable of batches that no sampler describes."""

    def __init__(self, draw):
        self.draw = draw

    def __iter__(self):
        rows, noise = self.draw()
        return iter([(X[r] + noise, Y[r]) for r in rows.split(7)])


class Stream(IterableDataset):
    def __init__(self, noise):
        self.noise = noise

    def __iter__(self):
        return iter([(x + self.noise * torch.randn(6), y) for x, y in zip(X, Y, strict=True)])


def loader(**options):
    return DataLoader(TensorDataset(X, Y), batch_size=16, **options)


@pytest.mark.parametrize(
    "data",
    [
        X,
        (X, Y),
        [(X, Y)],
        loader(),
        loader(shuffle=True),
        loader(shuffle=True, generator=torch.Generator().manual_seed(3)),
        loader(drop_last=True),
        DataLoader(TensorDataset(X.reshape(12, 5, 6), Y.reshape(12, 5)), batch_size=None),
        DataLoader(Samples(lambda x: x + 1), batch_size=7, shuffle=True),
        DataLoader(Stream(0), batch_size=7),
        Batches(lambda: (torch.arange(60), 0)),
        Batches(lambda: (torch.randperm(60), 0)),
    ],
    ids=lambda data: type(data).__name__,
)
def test_what_is_deterministic_passes_and_is_measured_the_same(data):
    """Whatever the order; random states of torch, NumPy and Python and of the loader's generator stay."""
    model = network().train()
    states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    checked, plain = measure(model, data, check=True), measure(model, data)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert (np.random.get_state()[1] == states[1]).all()
    assert random.getstate() == states[2]
    assert checked.to_dict() == plain.to_dict()
    assert all(module.training for module in model.modules())


@pytest.mark.parametrize(
    ("data", "options", "match"),
    [
        (loader(shuffle=True, drop_last=True), {}, r"drew \d+ of 48 samples anew the second time \(its RandomSampler\)"),
        (loader(shuffle=True), {"num_samples": 20}, r"of 20 samples anew .*num_samples=20 of a loader that shuffles"),
        (loader(sampler=RandomSampler(X, replacement=True)), {}, "of 60 samples anew"),
        (DataLoader(Samples(lambda x: x + torch.randn(6)), batch_size=7), {}, r"number 0, 1, 2, 3, 4 …\) came out .*in Samples"),
        (DataLoader(Samples(lambda x: x * random.random()), batch_size=7, shuffle=True), {}, "came out different"),
        (DataLoader(Samples(lambda x: x + np.random.rand()), batch_size=None), {}, r"number 0 …\) came out different"),
        (
            loader(collate_fn=lambda items: (torch.rand(len(items), 6), torch.tensor([y for _, y in items]))),
            {},
            "or in collate_fn",
        ),
        (DataLoader(Stream(0.1), batch_size=7), {}, "60 of 60 samples were not there"),
        (Batches(lambda: (torch.arange(60), torch.randn(6))), {}, "60 of 60 samples were not there"),
        (Batches(lambda: (torch.randperm(60)[:30], 0)), {}, r"\d+ of 30 samples were not there"),
    ],
)
def test_data_that_change_are_named(data, options, match):
    with pytest.raises(NondeterminismError, match="data is not deterministic: .*" + match):
        measure(network(), data, check=True, **options)


@pytest.mark.parametrize(
    ("body", "match"),
    [
        ((nn.Linear(6, 20), Noisy(0.1), nn.ReLU()), r"first output to differ is that of 0\.1 \(Noisy\)"),
        ((nn.Linear(6, 20), nn.ReLU(), nn.Linear(20, 20), Noisy(0.5)), r"that of 0\.3 \(Noisy\)"),
        ((nn.Linear(6, 20), Counting()), r"that of 0\.1 \(Counting\)"),
        ((Inside(),), r"that of 0\.0 \(Inside\)"),
        ((Skipping(),), "gave other features the second time. It runs"),
    ],
)
def test_a_model_that_changes_is_named_by_its_module(body, match):
    model = network(*body).train()
    with pytest.raises(NondeterminismError, match="the model is not deterministic: .*" + match):
        measure(model, loader(shuffle=True), check=True)
    assert all(module.training and not module._forward_hooks and not module._forward_pre_hooks for module in model.modules())


@pytest.mark.parametrize("body", [(nn.Linear(6, 20), nn.Dropout(0.5)), (Doubling(), nn.Linear(6, 20), nn.ReLU(inplace=True))])
def test_a_model_that_only_looks_so(body):
    """Dropout that heeds the mode; layers that write into their inputs, which are the user's."""
    model = network(*body)
    assert measure(model, loader(), check=True).to_dict() == measure(model, loader()).to_dict()


def test_without_check_nothing_is_said():
    assert measure(network(nn.Linear(6, 20), Noisy(0.1)), loader()).num_samples == 60


def test_an_iterator_can_be_used_once():
    with pytest.raises(DataError, match="check=True takes a second pass"):
        measure(network(), iter([(X, Y)]), check=True)


def test_nan_is_the_same_as_nan():
    """And is then reported as what it is."""
    with pytest.raises(DataError, match="NaN"):
        measure(network(), [(X.index_fill(0, torch.tensor([3]), float("nan")), Y)], check=True)


@pytest.mark.parametrize("options", [{}, {"layers": "all", "nc4": True, "class_balanced": True}])
def test_the_same_call_gives_the_same_bits(options):
    model = network(nn.Linear(6, 300), nn.ReLU(), nn.Linear(300, 20))
    first, second = (measure(model, loader(), **options) for _ in range(2))
    assert first.to_dict() == second.to_dict()
    np.testing.assert_array_equal(first.spectrum.eigenvectors, second.spectrum.eigenvectors)
