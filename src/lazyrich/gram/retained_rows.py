"""A uniform random subset of a stream of rows that depends only on the numbers of the rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

RETAINED_ROWS = 1024  # rows that are retained for the error bars, unless another number is asked for


@dataclass(eq=False)
class Rows:
    """Rows of the stack of blocks.

    Attributes:
        features: (m, p) the first block, in the precision of its products.
        small: (m, s) all other blocks, float64.
        weights: (m,) float64.
    """

    features: Tensor
    small: Tensor
    weights: Tensor


@dataclass(eq=False)
class RowSample(Rows):
    """Slots for the rows whose numbers have the smallest hashes.

    The choice depends neither on the sizes of the batches, nor on a random generator, nor on the number of processes, as long as
    every row keeps its number. The tensors are written in place.

    Attributes:
        numbers: (m,) int64 on the CPU, the number of the row in each slot, -1 for a free slot; the free slots come last.
    """

    numbers: Tensor

    @property
    def count(self) -> int:
        """Number of used slots."""
        return int((self.numbers.numpy() >= 0).sum())

    def used(self, device: torch.device, *, copy: bool = False) -> RowSample:
        """The rows in the used slots, moved to a device; their numbers stay on the CPU."""
        count = self.count
        features, small, weights = (x[:count].to(device, copy=copy) for x in (self.features, self.small, self.weights))
        return RowSample(features, small, weights, self.numbers[:count].to("cpu", copy=copy))

    def offer(self, rows: RowSample) -> None:
        """Copy those of the rows that belong to the sample into slots."""
        numbers, new_numbers = self.numbers.numpy(), rows.numbers.numpy()
        capacity, count = len(numbers), self.count
        if not capacity or not len(new_numbers):
            return
        entering, leaving = np.arange(len(new_numbers)), np.arange(0)
        if count + len(new_numbers) > capacity:
            hashes = np.concatenate([_hash(numbers[:count]), _hash(new_numbers)])
            chosen = np.zeros(len(hashes), dtype=bool)
            chosen[np.argpartition(hashes, capacity - 1)[:capacity]] = True
            entering, leaving = chosen[count:].nonzero()[0], (~chosen[:count]).nonzero()[0]
        if not len(entering):
            return
        slots = np.concatenate([leaving, np.arange(count, capacity)])[: len(entering)]
        numbers[slots] = new_numbers[entering]
        device = self.features.device
        slots, entering = (torch.from_numpy(index).to(device, non_blocking=True) for index in (slots, entering))
        self.features.index_copy_(0, slots, rows.features.index_select(0, entering))
        self.small.index_copy_(0, slots, rows.small.index_select(0, entering))
        self.weights.index_copy_(0, slots, rows.weights.index_select(0, entering))

    def order(self) -> Tensor:
        """(count,) the used slots in the order of their hashes; the first k of them are a uniform subset too, for every k."""
        hashes = _hash(self.numbers.numpy()[: self.count])
        return torch.from_numpy(np.argsort(hashes, kind="stable")).to(self.features.device)


def _hash(numbers: np.ndarray) -> np.ndarray:
    """SplitMix64 (Steele, Lea, Flood 2014): spreads consecutive numbers evenly over 64 bits."""
    x = (numbers.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
