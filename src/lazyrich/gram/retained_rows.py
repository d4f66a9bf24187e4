"""A uniform random subset of a stream of rows, which depends on the rows' numbers alone."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

RETAINED_ROWS = 1024  # rows that are retained for the error bars, unless another number is asked for


class RowSample:
    """Keeps the rows whose number has the smallest hash, as many as its storage has room for.

    Neither batch sizes nor a random generator nor the number of processes matter, as long as every row keeps its number.

    Args:
        rows: storage, each (capacity, …); written in place.
        numbers: (capacity,) int64 on the CPU, the numbers of the rows; written in place.
        count: how many rows are held.
    """

    def __init__(self, rows: tuple[Tensor, ...], numbers: Tensor, count: int = 0) -> None:
        self.storage, self._numbers, self.count = rows, numbers, count

    @property
    def rows(self) -> tuple[Tensor, ...]:
        """What is held, each (count, …)."""
        return tuple(x[: self.count] for x in self.storage)

    @property
    def numbers(self) -> np.ndarray:
        """(count,) the numbers of the rows."""
        return self._numbers.numpy()[: self.count]

    def offer(self, rows: tuple[Tensor, ...], numbers: np.ndarray) -> None:
        """Shows more rows; they are copied where they are kept."""
        capacity, held = len(self._numbers), self.count
        if not capacity or not len(numbers):
            return
        coming, leaving = np.arange(len(numbers)), np.arange(0)
        if held + len(numbers) > capacity:
            hashes = np.concatenate([_hash(self.numbers), _hash(numbers)])
            kept = np.zeros(len(hashes), dtype=bool)
            kept[np.argpartition(hashes, capacity - 1)[:capacity]] = True
            coming, leaving = kept[held:].nonzero()[0], (~kept[:held]).nonzero()[0]
        if not len(coming):
            return
        slots = np.concatenate([leaving, np.arange(held, capacity)])[: len(coming)]
        self._numbers.numpy()[slots] = numbers[coming]
        self.count = min(capacity, held + len(numbers))
        device = self.storage[0].device
        place, taken = (torch.from_numpy(i).to(device, non_blocking=True) for i in (slots, coming))
        for old, new in zip(self.storage, rows, strict=True):
            old.index_copy_(0, place, new.index_select(0, taken))

    def order(self) -> Tensor:
        """(count,) the order of the hash, of which any first part is a uniform subset too."""
        return torch.from_numpy(np.argsort(_hash(self.numbers), kind="stable")).to(self.storage[0].device)


def _hash(numbers: np.ndarray) -> np.ndarray:
    """SplitMix64 (Steele, Lea, Flood 2014): spreads consecutive numbers evenly over 64 bits."""
    x = (numbers.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
