"""One Gram matrix, filled in one pass; every measure is read off it.

The stack of functions is ``h(x) = [features | outputs | targets]``. What is kept of n samples is

* the sums of ``w``, ``w²``, ``w·h``, ``w·h·hᵀ`` and ``w²‖Φ‖⁴`` about a pilot mean, see ``_moments.py``; the last is for the
  unbiased estimate of ``‖cov Φ‖_F²``;
* a uniform random subset of at most ``retain`` rows, on which the delete-one jackknife is evaluated.

Products of features with features are formed in the activations' precision (float32 for half types), everything that
involves outputs or targets in float64: a singular value read off a product is only as good as the *root* of the
product's rounding, and the rank of the outputs is decided on such values. All sums are float64.

Rows are processed in blocks of fixed size whatever the size of the batches, so that batches of one are as fast, and
give the same bits, as one batch of everything. Memory is O((p + C)²), independent of n. On an accelerator no batch waits for
it: whether the numbers are finite is looked at when the sums are read.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from .._support.processes import Processes
from ..errors import DataError, NonFiniteError
from .checks import checked
from .moments import NAMES, PART_ROWS, Moments
from .retained_rows import RETAINED_ROWS, RowSample

BLOCK_ROWS = 1024
STATE = (
    "header", *NAMES, "pilot",
    "pending_features", "pending_small", "pending_weights", "kept_features", "kept_small", "kept_weights", "kept_numbers",
)  # fmt: skip
T = TypeVar("T")


class Gram:
    """Streamed, mergeable, resumable inner products of features, outputs and targets.

    Args:
        retain: rows kept for the jackknife (uniform over everything seen, chosen by a hash of the row's index, so the
            choice depends neither on batch sizes nor on a random generator). ``0`` keeps none: no error bars.
        first_row, row_step: which rows of the whole data these are: the i-th is number ``first_row + i · row_step``. Processes
            that share the data keep the same subset as one process would if each says which rows it has.
        num_outputs: how many outputs the block of outputs stands for, if they were brought to fewer columns without
            changing their inner products (see ``functional.compressed_head``).

    Example:
        >>> import torch
        >>> gram = Gram()
        >>> gram.update(torch.tensor([[1.0], [3.0]]))
        >>> gram.update(torch.tensor([[5.0]]))
        >>> gram.mean("features"), gram.block("features", "features", centered=True)
        (tensor([3.], dtype=torch.float64), tensor([[2.6667]], dtype=torch.float64))
    """

    def __init__(
        self, *, retain: int = RETAINED_ROWS, first_row: int = 0, row_step: int = 1, num_outputs: int | None = None
    ) -> None:
        if retain < 0:
            raise ValueError(f"retain is a number of rows, 0 or more, got {retain}")
        self.retain = retain
        self.first_row, self.row_step = first_row, row_step
        self._num_outputs = num_outputs
        self.num_rows = 0
        self.weight_sum = 0.0
        self.squared_weight_sum = 0.0
        self.uniform = True
        self._updates = 0
        self._widths: dict[str, int] = {}
        self._eps: dict[str, float] = {}
        self._device = torch.device("cpu")
        self._pending_rows = 0
        self._header = torch.zeros(len(self._COUNTS) + 8, dtype=torch.float64)
        self._bad_batch: Tensor | None = None
        self._readings: dict[str, Any] = {}
        self._publish()

    # --- filling -------------------------------------------------------------------------------------------------

    def update(
        self,
        features: Tensor,
        outputs: Tensor | None = None,
        targets: Tensor | None = None,
        weights: Tensor | None = None,
    ) -> None:
        """Adds a batch. Nothing is changed when an error is raised.

        Args:
            features: (n, p) floating point.
            outputs: (n, C) floating point.
            targets: (n, T), one-hot or real.
            weights: (n,) not negative; their scale is free.

        Raises:
            NonFiniteError: NaN or infinity in the batch.
            DataError: lengths or widths that do not match, negative weights.
        """
        blocks, weights, finite = checked(features, outputs, targets, weights, self._updates)
        widths = {name: x.shape[1] for name, x in blocks.items()}
        if self._widths and widths != self._widths:
            raise DataError(f"this batch has blocks {widths}, the batches before it {self._widths}")
        if finite is not None:
            self._note_finite(finite)
        self._updates += 1
        if not self._widths:
            self._start(blocks, widths)
        for name, x in blocks.items():
            if x.is_floating_point():  # the coarsest precision seen decides the cuts
                self._eps[name] = max(self._eps[name], torch.finfo(x.dtype).eps)
        if weights is not None:
            self.uniform = False
            if bool((weights == 0).any()):
                keep = (weights > 0).nonzero().flatten()
                weights = weights[keep]
                blocks = {name: x[keep.to(x.device)] for name, x in blocks.items()}
        self._append(blocks, weights)

    def _note_finite(self, finite: Tensor) -> None:
        """Writes down, on the device, the first batch that is not finite; ``_ready`` reads it."""
        if self._bad_batch is None:
            self._bad_batch = torch.full((), torch.inf, dtype=torch.float64, device=finite.device)
        number = torch.where(finite.to(self._bad_batch.device), torch.inf, float(self._updates))
        self._bad_batch = torch.minimum(self._bad_batch, number.double())

    def _start(self, blocks: dict[str, Tensor], widths: dict[str, int]) -> None:
        self._widths = widths
        self._eps = {name: torch.finfo(x.dtype if x.is_floating_point() else torch.float64).eps for name, x in blocks.items()}
        feature_device = blocks["features"].device
        self._device = torch.device("cpu") if feature_device.type == "mps" else feature_device  # mps has no float64
        double = any(blocks[name].dtype == torch.float64 for name in ("features", "outputs") if name in blocks)
        self._allocate(torch.float64 if double else torch.float32)

    def _allocate(self, product_dtype: torch.dtype) -> None:
        p = self._widths["features"]
        small = sum(self._widths.values()) - p

        def zeros(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
            return torch.zeros(*shape, dtype=dtype, device=self._device)

        # weights stay on the CPU, where they are added up
        self._pending = (zeros(BLOCK_ROWS, p, dtype=product_dtype), zeros(BLOCK_ROWS, small), zeros(BLOCK_ROWS).cpu())
        self._moments = Moments(p, small, self._device)
        room = (zeros(self.retain, p, dtype=product_dtype), zeros(self.retain, small), zeros(self.retain))
        self._kept = RowSample(room, torch.zeros(self.retain, dtype=torch.int64))

    def _append(self, blocks: dict[str, Tensor], weights: Tensor | None) -> None:
        features, n = blocks["features"], len(blocks["features"])
        others = [x for name, x in blocks.items() if name != "features"]
        self._readings.clear()
        start = 0
        while start < n:
            room = min(BLOCK_ROWS - self._pending_rows, n - start)
            rows, place = slice(start, start + room), slice(self._pending_rows, self._pending_rows + room)
            self._pending[0][place].copy_(features[rows])
            if others:
                torch.cat(
                    [x[rows].to(self._device, torch.float64, non_blocking=True) for x in others],
                    dim=1,
                    out=self._pending[1][place],
                )
            self._pending[2][place] = 1.0 if weights is None else weights[rows]
            self._pending_rows += room
            start += room
            if self._pending_rows == BLOCK_ROWS:
                self._flush()
        self._publish()

    def _flush(self) -> None:
        """Turns the pending rows into sums."""
        m = self._pending_rows
        if m == 0:
            return
        features, small, weights = (x[:m] for x in self._pending)
        with torch.no_grad(), torch.autocast(self._device.type, enabled=False):
            there = weights.to(self._device, non_blocking=True)
            numbers = self.first_row + self.row_step * np.arange(self.num_rows, self.num_rows + m)
            self._kept.offer((features, small, there), numbers)
            if self.num_rows == 0:
                self._moments.start(features, small, there)
            self._moments.add(features, small, None if self.uniform else there)
        self.weight_sum += m if self.uniform else float(weights.sum())
        self.squared_weight_sum += m if self.uniform else float(weights.square().sum())
        self.num_rows += m
        self._pending_rows = 0
        self._publish()

    # --- merging and saving --------------------------------------------------------------------------------------

    def merge(self, other: Gram) -> Gram:
        """Adds what ``other`` has seen (another process, an earlier run) to this Gram and returns this Gram."""
        if not other._widths:
            return self
        if not self._widths:
            self.load_state_dict(other.state_dict())
            return self
        self._must_match(other._widths, other.product_eps)
        self._readings.clear()
        self._flush()
        other._flush()
        if other.num_rows == 0:
            return self
        if self.num_rows == 0:
            self.load_state_dict(other.state_dict())
            return self
        for name, value in other._about(other._moments.pilot - self._moments.pilot.to(other._device)).items():
            getattr(self._moments, name).add_(value.to(self._device))
        self._kept.offer(tuple(x.to(self._device) for x in other._kept.rows), other._kept.numbers)
        self._eps = {name: max(eps, other._eps[name]) for name, eps in self._eps.items()}
        for name in ("num_rows", "weight_sum", "squared_weight_sum", "_updates"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.uniform = self.uniform and other.uniform
        self._publish()
        return self

    def reduce(self, processes: Processes) -> None:
        """Becomes, on every process, the sum of all their Grams: pilots and kept rows are exchanged, sums are added.

        Raises:
            DataError: on every process, if their blocks or dtypes do not match.
        """
        mine = None
        self._readings.clear()
        if self.count:
            self._flush()
            counts = (self.num_rows, self.weight_sum, self.squared_weight_sum, self._updates)
            kept = tuple(x.cpu() for x in self._kept.rows), self._kept.numbers
            mine = (self._widths, self._eps, self.product_eps, self.uniform, self._moments.pilot.cpu(), counts, kept)
        every = [head for head in processes.gather(mine) if head is not None]
        if not every or not processes.together:
            return
        widths, _, product_eps, _, pilot, *_ = every[0]
        for head in every:
            if head[0] != widths:
                raise DataError(f"the processes disagree on the widths of features, outputs and targets: {widths} and {head[0]}")
            if head[2] != product_eps:
                raise DataError("the processes disagree on the dtype of the features: single and double precision")
        if self.num_rows:
            moved = self._about(self._moments.pilot - pilot.to(self._device))
        else:
            self._widths = widths
            self._allocate(torch.float64 if product_eps < 1e-10 else torch.float32)
            moved = self._moments.tensors()
        for name, value in moved.items():
            processes.add(value)
            getattr(self._moments, name).copy_(value)
        self._moments.pilot.copy_(pilot)
        self._eps = {name: max(head[1][name] for head in every) for name in widths}
        self.uniform = all(head[3] for head in every)
        totals = (sum(counts) for counts in zip(*(head[5] for head in every), strict=True))
        self.num_rows, self.weight_sum, self.squared_weight_sum, self._updates = totals
        self._kept.count = 0
        for head in every:
            rows, numbers = head[6]
            self._kept.offer(tuple(x.to(self._device) for x in rows), numbers)
        self._publish()

    def _must_match(self, widths: dict[str, int], product_eps: float) -> None:
        if self._widths != widths:
            raise DataError(f"cannot merge a Gram with blocks {widths} into one with blocks {self._widths}")
        if self.product_eps != product_eps:
            raise DataError("cannot merge products in float32 with products in float64: the features had different dtypes")

    def _about(self, shift: Tensor) -> dict[str, Tensor]:
        """The sums of ``h + shift`` in place of ``h``, where ``h`` is measured from the pilot."""
        along = self._along(shift[: self._widths["features"]])
        return self._moments.about(shift, self.weight_sum, self.squared_weight_sum, along)

    def _along(self, d: Tensor) -> Tensor:
        """Σ w²(y·d)y: exact while all weights are one, else from the retained rows (which are all rows while there are few)."""
        if self.uniform:
            return self._moments.along(d)
        y, weights = self._kept_deviation(), self._kept.rows[2]
        return self.num_rows / max(len(y), 1) * ((weights.square() * (y @ d)) @ y)

    def _kept_deviation(self) -> Tensor:
        return self._kept.rows[0].double() - self._moments.pilot[: self._widths["features"]]

    _COUNTS = (
        "retain", "first_row", "row_step", "num_rows", "weight_sum", "squared_weight_sum", "uniform", "_updates", "_pending_rows",
    )  # fmt: skip

    def _publish(self) -> None:
        """Writes all counts to the header, so that the tensors alone are the whole state at any time."""
        blocks = ("features", "outputs", "targets")
        counts = [float(getattr(self, name)) for name in self._COUNTS]
        rest = [self._kept.count if self._widths else 0, self._num_outputs or 0, *(self._widths.get(name, 0) for name in blocks)]
        self._header.copy_(torch.tensor([*counts, *rest, *(self._eps.get(name, 0.0) for name in blocks)], dtype=torch.float64))

    def tensors(self) -> dict[str, Tensor]:
        """The whole state by name: the tensors themselves, which the Gram goes on writing into, and a header of all counts.

        Once a batch was seen their shapes stay. The header, pending weights and kept numbers are on the CPU.
        """
        if not self._widths:
            return {"header": self._header} | {name: torch.zeros(0, dtype=torch.float64) for name in STATE[1:]}
        sums = self._moments.tensors().values()
        values = [self._header, *sums, self._moments.pilot, *self._pending, *self._kept.storage, self._kept._numbers]
        return dict(zip(STATE, values, strict=True))

    @classmethod
    def from_tensors(cls, state: dict[str, Tensor]) -> Gram:
        """A Gram over the tensors that :meth:`tensors` gave; it goes on writing into them.

        Raises:
            DataError: not such a state.
        """
        missing = [name for name in STATE if not isinstance(state.get(name), Tensor)]
        if missing:
            raise DataError(f"not the state of a Gram: {', '.join(missing)} missing")
        header = state["header"].tolist()
        counts, rest = header[: len(cls._COUNTS)], header[len(cls._COUNTS) :]
        if len(rest) != 8:
            raise DataError(f"not the state of a Gram: the header has {len(header)} entries")
        gram = cls(retain=int(counts[0]), num_outputs=int(rest[1]) or None)
        for name, value in zip(cls._COUNTS, counts, strict=True):
            setattr(gram, name, type(getattr(gram, name))(value))
        for name, width, eps in zip(("features", "outputs", "targets"), rest[2:5], rest[5:], strict=True):
            if width:
                gram._widths[name], gram._eps[name] = int(width), eps
        gram._header = state["header"]
        if gram._widths:
            gram._device = state["sum"].device
            *_, pilot, a, b, c, x, y, z, numbers = (state[name] for name in STATE)
            gram._moments, gram._pending = Moments.over(pilot, state), (a, b, c)
            gram._kept = RowSample((x, y, z), numbers, int(rest[0]))
        return gram

    def state_dict(self) -> dict[str, Tensor]:
        """A copy of :meth:`tensors`: ``torch.save`` it, load it with weights only."""
        return {name: x.clone() for name, x in self.tensors().items()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Takes over what :meth:`state_dict` gave; further updates continue as if never interrupted.

        Raises:
            DataError: not such a state; nothing is changed.
        """
        loaded = Gram.from_tensors(state)
        self.__dict__.update(Gram.from_tensors(loaded.state_dict()).__dict__)

    # --- reading -------------------------------------------------------------------------------------------------

    @property
    def count(self) -> int:
        """Number of rows with a weight above zero."""
        return self.num_rows + self._pending_rows

    @property
    def effective_count(self) -> float:
        """Kish's effective sample size (Σw)²/Σw²; the count when all weights are equal."""
        self._ready()
        return self.weight_sum**2 / self.squared_weight_sum

    @property
    def widths(self) -> dict[str, int]:
        """Name of each block -> number of columns."""
        return dict(self._widths)

    def eps(self, name: str) -> float:
        """Rounding unit of the activations of a block, the coarsest seen."""
        return self._eps[name]

    @property
    def product_eps(self) -> float:
        """Rounding unit of the products of features with features."""
        return torch.finfo(self._pending[0].dtype).eps

    @property
    def feature_rounding(self) -> float:
        """What rounding of the products may have left in the centred block of features, relative to it."""
        about_pilot = self._moments.features.diagonal().sum() / self.weight_sum
        covariance = self.block("features", "features", centered=True)
        return self.product_eps * BLOCK_ROWS**0.5 * float(about_pilot / covariance.diagonal().sum())

    @property
    def num_outputs(self) -> int:
        """How many outputs the network has; more than the block has columns if they were compressed."""
        return self._num_outputs or self._widths.get("outputs", 0)

    def mean(self, name: str) -> Tensor:
        """Weighted mean of a block, (width,) float64."""
        self._ready()
        return self._moments.pilot[self._columns(name)] + self._drift(name)

    def block(self, first: str, second: str, *, centered: bool = False) -> Tensor:
        """Weighted second moment ⟨first|second⟩, (width, width) float64; with ``centered`` the covariance."""
        self._ready()
        covariance = self.reading(f"covariance of {first} and {second}", lambda: self._covariance(first, second))
        return covariance if centered else torch.addr(covariance, self.mean(first), self.mean(second))

    def _covariance(self, first: str, second: str) -> Tensor:
        raw = self._raw(first, second)
        share = raw.div_(self.weight_sum) if first == second == "features" else raw / self.weight_sum  # the others are views
        return share.addr_(self._drift(first), self._drift(second), alpha=-1)

    def reading(self, name: str, compute: Callable[[], T]) -> T:
        """What was read under this name before, or what ``compute`` gives now; forgotten when more rows come.

        So an eigendecomposition, or a block, that many measures need is computed once. Nobody may write into it.
        """
        if name not in self._readings:
            self._readings[name] = compute()
        return self._readings[name]

    def fourth_moment(self) -> float:
        """Σ wᵢ²‖Φᵢ - Φ̄‖⁴ with weights that sum to one."""
        self._ready()
        d = -self._drift("features")
        moved = self._moments.quartic_about(d, self.squared_weight_sum, self._along(d))
        return float(moved) / self.weight_sum**2

    def retained(self, unit: float = 1.0) -> tuple[dict[str, Tensor], Tensor]:
        """The retained rows by block and their weights (of a sum of one).

        Features are measured from their mean, times ``unit``, in the precision of their products; all else is in float64 and as
        it came. They are in the order of their hash, so that any first part of them is a uniform subset too.
        """
        self._ready()
        order, mean = self._kept.order(), self.mean("features")
        features = self._kept.rows[0].index_select(0, order)
        for part in features.split(PART_ROWS):
            part.copy_(part.double().sub_(mean).mul_(unit))
        rows, p = {"features": features}, self._widths["features"]
        for name in list(self._widths)[1:]:
            columns = self._columns(name)
            rows[name] = self._kept.rows[1][order, columns.start - p : columns.stop - p]
        return rows, self._kept.rows[2][order] / self.weight_sum

    def _ready(self) -> None:
        if self.count == 0:
            raise DataError("no samples: the data were empty, or every weight was zero")
        self._flush()
        if self._readings:
            return
        if not bool(torch.isfinite(self._moments.quartic + self._moments.small.sum())):
            batch = "" if self._bad_batch is None else f" in batch {float(self._bad_batch):.0f}"
            raise NonFiniteError(
                f"features, outputs or targets held NaN or infinity, or numbers whose powers are{batch}, and now the sums do; "
                "find the layer or the sample that produces it and measure anew"
            )

    def _columns(self, name: str) -> slice:
        """Where a block lies in the stack; features come first."""
        if name not in self._widths:
            raise DataError(f"this Gram holds the blocks {list(self._widths)}, not {name!r}; pass {name} to update")
        names = list(self._widths)
        start = sum(self._widths[other] for other in names[: names.index(name)])
        return slice(start, start + self._widths[name])

    def _drift(self, name: str) -> Tensor:
        return self._moments.sum[self._columns(name)] / self.weight_sum

    def _raw(self, first: str, second: str) -> Tensor:
        if first != "features" and second == "features":
            return self._raw(second, first).T
        p = self._widths["features"]
        rows, columns = self._columns(first), self._columns(second)
        if second == "features":
            return self._moments.second()
        columns = slice(columns.start - p, columns.stop - p)
        if first == "features":
            return self._moments.cross[:, columns]
        return self._moments.small[slice(rows.start - p, rows.stop - p), columns]
