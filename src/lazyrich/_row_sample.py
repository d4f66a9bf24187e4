"""A uniform random subset of a stream of rows, which depends on the rows' numbers alone."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


class RowSample:
    """Keeps the ``capacity`` rows whose number has the smallest hash.

    Neither batch sizes nor a random generator nor the number of processes matter, as long as every row keeps its number.
    """

    def __init__(self, capacity: int, rows: tuple[Tensor, ...], numbers: np.ndarray) -> None:
        self.capacity = capacity
        self.rows = rows  # each (m, …), aligned
        self.numbers = numbers  # (m,) int64

    def offer(self, rows: tuple[Tensor, ...], numbers: np.ndarray) -> None:
        """Shows more rows; they are copied where they are kept."""
        if not self.capacity:
            return
        held = len(self.numbers)
        everything = np.concatenate([self.numbers, numbers])
        if len(everything) > self.capacity:
            chosen = np.sort(np.argpartition(_hash(everything), self.capacity - 1)[: self.capacity])
        else:
            chosen = np.arange(len(everything))
        coming = chosen[chosen >= held]
        if not len(coming):
            return
        device = self.rows[0].device
        index = torch.from_numpy(coming - held).to(device)
        if held < self.capacity:
            staying = torch.from_numpy(chosen[chosen < held]).to(device)
            self.rows = tuple(torch.cat([old[staying], new[index]]) for old, new in zip(self.rows, rows, strict=True))
            self.numbers = everything[chosen]
        else:  # as many leave as come: write in place
            leaving = np.setdiff1d(np.arange(held), chosen[chosen < held], assume_unique=True)
            place = torch.from_numpy(leaving).to(device)
            for old, new in zip(self.rows, rows, strict=True):
                old.index_copy_(0, place, new[index])
            self.numbers[leaving] = everything[coming]

    def order(self) -> Tensor:
        """(m,) the order of the hash, of which any first part is a uniform subset too."""
        return torch.from_numpy(np.argsort(_hash(self.numbers), kind="stable")).to(self.rows[0].device)


def _hash(numbers: np.ndarray) -> np.ndarray:
    """SplitMix64 (Steele, Lea, Flood 2014): spreads consecutive numbers evenly over 64 bits."""
    x = (numbers.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
