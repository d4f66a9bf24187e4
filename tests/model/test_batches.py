"""Batches of nested inputs: cut to the number of samples, and frozen so that nobody else holds them."""

from collections import UserDict
from dataclasses import dataclass
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from lazyrich._support.nested import tensors_in
from lazyrich.model.batches import batches, frozen


class Pair(NamedTuple):
    left: Tensor
    right: Tensor


@dataclass
class Record:
    left: Tensor
    right: Tensor


INPUTS = {
    "named tuple": Pair,
    "dataclass": Record,
    "list": lambda left, right: [left, right],
    "tuple": lambda left, right: (left, right),
    "mapping": lambda left, right: UserDict(left=left, right=right),
}


@pytest.mark.parametrize("kind", INPUTS.values(), ids=INPUTS)
class TestNestedInputs:
    def data(self, kind):
        inputs = [kind(torch.arange(4.0) + k, torch.arange(8.0).reshape(4, 2) + k) for k in range(2)]
        return [x if isinstance(x, UserDict) else (x, torch.arange(4)) for x in inputs]

    def test_a_frozen_probe_set_does_not_change_with_the_users_data(self, kind):
        data = self.data(kind)
        probe = frozen(data, 8)
        before = [x.clone() for x in tensors_in(probe)]
        for x in tensors_in(data):
            x.zero_()
        assert len(before) > 3
        assert all(torch.equal(x, y) for x, y in zip(before, tensors_in(probe), strict=True))

    def test_the_last_batch_is_cut(self, kind):
        first, last = batches(self.data(kind), None, 6)
        assert [len(x) for x in tensors_in(first.inputs)] == [4, 4]
        assert [len(x) for x in tensors_in(last.inputs)] == [2, 2]
        assert type(last.inputs) is type(first.inputs)
