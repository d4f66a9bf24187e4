"""Which rows of a stream are retained, from SplitMix64 in whole numbers of Python."""

import numpy as np
import pytest
import torch
from reference import splitmix

from lazyrich.gram.retained_rows import RowSample, _hash

CPU = torch.device("cpu")


def rows(numbers):
    """Rows whose features, other columns and weights follow from their numbers."""
    numbers = torch.tensor(list(numbers), dtype=torch.int64)
    x = numbers.double().unsqueeze(1)
    return RowSample(100 * x.float(), torch.cat([x, 10 * x], dim=1), x[:, 0] + 1, numbers)


def sample(capacity):
    free = rows([-1] * capacity)
    for x in (free.features, free.small, free.weights):
        x.zero_()
    return free


def test_the_hash_is_splitmix64():
    """The first three are published with the generator, for the seed 0."""
    published = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]
    numbers = [*range(100), 10**9, 2**40]
    hashes = [int(x) for x in _hash(np.array(numbers))]
    assert hashes[:3] == published
    assert hashes == [splitmix(n) for n in numbers]


@pytest.mark.parametrize("capacity", [1, 2, 7, 49, 50, 51])
@pytest.mark.parametrize("size", [1, 3, 20, 50])
def test_those_with_the_smallest_hash_are_retained(capacity, size):
    retained = sample(capacity)
    for start in range(0, 50, size):
        retained.offer(rows(range(start, min(start + size, 50))))
        seen = sorted(range(min(start + size, 50)), key=splitmix)
        assert set(retained.used(CPU).numbers.tolist()) == set(seen[:capacity])
    assert retained.count == min(capacity, 50)
    used = retained.used(CPU)
    assert used.numbers[retained.order()].tolist() == sorted(range(50), key=splitmix)[:capacity]
    for x, expected in zip(vars(used).values(), vars(rows(used.numbers.tolist())).values(), strict=True):
        assert torch.equal(x, expected)


@pytest.mark.parametrize("capacity", [100, 101, 317, 1000])
def test_of_many_rows_exactly_those(capacity):
    retained = sample(capacity)
    for start in range(0, 6000, 1500):
        retained.offer(rows(range(start, start + 1500)))
    assert set(retained.numbers.tolist()) == set(sorted(range(6000), key=splitmix)[:capacity])


def test_every_third_row_as_one_of_three_processes_has_them():
    parts = [sample(7) for _ in range(3)]
    together = sample(7)
    for rank, part in enumerate(parts):
        part.offer(rows(range(rank, 50, 3)))
        together.offer(part.used(CPU))
    assert set(together.numbers.tolist()) == set(sorted(range(50), key=splitmix)[:7])


def test_no_slots_and_no_rows():
    retained = sample(0)
    retained.offer(rows(range(5)))
    assert retained.count == 0
    retained = sample(3)
    retained.offer(rows([]))
    assert retained.count == 0
    retained.offer(rows(range(5)))
    retained.offer(rows([]))
    assert retained.count == 3


def test_a_copy_of_the_used_rows_shares_no_memory():
    retained = sample(3)
    retained.offer(rows(range(2)))
    copied, shared = retained.used(CPU, copy=True), retained.used(CPU)
    for name, x in vars(retained).items():
        x += 1
        assert torch.equal(getattr(shared, name), x[:2])
        assert not torch.equal(getattr(copied, name), x[:2])
