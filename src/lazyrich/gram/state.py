"""The state of an accumulator: everything it has seen, as named tensors that are written in place.

States that see the same rows side by side are filled together, and then retain the same rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import partial
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from ..errors import DataError
from .moments import Moments
from .retained_rows import Rows, RowSample, content_keys, number_keys, uniforms

BLOCK_ROWS = 1024  # rows that are summed at a time
ON_CPU = ("counts", "pending_weights")  # on the CPU whatever the device of the rows
_LARGEST_SIZE = 1e150  # of a row, so that priorities stay finite
TOTALS = ("num_rows", "batches", "weight_sum", "squared_weight_sum")  # the counts that add up when two states are merged
Part = TypeVar("Part", Moments, Rows, RowSample)


class Counts:
    """Plain numbers by name. They are entries of one tensor, so that a copy of the tensor is a copy of them all.

    They are ``num_outputs``, 0 if it is the width of the outputs; ``no_head_bias``, 1 if the outputs are linear in the features
    without a bias; ``pending_rows``; ``weighted``, 0 while all weights are one;
    of the summed rows ``num_rows``, ``weight_sum`` and ``squared_weight_sum``, Σ w and Σ w²; ``batches``; ``widths`` and ``eps``,
    one for each block.
    """

    SINGLE = ("num_outputs", "no_head_bias", "pending_rows", "weighted", *TOTALS)
    DTYPE = np.dtype([*((name, "f8") for name in SINGLE), ("widths", "f8", 3), ("eps", "f8", 3)])
    LENGTH = DTYPE.itemsize // 8

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor
        self._entries: Any = tensor.numpy().view(Counts.DTYPE)[0]

    def __reduce__(self) -> tuple[type[Counts], tuple[Tensor]]:
        return Counts, (self.tensor,)  # a copy of the entries would not be a view of the copied tensor

    def __getitem__(self, name: str) -> Any:
        return self._entries[name]

    def __setitem__(self, name: str, value: float) -> None:
        self._entries[name] = value


@dataclass(eq=False)
class State:
    """All that an accumulator has seen; at any time the tensors are the complete state.

    Attributes:
        counts: all plain numbers, in a float64 tensor on the CPU.
        first_bad_batch: 0-d float64, the first batch that contains NaN or infinity, infinity where there is none. Only
            accelerators write it, because an update there does not wait for the result of the check.
        spread: 0-d float64, the mean of ‖y‖² over the first rows, by which the sizes of rows are judged.
        strata_rows: (strata,) float64, the number of summed rows of each stratum; empty if there is one.
        moments: the sums over rows.
        pending: ``BLOCK_ROWS`` slots for rows that are not summed yet. Their weights are on the CPU, where they are added up.
            A key of 0 means that it follows from the content.
        retained: a random sample of the summed rows, large ones with a larger probability.
    """

    counts: Counts
    first_bad_batch: Tensor
    spread: Tensor
    strata_rows: Tensor
    moments: Moments
    pending: Rows
    retained: RowSample

    @classmethod
    def empty(cls, *, retain: int, strata: int = 0, num_outputs: int | None = None, head_bias: bool = True) -> State:
        """The state before the first batch: no block has columns yet."""
        counts = Counts(torch.zeros(Counts.LENGTH, dtype=torch.float64, device="cpu"))
        counts["num_outputs"], counts["no_head_bias"] = num_outputs or 0, not head_bias
        return cls._zeros(counts, retain, strata, 0, 0, torch.float32, torch.device("cpu"))

    @classmethod
    def _zeros(cls, counts: Counts, retain: int, strata: int, p: int, s: int, dtype: torch.dtype, device: torch.device) -> State:
        zeros = partial(torch.zeros, dtype=torch.float64, device=device)
        with torch.inference_mode(False):  # whatever is added later is written into these tensors

            def rows(count: int) -> dict[str, Tensor]:
                blocks = {"features": zeros(count, p, dtype=dtype), "small": zeros(count, s), "weights": zeros(count)}
                return blocks | {name: zeros(count, dtype=torch.int64) for name in ("strata", "keys")}

            pending = rows(BLOCK_ROWS)
            return cls(
                counts=counts,
                first_bad_batch=torch.full((), torch.inf, dtype=torch.float64, device=device),
                spread=zeros(()),
                strata_rows=zeros(strata),
                moments=Moments.zeros(p, s, device),
                pending=Rows(**pending | {"weights": pending["weights"].cpu()}),
                retained=RowSample(**rows(retain), sizes=zeros(retain), priorities=zeros(retain), threshold=zeros(())),
            )

    def with_blocks(self, widths: list[int], dtype: torch.dtype, device: torch.device) -> State:
        """This state with memory for blocks of these widths; ``dtype`` is that of the products of the first block with itself."""
        p, s = widths[0], sum(widths[1:])
        state = State._zeros(self.counts, len(self.retained.sizes), len(self.strata_rows), p, s, dtype, device)
        state.counts["widths"][: len(widths)] = widths
        return state

    # --- counts --------------------------------------------------------------------------------------------------

    @property
    def uniform(self) -> bool:
        """Whether all weights are one."""
        return not self.counts["weighted"]

    @property
    def weight_sum(self) -> float:
        """Σ w of the summed rows."""
        return float(self.counts["weight_sum"])

    @property
    def squared_weight_sum(self) -> float:
        """Σ w² of the summed rows."""
        return float(self.counts["squared_weight_sum"])

    @property
    def device(self) -> torch.device:
        """Device of the sums."""
        return self.moments.sum.device

    # --- tensors -------------------------------------------------------------------------------------------------

    def tensors(self) -> dict[str, Tensor]:
        """The tensors by name, not copies."""
        pending = {f"pending_{name}": x for name, x in vars(self.pending).items()}
        retained = {f"retained_{name}": x for name, x in vars(self.retained).items()}
        alone = {name: getattr(self, name) for name in ("first_bad_batch", "spread", "strata_rows")}
        return {"counts": self.counts.tensor} | alone | vars(self.moments) | pending | retained

    @classmethod
    def from_tensors(cls, tensors: dict[str, Tensor]) -> State:
        """A state over tensors with the names of :meth:`tensors`, not copies.

        Raises:
            DataError: tensors are missing.
        """
        missing = [name for name in NAMES if not isinstance(tensors.get(name), Tensor)]
        if missing:
            raise DataError(f"this is not the state of a Gram: {', '.join(missing)} missing")
        if tensors["counts"].shape != (Counts.LENGTH,):
            raise DataError(f"this is not the state of a Gram: counts has shape {tuple(tensors['counts'].shape)}")
        tensors = tensors | {name: tensors[name].cpu() for name in ON_CPU}

        def part(kind: type[Part], prefix: str = "") -> Part:
            return kind(**{f.name: tensors[prefix + f.name] for f in fields(kind)})

        return cls(
            counts=Counts(tensors["counts"]),
            first_bad_batch=tensors["first_bad_batch"],
            spread=tensors["spread"],
            strata_rows=tensors["strata_rows"],
            moments=part(Moments),
            pending=part(Rows, "pending_"),
            retained=part(RowSample, "retained_"),
        )

    def copy(self) -> State:
        """A state that shares no memory with this one."""
        return State.from_tensors({name: x.clone() for name, x in self.tensors().items()})

    # --- filling -------------------------------------------------------------------------------------------------

    def hold(
        self,
        features: Tensor,
        others: list[Tensor],
        weights: Tensor | None,
        strata: Tensor | None,
        numbers: Tensor | None,
    ) -> None:
        """Add rows to the pending ones, which have room for them."""
        first = int(self.counts["pending_rows"])
        slots = slice(first, first + len(features))
        self.pending.features[slots].copy_(features)
        if others:
            double = [x.to(self.device, torch.float64, non_blocking=True) for x in others]
            torch.cat(double, dim=1, out=self.pending.small[slots])
        self.pending.weights[slots] = 1.0 if weights is None else weights
        if strata is not None:
            self.pending.strata[slots].copy_(strata, non_blocking=True)
        self.pending.keys[slots] = 0 if numbers is None else number_keys(numbers.to(self.device, non_blocking=True))
        self.counts["pending_rows"] += len(features)

    def _sum(self) -> tuple[RowSample, Tensor]:
        """Sum the pending rows; they come back with how large they are, and the power of two that divides their features."""
        counts, count = self.counts, int(self.counts["pending_rows"])
        features, small, weights, strata, keys = (x[:count] for x in vars(self.pending).values())
        there = weights.to(self.device, non_blocking=True)
        if not counts["num_rows"]:
            self.moments.pilot.copy_(self.moments.mean(features, small, there))
        elif not self.uniform and float(weights.sum()) > self.weight_sum:  # the pilot is the mean of rows of little weight
            self.move(self.moments.mean(features, small, there))
        norms, back = self.moments.add(features, small, None if self.uniform else there)
        self.spread.copy_(torch.where(self.spread > 0, self.spread, norms.mean()))
        relative = torch.where(self.spread > 0, norms / self.spread, 0.0)
        if len(self.strata_rows):
            self.strata_rows.index_add_(0, strata, torch.ones_like(there))
        counts["weight_sum"] += count if self.uniform else float(weights.sum())
        counts["squared_weight_sum"] += count if self.uniform else float(weights.square().sum())
        counts["num_rows"] += count
        counts["pending_rows"] = 0
        nothing = self.retained.threshold.new_zeros(())
        return RowSample(features, small, there, strata, keys, sizes=relative, priorities=relative, threshold=nothing), back

    # --- merging -------------------------------------------------------------------------------------------------

    def merge(self, other: State) -> None:
        """Add what another state with the same blocks has summed."""
        counts, others = self.counts, other.counts
        for name, value in other.about(self.moments.pilot).items():
            getattr(self.moments, name).add_(value.to(self.device))
        self.strata_rows.add_(other.strata_rows.to(self.device))
        self.retained.offer(other.retained.used(self.device))
        first_of_other = other.first_bad_batch.to(self.device) + counts["batches"].item()
        self.first_bad_batch.copy_(torch.minimum(self.first_bad_batch, first_of_other))
        counts["eps"][:] = np.maximum(counts["eps"], others["eps"])
        counts["weighted"] = max(counts["weighted"], others["weighted"])
        for name in TOTALS:
            counts[name] += others[name]

    def move(self, pilot: Tensor) -> None:
        """Take the sums about another pilot mean."""
        for name, value in self.about(pilot).items():
            getattr(self.moments, name).copy_(value)
        self.moments.pilot.copy_(pilot)

    def about(self, pilot: Tensor) -> dict[str, Tensor]:
        """The sums about another pilot mean, by name."""
        return self.moments.about(self.moments.pilot - pilot.to(self.device), self.weight_sum)


def append(
    states: Sequence[State],
    rows: Sequence[list[Tensor]],
    weights: Tensor | None = None,
    strata: Tensor | None = None,
    numbers: Tensor | None = None,
) -> None:
    """Add the same rows to states that are filled together. Each ``BLOCK_ROWS`` rows are summed at once.

    Args:
        rows: for each state its blocks, the features first, all of the same length.
    """
    total, start = len(rows[0][0]), 0
    while start < total:
        count = min(BLOCK_ROWS - int(states[0].counts["pending_rows"]), total - start)
        some = slice(start, start + count)
        for state, (features, *others) in zip(states, rows, strict=True):
            state.hold(
                features[some],
                [x[some] for x in others],
                None if weights is None else weights[some],
                None if strata is None else strata[some],
                None if numbers is None else numbers[some],
            )
        start += count
        if states[0].counts["pending_rows"] == BLOCK_ROWS:
            flush(states)


def flush(states: Sequence[State]) -> None:
    """Sum the pending rows of states that are filled together, and retain of all of them the same rows.

    The size of a row is w·(1 + the largest relative ‖y‖² among the states).
    """
    first = states[0]
    if count := int(first.counts["pending_rows"]):
        with torch.no_grad(), torch.autocast(first.device.type, enabled=False):
            seen = int(first.counts["num_rows"])
            content = content_keys(first.pending.features[:count], first.pending.small[:count], seen=seen)
            keys = torch.where(first.pending.keys[:count] == 0, content, first.pending.keys[:count])
            summed = [state._sum() for state in states]
            relative = torch.stack([rows.sizes.to(first.device) for rows, _ in summed]).amax(0)
            sizes = (summed[0][0].weights * (1.0 + relative)).clamp(max=_LARGEST_SIZE)
            for state, (rows, back) in zip(states, summed, strict=True):
                rows.keys.copy_(keys)
                rows.sizes, rows.priorities = sizes.to(state.device), (sizes / uniforms(keys)).to(state.device)
                state.retained.offer(rows, lambda y, state=state, back=back: state.moments.restored(y, back))


NAMES = tuple(State.empty(retain=0).tensors())
