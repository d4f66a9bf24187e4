"""Which rows of a stream are kept, from SplitMix64 in whole numbers of Python."""

import numpy as np
import pytest
import torch
from reference import splitmix

from lazyrich.gram.retained_rows import RowSample, _hash

MASK = 2**64 - 1


def sample(capacity):
    storage = torch.zeros(capacity, 2, dtype=torch.float64), torch.zeros(capacity)
    return RowSample(storage, torch.zeros(capacity, dtype=torch.int64))


def offer(kept, numbers):
    numbers = np.array(numbers, dtype=np.int64)
    rows = torch.from_numpy(numbers).double()
    kept.offer((torch.stack([rows, 10 * rows], dim=1), (100 * rows).float()), numbers)


def test_the_hash_is_splitmix64():
    """The first three are published with the generator, for the seed 0."""
    published = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]
    numbers = [*range(100), 10**9, 2**40]
    found = [int(x) for x in _hash(np.array(numbers))]
    assert found[:3] == published
    assert found == [splitmix(n) for n in numbers]


@pytest.mark.parametrize("capacity", [1, 2, 7, 49, 50, 51])
@pytest.mark.parametrize("size", [1, 3, 20, 50])
def test_those_with_the_smallest_hash_are_kept(capacity, size):
    kept = sample(capacity)
    for start in range(0, 50, size):
        offer(kept, range(start, min(start + size, 50)))
        seen = sorted(range(min(start + size, 50)), key=splitmix)
        assert set(kept.numbers.tolist()) == set(seen[:capacity])
    assert kept.count == min(capacity, 50)
    order = kept.order()
    assert kept.numbers[order.numpy()].tolist() == sorted(range(50), key=splitmix)[:capacity]
    numbers = torch.from_numpy(kept.numbers).double()
    pairs, single = kept.rows
    assert torch.equal(pairs, torch.stack([numbers, 10 * numbers], dim=1))
    assert torch.equal(single, 100 * numbers.float())


@pytest.mark.parametrize("capacity", [100, 101, 317, 1000])
def test_of_many_rows_exactly_those(capacity):
    kept = sample(capacity)
    for start in range(0, 6000, 1500):
        offer(kept, range(start, start + 1500))
    assert set(kept.numbers.tolist()) == set(sorted(range(6000), key=splitmix)[:capacity])


def test_every_third_row_as_one_of_three_processes_has_them():
    parts = [sample(7) for _ in range(3)]
    together = sample(7)
    for rank, part in enumerate(parts):
        offer(part, range(rank, 50, 3))
        together.offer(part.rows, part.numbers)
    assert set(together.numbers.tolist()) == set(sorted(range(50), key=splitmix)[:7])


def test_nothing_kept_and_nothing_offered():
    kept = sample(0)
    offer(kept, range(5))
    assert kept.count == 0
    kept = sample(3)
    offer(kept, [])
    assert kept.count == 0
    offer(kept, range(5))
    offer(kept, [])
    assert kept.count == 3
