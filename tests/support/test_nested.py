"""One walk over nested values: every container that models take, its type kept, nothing shared with the original."""

from collections import OrderedDict, UserDict, defaultdict
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import NamedTuple

import pytest
import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence, pack_sequence

from lazyrich._support.nested import copied, map_tensors, moved, tensors_in


class Pair(NamedTuple):
    a: Tensor
    b: object = None


@dataclass(frozen=True)
class Record:
    a: Tensor
    b: object = None
    number: int = field(default=7, init=False)


class Items(list):
    pass


class Stored(MutableMapping):
    """A mapping whose shallow copy shares its storage."""

    def __init__(self, items):
        self.store = dict(items)

    def __getitem__(self, key):
        return self.store[key]

    def __setitem__(self, key, value):
        self.store[key] = value

    def __delitem__(self, key):
        del self.store[key]

    def __iter__(self):
        return iter(self.store)

    def __len__(self):
        return len(self.store)


class Graph:
    """A batch of graphs, of which one knows that it can be moved and nothing else."""

    def __init__(self, x):
        self.x = x

    def to(self, device):
        return Graph(self.x.to(device))


def x():
    return torch.arange(3.0)


CONTAINERS = {
    "tuple": lambda: (x(), "text"),
    "list": lambda: [x(), [x()], None],
    "list subclass": lambda: Items([x()]),
    "named tuple": lambda: Pair(x(), (x(), 1)),
    "structseq": lambda: torch.max(torch.stack([x(), x()]), 1),
    "dict": lambda: {"a": x(), "b": {"c": x()}},
    "OrderedDict": lambda: OrderedDict(a=x()),
    "defaultdict": lambda: defaultdict(list, a=x()),
    "UserDict": lambda: UserDict(a=x()),
    "dataclass": lambda: Record(x(), Pair(x())),
    "packed": lambda: pack_sequence([x(), x()[:2]]),
    "grad": lambda: pack_sequence([x().requires_grad_() * 2]),
}


@pytest.mark.parametrize("make", CONTAINERS.values(), ids=CONTAINERS)
class TestEveryContainer:
    def test_it_is_copied(self, make):
        value = make()
        own = copied(value)
        assert type(own) is type(value)
        before, after = list(tensors_in(value)), list(tensors_in(own))
        assert len(before) == len(after) > 0
        for a, b in zip(before, after, strict=True):
            assert torch.equal(a, b)
            assert a.data_ptr() != b.data_ptr()
            assert not b.requires_grad

    def test_it_is_mapped_and_the_original_is_as_it_was(self, make):
        value = make()
        mapped = map_tensors(value, lambda x: x + 1)
        assert type(mapped) is type(value)
        for original, unchanged, changed in zip(tensors_in(make()), tensors_in(value), tensors_in(mapped), strict=True):
            assert torch.equal(unchanged, original)
            assert torch.equal(changed, original + 1)

    def test_it_is_moved(self, make):
        there = moved(make(), torch.device("meta"))
        tensors = [there.data] if isinstance(there, PackedSequence) else list(tensors_in(there))
        assert {x.device.type for x in tensors} == {"meta"}


def test_a_packed_sequence_moves_itself():
    assert moved(CONTAINERS["packed"](), torch.device("meta")).batch_sizes.device.type == "cpu"  # recurrent layers ask for this


def test_an_object_that_moves_itself():
    graph = Graph(x())
    assert map_tensors([graph], lambda x: x + 1)[0] is graph
    assert moved([graph], torch.device("meta"))[0].x.device.type == "meta"
    own = copied([graph])[0]
    assert torch.equal(own.x, graph.x)
    assert own.x.data_ptr() != graph.x.data_ptr()


def test_a_mapping_whose_copy_would_share_its_storage():
    value = Stored({"a": x()})
    mapped = map_tensors(value, lambda x: x + 1)
    assert torch.equal(mapped["a"], x() + 1)
    assert torch.equal(value["a"], x())
    assert isinstance(mapped, Mapping)


def test_tokenized_text_keeps_its_type():
    encoding = pytest.importorskip("transformers").BatchEncoding({"input_ids": torch.ones(2, 3)})
    own = copied(encoding)
    assert type(own) is type(encoding)
    assert own["input_ids"].data_ptr() != encoding["input_ids"].data_ptr()


def test_what_holds_no_tensors_is_returned():
    for value in (None, 1, "text", Record):
        assert map_tensors(value, torch.neg) is value
        assert list(tensors_in(value)) == []
