"""Probe sets: counted by the rows that the head answers with, and held by nobody else."""

from collections import UserDict
from dataclasses import dataclass
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_sequence

from lazyrich import DataError
from lazyrich._support.nested import tensors_in
from lazyrich._support.processes import Processes
from lazyrich.measurement.one_pass import OnePass
from lazyrich.measurement.probe import probe_set


class Pair(NamedTuple):
    left: Tensor
    right: Tensor


@dataclass
class Record:
    left: Tensor
    right: Tensor


class Both(nn.Module):
    """Takes two tensors in whatever holds them."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(3, 2)

    def forward(self, *inputs, **named):
        left, right = tensors_in([inputs, named])
        return self.head(torch.cat([left.unsqueeze(1), right], 1))


INPUTS = {
    "named tuple": Pair,
    "dataclass": Record,
    "tuple": lambda left, right: (left, right),
    "mapping": lambda left, right: UserDict(left=left, right=right),
}


@pytest.fixture(autouse=True)
def no_grad():
    with torch.no_grad():
        yield


def drawn(model, data, num_samples):
    return probe_set(OnePass(model.eval(), data, torch.device("cpu"), Processes(False)), num_samples)


@pytest.mark.parametrize("kind", INPUTS.values(), ids=INPUTS)
class TestNestedInputs:
    def data(self, kind):
        inputs = [kind(torch.arange(4.0) + k, torch.arange(8.0).reshape(4, 2) + k) for k in range(2)]
        return [x if isinstance(x, UserDict) else (x, torch.arange(4) % 2) for x in inputs]

    def test_it_does_not_change_with_the_users_data(self, kind):
        data = self.data(kind)
        probe = drawn(Both(), data, 8).batches
        before = [x.clone() for x in tensors_in(probe)]
        for x in tensors_in(data):
            x.zero_()
        assert len(before) > 3
        assert all(torch.equal(x, y) for x, y in zip(before, tensors_in(probe), strict=True))

    def test_the_last_batch_is_cut(self, kind):
        data = self.data(kind)
        probe = drawn(Both(), data, 6)
        assert (probe.samples, probe.limit) == (6, None)
        assert [len(x) for x in tensors_in(probe.batches[0])] == [len(x) for x in tensors_in(data[0])]
        assert {len(x) for x in tensors_in(probe.batches[1])} == {2}
        assert type(probe.batches[1]) is type(data[1])


class Recurrent(nn.Module):
    """PyTorch's default layout: time first."""

    def __init__(self):
        super().__init__()
        self.body, self.head = nn.GRU(4, 16), nn.Linear(16, 3)

    def forward(self, x):
        return self.head(self.body(x)[1][-1])


def test_what_cannot_be_cut_stays_complete_and_says_where_to_stop():
    data = [torch.randn(20, 8, 4) for _ in range(4)]
    probe = drawn(Recurrent(), data, 20)
    assert (probe.samples, probe.limit, len(probe.batches)) == (20, 20, 3)
    assert all(torch.equal(x, y) for x, y in zip(probe.batches, data, strict=False))
    packed = [pack_sequence([torch.randn(length, 4) for length in (9, 7, 5)]) for _ in range(4)]
    probe = drawn(Recurrent(), [(x, None) for x in packed], 7)
    assert (probe.samples, probe.limit, len(probe.batches)) == (7, 7, 3)


def test_a_time_dimension_of_the_same_size_is_not_cut():
    """Eight steps of eight samples: cutting the first dimension would cut time, and the rows show it."""
    probe = drawn(Recurrent(), [torch.randn(8, 8, 4)], 5)
    assert (probe.samples, probe.limit) == (5, 5)
    assert probe.batches[0].shape == (8, 8, 4)


def test_nothing():
    with pytest.raises(DataError, match="no samples to keep as a probe set"):
        drawn(Both(), [], 5)
