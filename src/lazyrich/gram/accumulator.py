"""What a Gram and a pair of feature blocks have in common: blocks of columns, summed over batches of rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from .._support.processes import Processes
from ..errors import DataError, NonFiniteError
from .checks import LARGEST_WEIGHT, checked
from .retained_rows import RowSample
from .state import TOTALS, Counts, State

T = TypeVar("T")


@dataclass(frozen=True)
class _Share:
    """What each process sends to the others before the sums are added up."""

    counts: Counts
    first_bad_batch: float
    pilot: Tensor
    retained: RowSample


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

    # --- filling -------------------------------------------------------------------------------------------------

    def _add(self, batch: dict[str, Tensor | None], weights: Tensor | None) -> None:
        """Add a batch; nothing changes if an error is raised."""
        counts = self._state.counts
        batch_number = int(counts["batches"])
        blocks = {name: x for name, x in batch.items() if x is not None}
        blocks, weights, finite = checked(blocks, weights, batch_number)
        widths = {name: x.shape[1] for name, x in blocks.items()}
        earlier = self.widths
        if earlier and widths != earlier:
            raise DataError(f"the widths of the blocks must stay the same: this batch has {widths}, the ones before it {earlier}")
        if not earlier:
            self._start(blocks)
        if finite is not None:  # the host does not wait for the result
            first = self._state.first_bad_batch
            first.copy_(torch.minimum(first, torch.where(finite.to(first.device), torch.inf, float(batch_number))))
        counts["batches"] += 1
        for name, x in blocks.items():
            eps = torch.finfo(x.dtype if x.is_floating_point() else torch.float64).eps
            position = self._names.index(name)
            counts["eps"][position] = max(counts["eps"][position], eps)
        if weights is not None:
            counts["weighted"] = True
            if bool((weights == 0).any()):
                positive = (weights > 0).nonzero().flatten()
                weights = weights[positive]
                blocks = {name: x[positive.to(x.device)] for name, x in blocks.items()}
        self._readings.clear()
        features, *others = blocks.values()
        self._state.append(features, others, weights)

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
        self._state.flush()
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
        state.retained.numbers.fill_(-1)
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
        retained = state.retained.used(torch.device("cpu"), copy=True)
        return _Share(Counts(state.counts.tensor.clone()), float(state.first_bad_batch), state.moments.pilot.cpu(), retained)

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
        return state.moments.pilot[columns] + state.moments.sum[columns] / state.weight_sum

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
        if self.count == 0:
            raise DataError("no samples: the data were empty, or every weight was zero")
        self._state.flush()
        if self._state.weight_sum < 1 / LARGEST_WEIGHT:
            raise DataError(
                f"weights sum to {self._state.weight_sum:.1e}, so their squares underflow; multiply all by a constant"
            )
        self.reading("finite", self._check_finite)
        return self._state

    def _check_finite(self) -> None:
        moments, first_bad_batch = self._state.moments, self._state.first_bad_batch
        if not bool(torch.isfinite(moments.quartic + moments.small.sum())):
            batch = "" if torch.isinf(first_bad_batch) else f" in batch {float(first_bad_batch):.0f}"
            raise NonFiniteError(
                f"{', '.join(self.widths)} hold NaN or infinity{batch}, or numbers whose fourth powers overflow; "
                "find the layer or the sample that produces them, then measure again"
            )

    def _columns(self, name: str) -> slice:
        """The columns of a block in the stack of all blocks."""
        if name not in self.widths:
            raise DataError(f"no block {name!r} was passed to update, only {list(self.widths)}")
        position, widths = self._names.index(name), self._state.counts["widths"]
        start = int(widths[:position].sum())
        return slice(start, start + int(widths[position]))
