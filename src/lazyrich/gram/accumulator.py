"""What a Gram and a pair of feature blocks have in common: blocks of columns, summed over batches of rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from .._support.processes import Processes
from ..errors import DataError, NonFiniteError
from .checks import LARGEST_WEIGHT, checked
from .moments import PART_ROWS
from .retained_rows import RetainedRows, RowSample
from .state import TOTALS, Counts, State, append, flush

T = TypeVar("T")


@dataclass(frozen=True)
class _Share:
    """What each process sends to the others before the sums are added up."""

    counts: Counts
    first_bad_batch: float
    pilot: Tensor
    strata_rows: Tensor
    retained: RowSample


@dataclass(frozen=True)
class _Checked:
    """A batch that may be added."""

    blocks: dict[str, Tensor]
    weights: Tensor | None
    finite: Tensor | None


class Accumulator:
    """Means and second moments of named blocks of columns, summed over batches of rows.

    Args:
        names: of the blocks, at most three. Products of the first block with itself are formed in its own precision, all other
            products in float64.
        state: what was seen before.
    """

    def __init__(self, names: tuple[str, ...], state: State) -> None:
        self._names = names
        self._state = state
        self._readings: dict[str, Any] = {}
        self._together: list[Accumulator] = [self]

    # --- filling -------------------------------------------------------------------------------------------------

    def fill_together(self, *others: Accumulator) -> None:
        """From now on this and the others are filled by :func:`update_together`, and retain the same rows.

        Raises:
            DataError: one of them has seen rows.
        """
        together = [self, *others]
        if any(one.count for one in together):
            raise DataError("what is filled together must be empty at the start")
        for one in together:
            one._together = together

    def _add(
        self,
        batch: Mapping[str, Tensor | None],
        weights: Tensor | None,
        strata: Tensor | None = None,
        numbers: Tensor | None = None,
    ) -> None:
        """Add a batch; nothing changes if an error is raised."""
        if len(self._together) > 1:
            raise DataError("this is filled together with others: pass the rows of all of them to update_together")
        _add_together([self], [batch], weights, strata, numbers)

    def _checked(self, batch: Mapping[str, Tensor | None], weights: Tensor | None, strata: Tensor | None) -> _Checked:
        blocks = {name: x for name, x in batch.items() if x is not None}
        blocks, weights, finite = checked(blocks, weights, int(self._state.counts["batches"]))
        widths, earlier = {name: x.shape[1] for name, x in blocks.items()}, self.widths
        if earlier and widths != earlier:
            raise DataError(f"the widths of the blocks must stay the same: this batch has {widths}, the ones before it {earlier}")
        known = len(self._state.strata_rows)
        if (strata is None) != (known == 0):
            raise DataError(f"strata must be passed with every batch of a Gram of strata and with no other; it has {known}")
        return _Checked(blocks, weights, finite)

    def _noted(self, batch: _Checked) -> None:
        """Make room for the blocks, and note what is known of them."""
        if not self.widths:
            self._start(batch.blocks)
        counts = self._state.counts
        if batch.finite is not None:  # the host does not wait for the result
            first, number = self._state.first_bad_batch, float(counts["batches"])
            first.copy_(torch.minimum(first, torch.where(batch.finite.to(first.device), torch.inf, number)))
        counts["batches"] += 1
        for name, x in batch.blocks.items():
            eps = torch.finfo(x.dtype if x.is_floating_point() else torch.float64).eps
            position = self._names.index(name)
            counts["eps"][position] = max(counts["eps"][position], eps)
        counts["weighted"] = bool(counts["weighted"]) or batch.weights is not None
        self._readings.clear()

    def _flush(self) -> None:
        flush([one._state for one in self._together])

    def _start(self, blocks: dict[str, Tensor]) -> None:
        device = blocks[self._names[0]].device
        device = torch.device("cpu") if device.type == "mps" else device  # mps has no float64
        double = any(x.dtype == torch.float64 for name, x in blocks.items() if name != "targets")
        widths = [blocks[name].shape[1] if name in blocks else 0 for name in self._names]
        self._state = self._state.with_blocks(widths, torch.float64 if double else torch.float32, device)

    def reduce(self, processes: Processes) -> None:
        """Become, on every process, the sum of what all processes have seen.

        The processes exchange their pilot means and retained rows, move their sums to one pilot mean, and add them up.

        Raises:
            DataError: on every process, if their blocks or dtypes do not match.
        """
        self._readings.clear()
        self._flush()
        shares = [share for share in processes.gather(self._share()) if share is not None]
        if not shares or not processes.together:
            return
        first, of_each = shares[0], [share.counts for share in shares]
        for share in shares:
            if not np.array_equal(share.counts["widths"], first.counts["widths"]):
                one, other = (self._by_name(counts["widths"]) for counts in (first.counts, share.counts))
                raise DataError(f"the processes disagree on the widths of the blocks: {one} and {other}")
            if share.retained.features.dtype != first.retained.features.dtype:
                raise DataError("the processes disagree on the dtype of the features: single and double precision")
        if not self.count:
            widths = [int(width) for width in first.counts["widths"]]
            self._state = self._state.with_blocks(widths, first.retained.features.dtype, self._state.device)
        state, counts = self._state, self._state.counts
        for name, value in state.about(first.pilot).items():
            processes.add(value)
            getattr(state.moments, name).copy_(value)
        state.moments.pilot.copy_(first.pilot)
        state.strata_rows.copy_(torch.stack([share.strata_rows for share in shares]).sum(0))
        state.retained.clear()
        for share in shares:
            state.retained.offer(share.retained.used(state.device))
        state.first_bad_batch.fill_(min(share.first_bad_batch for share in shares))
        counts["eps"][:] = np.max([n["eps"] for n in of_each], axis=0)
        counts["weighted"] = max(n["weighted"] for n in of_each)
        for name in TOTALS:
            counts[name] = sum(n[name] for n in of_each)

    def _share(self) -> _Share | None:
        state = self._state
        if not self.count:
            return None
        retained, counts = state.retained.used(torch.device("cpu")), Counts(state.counts.tensor.clone())
        return _Share(counts, float(state.first_bad_batch), state.moments.pilot.cpu(), state.strata_rows.cpu(), retained)

    # --- reading -------------------------------------------------------------------------------------------------

    @property
    def count(self) -> int:
        """Number of rows with a positive weight."""
        return int(self._state.counts["num_rows"] + self._state.counts["pending_rows"])

    @property
    def effective_count(self) -> float:
        """Kish's effective sample size (Σ w)²/Σ w²; it equals the count if all weights are equal."""
        state = self._ready()
        return state.weight_sum**2 / state.squared_weight_sum

    @property
    def weight_sum(self) -> float:
        """Σ w over all rows."""
        return self._ready().weight_sum

    @property
    def uniform(self) -> bool:
        """Whether no batch came with weights."""
        return self._state.uniform

    @property
    def retain(self) -> int:
        """The largest number of rows that are retained."""
        return len(self._state.retained.sizes)

    @property
    def widths(self) -> dict[str, int]:
        """Number of columns of each block, by name."""
        return self._by_name(self._state.counts["widths"])

    def _by_name(self, widths: np.ndarray) -> dict[str, int]:
        return {name: int(width) for name, width in zip(self._names, widths, strict=False) if width}

    def eps(self, name: str) -> float:
        """Rounding unit of a block: that of the coarsest precision seen."""
        return float(self._state.counts["eps"][self._names.index(name)])

    @property
    def product_eps(self) -> float:
        """Rounding unit of the products of the first block with itself."""
        return torch.finfo(self._state.pending.features.dtype).eps

    def mean(self, name: str) -> Tensor:
        """(width,) weighted mean of a block, float64."""
        state, columns = self._ready(), self._columns(name)
        moments = state.moments
        mean = self.reading(f"mean of {name}", lambda: moments.pilot[columns] + moments.sum[columns] / state.weight_sum)
        return mean.clone()  # because the caller may write into it

    def retained(self, unit: float = 1.0) -> RetainedRows:
        """The retained rows, in descending order of their priorities; those of the first block are multiplied by ``unit``."""
        first, state = self._names[0], self._ready()
        mean, sample = self.mean(first), state.retained.used(state.device)
        for part in sample.features.split(PART_ROWS):
            part.copy_(part.double().sub_(mean).mul_(unit))
        blocks, p = {first: sample.features}, len(mean)
        for name in list(self.widths)[1:]:
            columns = self._columns(name)
            blocks[name] = sample.small[:, columns.start - p : columns.stop - p]
        return RetainedRows(blocks, sample.weights / state.weight_sum, sample, int(state.counts["num_rows"]))

    @property
    def strata_rows(self) -> Tensor:
        """(strata,) float64, number of rows of each stratum; empty if there is one."""
        return self._ready().strata_rows

    def block(self, first: str, second: str, *, centered: bool = False) -> Tensor:
        """Weighted second moment ⟨first|second⟩ of two blocks, (width, width) float64; with ``centered`` their covariance.

        Covariances are kept until more rows come: do not write into them.
        """
        state, rows, columns = self._ready(), self._columns(first), self._columns(second)
        covariance = self.reading(
            f"covariance of {first} and {second}", lambda: state.moments.covariance(rows, columns, state.weight_sum)
        )
        return covariance if centered else torch.addr(covariance, self.mean(first), self.mean(second))

    def reading(self, name: str, compute: Callable[[], T]) -> T:
        """The value that was kept under this name, or the value of ``compute``, which is then kept until more rows come.

        So a decomposition that several measures need is computed once. Do not write into the value.
        """
        if name not in self._readings:
            with torch.inference_mode(False):  # what is kept may be used with gradients later
                self._readings[name] = compute()
        return self._readings[name]

    def _ready(self) -> State:
        """The state with all rows summed.

        Raises:
            DataError: no rows.
            NonFiniteError: the sums are not finite.
        """
        self.reading("sums", self._sum_and_check)
        return self._state

    def _sum_and_check(self) -> None:
        if self.count == 0:
            raise DataError("no samples: the data were empty, or every weight was zero")
        self._flush()
        if self._state.weight_sum < 1 / LARGEST_WEIGHT:
            raise DataError(
                f"weights sum to {self._state.weight_sum:.1e}, so their squares underflow; multiply all by a constant"
            )
        moments, first_bad_batch = self._state.moments, self._state.first_bad_batch
        if not bool(torch.isfinite(moments.quartic + moments.small.sum())):
            batch = "" if torch.isinf(first_bad_batch) else f" in batch {float(first_bad_batch):.0f}"
            raise NonFiniteError(
                f"{', '.join(self.widths)} hold NaN or infinity{batch}, or numbers whose fourth powers overflow; "
                "find the layer or the sample that produces them, then measure again"
            )

    def _columns(self, name: str) -> slice:
        """The columns of a block in the stack of all blocks."""
        columns = self.reading("columns", self._all_columns)
        if name not in columns:
            raise DataError(f"no block {name!r} was passed to update, only {list(columns)}")
        return columns[name]

    def _all_columns(self) -> dict[str, slice]:
        widths = self.widths
        return {name: slice(end - widths[name], end) for name, end in zip(widths, accumulate(widths.values()), strict=True)}


