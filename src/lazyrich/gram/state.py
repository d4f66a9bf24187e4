"""The state of an accumulator: everything it has seen, as named tensors that are written in place."""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import partial
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from ..errors import DataError
from .moments import Moments
from .retained_rows import Rows, RowSample

BLOCK_ROWS = 1024  # rows that are summed at a time
ON_CPU = ("counts", "pending_weights", "retained_numbers")  # on the CPU whatever the device of the rows
TOTALS = ("num_rows", "batches", "weight_sum", "squared_weight_sum")  # the counts that add up when two states are merged
Part = TypeVar("Part", Moments, Rows, RowSample)


class Counts:
    """Plain numbers by name. They are entries of one tensor, so that a copy of the tensor is a copy of them all.

    They are ``first_row`` and ``row_step``, from which the rows get their numbers; ``num_outputs``, 0 if it is the width of the
    outputs; ``num_rows``, of the summed rows; ``pending_rows``; ``batches``; ``weighted``, 0 while all weights are one;
    ``weight_sum`` and ``squared_weight_sum``, Σ w and Σ w² of the summed rows; ``widths`` and ``eps``, one for each block.
    """

    SINGLE = ("first_row", "row_step", "num_outputs", "pending_rows", "weighted", *TOTALS)
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
        moments: the sums over rows.
        pending: ``BLOCK_ROWS`` slots for rows that are not summed yet. Their weights are on the CPU, where they are added up.
        retained: a uniform random subset of the summed rows.
    """

    counts: Counts
    first_bad_batch: Tensor
    moments: Moments
    pending: Rows
    retained: RowSample

    @classmethod
    def empty(cls, *, retain: int, first_row: int = 0, row_step: int = 1, num_outputs: int | None = None) -> State:
        """The state before the first batch: no block has columns yet."""
        counts = Counts(torch.zeros(Counts.LENGTH, dtype=torch.float64, device="cpu"))
        counts["first_row"], counts["row_step"], counts["num_outputs"] = first_row, row_step, num_outputs or 0
        return cls._zeros(counts, retain, 0, 0, torch.float32, torch.device("cpu"))

    @classmethod
    def _zeros(cls, counts: Counts, retain: int, p: int, s: int, dtype: torch.dtype, device: torch.device) -> State:
        zeros = partial(torch.zeros, dtype=torch.float64, device=device)
        with torch.inference_mode(False):  # whatever is added later is written into these tensors
            return cls._of(zeros, counts, retain, p, s, dtype, device)

    @classmethod
    def _of(cls, zeros: Any, counts: Counts, retain: int, p: int, s: int, dtype: torch.dtype, device: torch.device) -> State:
        numbers = torch.full((retain,), -1, device="cpu")
        return cls(
            counts=counts,
            first_bad_batch=torch.full((), torch.inf, dtype=torch.float64, device=device),
            moments=Moments.zeros(p, s, device),
            pending=Rows(zeros(BLOCK_ROWS, p, dtype=dtype), zeros(BLOCK_ROWS, s), zeros(BLOCK_ROWS).cpu()),
            retained=RowSample(zeros(retain, p, dtype=dtype), zeros(retain, s), zeros(retain), numbers),
        )

    def with_blocks(self, widths: list[int], dtype: torch.dtype, device: torch.device) -> State:
        """This state with memory for blocks of these widths; ``dtype`` is that of the products of the first block with itself."""
        state = State._zeros(self.counts, len(self.retained.numbers), widths[0], sum(widths[1:]), dtype, device)
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
        return {"counts": self.counts.tensor, "first_bad_batch": self.first_bad_batch} | vars(self.moments) | pending | retained

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
            moments=part(Moments),
            pending=part(Rows, "pending_"),
            retained=part(RowSample, "retained_"),
        )

    def copy(self) -> State:
        """A state that shares no memory with this one."""
        return State.from_tensors({name: x.clone() for name, x in self.tensors().items()})

    # --- filling -------------------------------------------------------------------------------------------------

    def append(self, features: Tensor, others: list[Tensor], weights: Tensor | None) -> None:
        """Add rows. Each block of ``BLOCK_ROWS`` rows is summed when it is full."""
        counts, start = self.counts, 0
        while start < len(features):
            first_slot = int(counts["pending_rows"])
            count = min(BLOCK_ROWS - first_slot, len(features) - start)
            rows, slots = slice(start, start + count), slice(first_slot, first_slot + count)
            self.pending.features[slots].copy_(features[rows])
            if others:
                double = [x[rows].to(self.device, torch.float64, non_blocking=True) for x in others]
                torch.cat(double, dim=1, out=self.pending.small[slots])
            self.pending.weights[slots] = 1.0 if weights is None else weights[rows]
            counts["pending_rows"] += count
            start += count
            if counts["pending_rows"] == BLOCK_ROWS:
                self.flush()

    def flush(self) -> None:
        """Sum the pending rows."""
        counts, count = self.counts, int(self.counts["pending_rows"])
        if count == 0:
            return
        features, small, weights = (x[:count] for x in vars(self.pending).values())
        first, step = int(counts["first_row"] + counts["row_step"] * counts["num_rows"]), int(counts["row_step"])
        with torch.no_grad(), torch.autocast(self.device.type, enabled=False):
            weights_there = weights.to(self.device, non_blocking=True)
            if not counts["num_rows"]:
                self.moments.pilot.copy_(self.moments.mean(features, small, weights_there))
            elif not self.uniform and float(weights.sum()) > self.weight_sum:  # the pilot is the mean of rows of little weight
                self.move(self.moments.mean(features, small, weights_there))
            row_numbers = torch.arange(first, first + step * count, step)
            self.retained.offer(RowSample(features, small, weights_there, row_numbers))
            self.moments.add(features, small, None if self.uniform else weights_there)
        counts["weight_sum"] += count if self.uniform else float(weights.sum())
        counts["squared_weight_sum"] += count if self.uniform else float(weights.square().sum())
        counts["num_rows"] += count
        counts["pending_rows"] = 0

    # --- merging -------------------------------------------------------------------------------------------------

    def merge(self, other: State) -> None:
        """Add what another state with the same blocks has summed."""
        counts, others = self.counts, other.counts
        for name, value in other.about(self.moments.pilot).items():
            getattr(self.moments, name).add_(value.to(self.device))
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
        shift = self.moments.pilot - pilot.to(self.device)
        along = self.along(shift[: self.moments.width])
        return self.moments.about(shift, self.weight_sum, self.squared_weight_sum, along)

    def along(self, d: Tensor) -> Tensor:
        """(p,) Σ w²(y·d)y: exact while all weights are one, else an estimate from the retained rows (which may be all rows)."""
        if self.uniform:
            return self.moments.along(d)
        rows = self.retained.used(self.device)
        y = rows.features.double() - self.moments.pilot[: self.moments.width]
        return int(self.counts["num_rows"]) / max(len(y), 1) * ((rows.weights.square() * (y @ d)) @ y)


NAMES = tuple(State.empty(retain=0).tensors())
