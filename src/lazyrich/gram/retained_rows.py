"""Rows that are retained for the error bars: a random sample in which large rows are surely contained.

Every row has a *size*, and a random number u in (0, 1] from its *key*, a hash. The rows of the largest *priority*, size/u,
are retained, and the largest priority that was turned away is the threshold τ. A row of size z is then retained with probability
min(1, z/τ), and sums over all rows are estimated without bias from the retained ones (priority sampling; Duffield, Lund, Thorup
2007, J. ACM 54). Neither the order of the rows nor their batches or processes matter, and two samples merge into one.

The key is a hash of the row's content, or of a number that identifies the row. Two samples of the same rows with the same keys
and other sizes share their u, so that they have most rows in common: a row is in both with the smaller of its probabilities.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields

import torch
from torch import Tensor

RETAINED_ROWS = 1024  # rows that are retained for the error bars, unless another number is asked for
_CONTENT = 8  # columns of each block that the hash of a row is taken of
_DIGITS = 2**12  # to which they are rounded, because the last bits depend on the size of the batch that a network sees


@dataclass(eq=False)
class Rows:
    """Rows of the stack of blocks.

    Attributes:
        features: (m, p) the first block, in the precision of its products.
        small: (m, s) all other blocks, float64.
        weights: (m,) float64.
        strata: (m,) int64, the stratum that each row was drawn from; 0 where there is one.
        keys: (m,) int64, the identity of each row.
    """

    features: Tensor
    small: Tensor
    weights: Tensor
    strata: Tensor
    keys: Tensor


@dataclass(eq=False)
class RowSample(Rows):
    """Slots for the rows of the largest priority. The tensors are written in place.

    Attributes:
        sizes: (m,) float64, positive; 0 for a free slot.
        priorities: (m,) float64, size / u; 0 for a free slot.
        threshold: 0-d float64, the largest priority that was turned away; 0 while every row was retained.
    """

    sizes: Tensor
    priorities: Tensor
    threshold: Tensor

    @property
    def count(self) -> int:
        """Number of used slots."""
        return int((self.sizes > 0).sum())

    def used(self, device: torch.device) -> RowSample:
        """A copy of the used slots on a device, in descending order of their priorities."""
        order = self.priorities.argsort(descending=True, stable=True)[: self.count]
        slots = {f.name: getattr(self, f.name) for f in fields(self)}
        return RowSample(**{name: x.to(device, copy=True) if x.ndim == 0 else x[order].to(device) for name, x in slots.items()})

    def clear(self) -> None:
        """Frees all slots."""
        for x in (self.sizes, self.priorities, self.threshold):
            x.zero_()

    def offer(self, rows: RowSample, restored: Callable[[Tensor], Tensor] = lambda x: x) -> None:
        """Copy those of the rows that belong to the sample into slots.

        Args:
            rows: all rows of a batch, with a threshold of 0; or another sample, with its threshold.
            restored: is applied to those features that are copied.
        """
        capacity = len(self.sizes)
        if not capacity or not len(rows.sizes):
            return
        priorities = torch.cat([self.priorities, rows.priorities])
        most = priorities.topk(min(capacity + 1, len(priorities)))
        self.threshold.copy_(torch.maximum(self.threshold, rows.threshold))
        if len(most.values) > capacity:
            self.threshold.copy_(torch.maximum(self.threshold, most.values[capacity]))
        if self.features.device.type == "cpu":
            self._replace(rows, priorities > self.threshold, restored)
        else:
            self._gather(rows, most.indices[:capacity], restored)

    def _replace(self, rows: RowSample, stays: Tensor, restored: Callable[[Tensor], Tensor]) -> None:
        """Writes the rows that enter over those that leave: few are copied."""
        capacity = len(self.sizes)
        mask = stays.numpy()
        free, entering = (torch.from_numpy(index) for index in ((~mask[:capacity]).nonzero()[0], mask[capacity:].nonzero()[0]))
        slots = free[: len(entering)]
        self.sizes[free], self.priorities[free] = 0.0, 0.0
        for f in fields(self):
            mine, theirs = getattr(self, f.name), getattr(rows, f.name)
            if mine.ndim:
                new = theirs.index_select(0, entering)
                mine.index_copy_(0, slots, restored(new) if f.name == "features" else new)

    def _gather(self, rows: RowSample, chosen: Tensor, restored: Callable[[Tensor], Tensor]) -> None:
        """The same by shapes that do not depend on the values, so that the host does not wait for an accelerator."""
        for f in fields(self):
            mine, theirs = getattr(self, f.name), getattr(rows, f.name)
            if mine.ndim:
                theirs = restored(theirs) if f.name == "features" else theirs
                mine[: len(chosen)] = torch.cat([mine, theirs])[chosen]
        below = self.priorities <= self.threshold
        self.sizes.masked_fill_(below, 0.0)
        self.priorities.masked_fill_(below, 0.0)

    def first(self, count: int) -> RowSample:
        """The first of the rows of :meth:`used`, which are a sample of the same kind; the next one gives the threshold."""
        slots = {f.name: getattr(self, f.name) for f in fields(self)}
        first = RowSample(**{name: x if x.ndim == 0 else x[:count] for name, x in slots.items()})
        if count < len(self.priorities):
            first.threshold = torch.maximum(self.threshold, self.priorities[count])
        return first

    def inclusion(self) -> Tensor:
        """(m,) with which probability each of the rows of :meth:`used` was retained."""
        return (self.sizes / self.threshold).nan_to_num(posinf=1.0).clamp_max(1.0)


@dataclass(frozen=True)
class RetainedRows:
    """A sample of rows that stands for all.

    Attributes:
        blocks: (m, width) by name. Features are measured from their mean, in the precision of their products. All other blocks
            are float64.
        weights: (m,) scaled such that those of all rows, retained or not, sum to one.
        sample: how the rows were drawn.
        num_rows: number of all rows.
    """

    blocks: dict[str, Tensor]
    weights: Tensor
    sample: RowSample
    num_rows: int

    @property
    def strata(self) -> Tensor:
        """(m,) int64, the stratum of each row."""
        return self.sample.strata

    @property
    def stands_for(self) -> Tensor:
        """(m,) for how many rows each stands: a sum over all rows is estimated by that of the retained rows, times this.

        It is the inverse of the probability to be retained; where that is below 1, such that all add up to the number of rows.
        """
        return adding_up_to(self.num_rows, 1 / self.sample.inclusion())

    def first(self, count: int) -> RetainedRows:
        """The first rows, which are a sample of the same kind."""
        blocks = {name: x[:count] for name, x in self.blocks.items()}
        return RetainedRows(blocks, self.weights[:count], self.sample.first(count), self.num_rows)


def adding_up_to(total: float, stands_for: Tensor) -> Tensor:
    """(m,) the same where it is 1, because the row is surely retained; the others are scaled, so that all add up to a total."""
    surely = stands_for <= 1
    others = torch.where(surely, 0.0, stands_for)
    return torch.where(surely, 1.0, others * ((total - surely.sum()) / others.sum()))


def uniforms(keys: Tensor) -> Tensor:
    """(m,) float64 in (0, 1] from the keys, which are hashes."""
    return ((keys >> 11) & (2**53 - 1)).double().add_(1.0).mul_(2.0**-53)


def number_keys(numbers: Tensor) -> Tensor:
    """(m,) int64: a hash of each number, which differs where the numbers differ; 0 for 0."""
    return _mixed(numbers)


def content_keys(*blocks: Tensor, seen: int = 0) -> Tensor:
    """(m,) int64: a hash of the rounded content of each row, from a few columns of each (m, width) block.

    Rows of the same content among these get different keys, because otherwise all of them would be retained or none. Which one
    gets which does not matter, because they are equal.

    Args:
        seen: how many rows came before, so that equal rows of other blocks get other keys too.
    """
    few = torch.cat([_few_columns(x) for x in blocks], dim=1)
    mantissa, exponent = torch.frexp(few)
    words = (mantissa * _DIGITS).round_().long().add_(exponent, alpha=4 * _DIGITS)
    odd = 2 * _mixed(torch.arange(1, few.shape[1] + 1, device=few.device)) + 1
    return _distinguished(_mixed(words.mul_(odd).sum(1)), seen)


def _few_columns(x: Tensor) -> Tensor:
    return x[:, :: max(1, -(-x.shape[1] // _CONTENT))].double()


def _distinguished(hashes: Tensor, seen: int) -> Tensor:
    """The same where they differ; other ones where they are equal. No shape depends on the values."""
    ordered, order = hashes.sort(stable=True)
    inner = ordered[1:] == ordered[:-1]
    if hashes.device.type == "cpu" and not inner.numpy().any():
        return hashes
    no = inner.new_zeros(1)
    again, index = torch.cat([no, inner]), torch.arange(len(hashes), device=hashes.device)
    place = index - torch.where(again, 0, index).cummax(0).values  # among those that are equal
    salt = torch.where(again | torch.cat([inner, no]), place + seen + 1, 0)
    return torch.empty_like(hashes).scatter_(0, order, torch.where(salt > 0, _mixed(ordered + salt), ordered))


def _mixed(x: Tensor) -> Tensor:
    """SplitMix64 (Steele, Lea, Flood 2014): spreads whole numbers evenly over 64 bits."""
    x = x * -0x61C8864680B583EB  # 0x9E3779B97F4A7C15 as a signed number
    x = (x ^ ((x >> 30) & (2**34 - 1))) * -0x40A7B892E31B1A47  # 0xBF58476D1CE4E5B9
    x = (x ^ ((x >> 27) & (2**37 - 1))) * -0x6B2FB644ECCEEE15  # 0x94D049BB133111EB
    return x ^ ((x >> 31) & (2**33 - 1))