def update_together(
    sums: Sequence[Accumulator],
    batches: Sequence[Mapping[str, Tensor | None]],
    weights: Tensor | None = None,
    strata: Tensor | None = None,
    numbers: Tensor | None = None,
) -> None:
    """Add a batch to accumulators that are filled together (see :meth:`Accumulator.fill_together`), in their order.

    Args:
        batches: for each of them its blocks by name, with the same number of rows.
        weights: (n,) not negative, of any scale.
        strata, numbers: (n,) int64, as for :meth:`lazyrich.Gram.update`.

    Raises:
        DataError, NonFiniteError, TypeError: as for :meth:`lazyrich.Gram.update`; nothing changes then.
    """
    if list(sums) != sums[0]._together:
        raise DataError("call fill_together once, with the same accumulators in the same order")
    if len({len(x) for batch in batches for x in batch.values() if x is not None}) > 1:
        raise DataError("all blocks must have the same number of rows")
    _add_together(sums, batches, weights, strata, numbers)


def _add_together(
    sums: Sequence[Accumulator],
    batches: Sequence[Mapping[str, Tensor | None]],
    weights: Tensor | None,
    strata: Tensor | None,
    numbers: Tensor | None,
) -> None:
    every = [one._checked(batch, weights, strata) for one, batch in zip(sums, batches, strict=True)]
    for one, batch in zip(sums, every, strict=True):
        one._noted(batch)
    weights, rows = every[0].weights, [list(batch.blocks.values()) for batch in every]
    if weights is not None and bool((weights == 0).any()):
        positive = (weights > 0).nonzero().flatten()
        weights, rows = weights[positive], [[x[positive.to(x.device)] for x in blocks] for blocks in rows]
        strata, numbers = (None if x is None else x[positive.to(x.device)] for x in (strata, numbers))
    append([one._state for one in sums], rows, weights, strata, numbers)
