"""One Gram matrix, filled in one pass; every measure is read off it.

The stack of functions is ``h(x) = [features | outputs | targets]``. What is kept of n samples is

* the sums of ``w``, ``w²``, ``w·h`` and ``w·h·hᵀ`` about a *pilot mean* (the mean of the first rows). Without the shift a
  common offset of the features, which every ReLU network has, would drown their covariance in rounding;
* ``Σ w²‖Φ - Φ̄‖⁴``, which the unbiased estimate of ``‖cov Φ‖_F²`` needs;
* a uniform random subset of at most ``retain`` rows, on which the delete-one jackknife is evaluated.

Products of features with features are formed in the activations' precision (float32 for half types), everything that
involves outputs or targets in float64: a singular value read off a product is only as good as the *root* of the
product's rounding, and the rank of the outputs is decided on such values. All sums are float64.

Rows are processed in blocks of fixed size whatever the size of the batches, so that batches of one are as fast, and
give the same bits, as one batch of everything. Memory is O((p + C)²), independent of n.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ._row_sample import RowSample
from .errors import DataError, NonFiniteError
from .processes import Processes

BLOCK_ROWS = 1024
LARGEST = 1e60  # beyond, sums of fourth powers leave float64
STATE = (
    "header", "sum", "features", "cross", "small", "quartic", "cubic", "square", "pilot",
    "pending_features", "pending_small", "pending_weights", "kept_features", "kept_small", "kept_weights", "kept_numbers",
)  # fmt: skip


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

    def __init__(self, *, retain: int = 1024, first_row: int = 0, row_step: int = 1, num_outputs: int | None = None) -> None:
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
        given = {"features": features, "outputs": outputs, "targets": targets}
        blocks = {name: x.detach() for name, x in given.items() if x is not None}
        widths = {name: x.shape[-1] for name, x in blocks.items()}
        n = len(features)
        for name, x in blocks.items():
            if x.ndim != 2 or len(x) != n:
                raise DataError(f"{name} must have shape (n, width) with n = {n} rows as the features, got {tuple(x.shape)}")
            if x.shape[1] == 0:
                raise DataError(f"{name} have no columns, shape {tuple(x.shape)}")
            if name != "targets" and not x.is_floating_point():
                raise TypeError(f"{name} must be floating point, got {x.dtype}; convert them with .float()")
        if self._widths and widths != self._widths:
            raise DataError(f"this batch has blocks {widths}, the batches before it {self._widths}")
        for name, x in blocks.items():
            self._check_finite(name, x)
        if weights is not None:
            weights = weights.detach().to(features.device, torch.float64)
            if weights.shape != (n,):
                raise DataError(f"weights must have shape ({n},), one for each row, got {tuple(weights.shape)}")
            if not bool(torch.isfinite(weights).all()) or bool((weights < 0).any()):
                raise DataError("weights must be finite and not negative")
        self._updates += 1
        if not self._widths:
            self._start(blocks, widths)
        for name, x in blocks.items():
            if x.is_floating_point():  # the coarsest precision seen decides the cuts
                self._eps[name] = max(self._eps[name], torch.finfo(x.dtype).eps)
        if weights is not None:
            self.uniform = False
            if bool((weights == 0).any()):
                keep = weights > 0
                blocks, weights = {name: x[keep] for name, x in blocks.items()}, weights[keep]
        self._append(blocks, weights)

    def _check_finite(self, name: str, x: Tensor) -> None:
        if x.numel() == 0 or not x.is_floating_point():
            return
        low, high = torch.aminmax(x)
        if not (bool(torch.isfinite(low)) and bool(torch.isfinite(high))):
            row = int((~torch.isfinite(x)).any(dim=1).nonzero()[0])
            raise NonFiniteError(
                f"{name} hold NaN or infinity in batch {self._updates} (row {row} of {len(x)}, counting from 0); "
                "find the layer or the sample that produces it before you measure"
            )
        largest = max(-float(low), float(high))
        if largest > LARGEST:
            raise DataError(f"{name} reach {largest:.1e}, and powers of that overflow; divide them by a constant first")

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

        self._pending = (zeros(BLOCK_ROWS, p, dtype=product_dtype), zeros(BLOCK_ROWS, small), zeros(BLOCK_ROWS))
        self._pilot = zeros(p + small)
        self._sum = zeros(p + small)  # Σ w h
        self._features = zeros(p, p)  # Σ w Φ Φᵀ
        self._cross = zeros(p, small)  # Σ w Φ [f̂|f*]ᵀ
        self._small = zeros(small, small)
        self._quartic = zeros(1)  # Σ w²‖Φ‖⁴
        self._cubic = zeros(p)  # Σ w²‖Φ‖²Φ
        self._square = zeros(p + 1)  # Σ w² [Φ|‖Φ‖²]
        room = (zeros(self.retain, p, dtype=product_dtype), zeros(self.retain, small), zeros(self.retain))
        self._kept = RowSample(room, torch.zeros(self.retain, dtype=torch.int64))

    def _append(self, blocks: dict[str, Tensor], weights: Tensor | None) -> None:
        features, n = blocks["features"], len(blocks["features"])
        others = [x for name, x in blocks.items() if name != "features"]
        start = 0
        while start < n:
            room = min(BLOCK_ROWS - self._pending_rows, n - start)
            rows, place = slice(start, start + room), slice(self._pending_rows, self._pending_rows + room)
            self._pending[0][place].copy_(features[rows])
            if others:
                torch.cat([x[rows].to(self._device, torch.float64) for x in others], dim=1, out=self._pending[1][place])
            self._pending[2][place] = 1.0 if weights is None else weights[rows].to(self._device)
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
            numbers = self.first_row + self.row_step * np.arange(self.num_rows, self.num_rows + m)
            self._kept.offer((features, small, weights), numbers)
            if self.num_rows == 0:
                share = weights / weights.sum()
                self._pilot.copy_(torch.cat([(share @ features.double()).to(features.dtype), share @ small]))
            p = self._widths["features"]
            y, z = features - self._pilot[:p].to(features.dtype), small - self._pilot[p:]
            # A power of two brings the block to order one: squares neither overflow nor vanish in float32.
            scale = torch.exp2(-torch.frexp(y.abs().amax().clamp_min(torch.finfo(y.dtype).tiny)).exponent.to(y.dtype))
            y *= scale
            back = 1.0 / scale.double()
            yd, wz = y.double(), z * weights.unsqueeze(1)
            if self.uniform:
                product = (y.T @ y).double()
            else:
                most = weights.amax()  # so that very small weights survive float32
                product = ((y * (weights / most).to(y.dtype).unsqueeze(1)).T @ y).double() * most
            self._features += product * back**2
            self._cross += (yd.T @ wz) * back
            self._small += wz.T @ z
            self._sum += torch.cat([(weights @ yd) * back, wz.sum(0)])
            norm = yd.square().sum(1)
            w2 = weights.square()
            self._quartic += (w2 @ norm.square()) * back**4
            self._cubic += ((w2 * norm) @ yd) * back**3
            self._square += torch.cat([(w2 @ yd) * back, (w2 @ norm).reshape(1) * back**2])
        self.weight_sum += float(weights.sum())
        self.squared_weight_sum += float(weights.square().sum())
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
        self._flush()
        other._flush()
        if other.num_rows == 0:
            return self
        if self.num_rows == 0:
            self.load_state_dict(other.state_dict())
            return self
        for name, value in other._about(other._pilot - self._pilot.to(other._device)).items():
            getattr(self, name).add_(value.to(self._device))
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
        if self.count:
            self._flush()
            counts = (self.num_rows, self.weight_sum, self.squared_weight_sum, self._updates)
            kept = tuple(x.cpu() for x in self._kept.rows), self._kept.numbers
            mine = (self._widths, self._eps, self.product_eps, self.uniform, self._pilot.cpu(), counts, kept)
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
            moved = self._about(self._pilot - pilot.to(self._device))
        else:
            self._widths = widths
            self._allocate(torch.float64 if product_eps < 1e-10 else torch.float32)
            moved = {name: getattr(self, name) for name in self._SUMS}
        for name, value in moved.items():
            processes.add(value)
            getattr(self, name).copy_(value)
        self._pilot.copy_(pilot)
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
        p = self._widths["features"]
        d, e, w, w2 = shift[:p], shift[p:], self.weight_sum, self.squared_weight_sum
        sum_d, sum_e, square, norm = self._sum[:p], self._sum[p:], self._square[:p], self._square[p]
        dd = d @ d
        # Σ w²(y·d)y: exact while all weights are one, else from the retained rows (which are all rows while there are few).
        if self.uniform:
            projected = self._features @ d
        else:
            y, kept_weights = self._kept_deviation(), self._kept.rows[2]
            projected = self.num_rows / max(len(y), 1) * ((kept_weights.square() * (y @ d)) @ y)
        both = torch.outer(sum_d, d)
        across = torch.outer(sum_e, e)
        return {
            "_sum": self._sum + w * shift,
            "_features": self._features + both + both.T + w * torch.outer(d, d),
            "_cross": self._cross + torch.outer(sum_d, e) + torch.outer(d, sum_e) + w * torch.outer(d, e),
            "_small": self._small + across + across.T + w * torch.outer(e, e),
            "_quartic": self._quartic
            + 4 * (projected @ d)
            + w2 * dd**2
            + 4 * (self._cubic @ d)
            + 2 * norm * dd
            + 4 * (square @ d) * dd,
            "_cubic": self._cubic + norm * d + 2 * projected + 2 * (square @ d) * d + dd * square + w2 * dd * d,
            "_square": self._square + torch.cat([w2 * d, (2 * (square @ d) + w2 * dd).reshape(1)]),
        }

    def _kept_deviation(self) -> Tensor:
        return self._kept.rows[0].double() - self._pilot[: self._widths["features"]]

    _SUMS = ("_sum", "_features", "_cross", "_small", "_quartic", "_cubic", "_square")
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

        Once a batch was seen their shapes stay. ``header`` and ``kept_numbers`` are on the CPU.
        """
        if not self._widths:
            return {"header": self._header} | {name: torch.zeros(0, dtype=torch.float64) for name in STATE[1:]}
        sums = [getattr(self, name) for name in self._SUMS]
        values = [self._header, *sums, self._pilot, *self._pending, *self._kept.storage, self._kept._numbers]
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
            _, *sums, pilot, a, b, c, x, y, z, numbers = (state[name] for name in STATE)
            for name, value in zip(cls._SUMS, sums, strict=True):
                setattr(gram, name, value)
            gram._pilot, gram._pending = pilot, (a, b, c)
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
        about_pilot, covariance = (
            self._features.diagonal().sum() / self.weight_sum,
            self.block("features", "features", centered=True),
        )
        return self.product_eps * BLOCK_ROWS**0.5 * float(about_pilot / covariance.diagonal().sum())

    @property
    def num_outputs(self) -> int:
        """How many outputs the network has; more than the block has columns if they were compressed."""
        return self._num_outputs or self._widths.get("outputs", 0)

    def mean(self, name: str) -> Tensor:
        """Weighted mean of a block, (width,) float64."""
        self._ready()
        return self._pilot[self._columns(name)] + self._drift(name)

    def block(self, first: str, second: str, *, centered: bool = False) -> Tensor:
        """Weighted second moment ⟨first|second⟩, (width, width) float64; with ``centered`` the covariance."""
        self._ready()
        about_pilot = self._raw(first, second) / self.weight_sum
        a, b = self._drift(first), self._drift(second)
        covariance = about_pilot - torch.outer(a, b)
        if centered:
            return covariance
        return covariance + torch.outer(self.mean(first), self.mean(second))

    def fourth_moment(self) -> float:
        """Σ wᵢ²‖Φᵢ - Φ̄‖⁴ with weights that sum to one."""
        self._ready()
        return float(self._about(-self._sum / self.weight_sum)["_quartic"]) / self.weight_sum**2

    def retained(self) -> tuple[dict[str, Tensor], Tensor]:
        """The retained rows by block (float64, features measured from their mean) and their weights (of a sum of one).

        They come in the order of their hash, so that any first part of them is a uniform subset too.
        """
        self._ready()
        order = self._kept.order()
        rows = {"features": (self._kept_deviation() - self._drift("features"))[order]}
        p = self._widths["features"]
        for name in list(self._widths)[1:]:
            columns = self._columns(name)
            rows[name] = self._kept.rows[1][order, columns.start - p : columns.stop - p]
        return rows, self._kept.rows[2][order] / self.weight_sum

    def _ready(self) -> None:
        if self.count == 0:
            raise DataError("no samples: the data were empty, or every weight was zero")
        self._flush()

    def _columns(self, name: str) -> slice:
        """Where a block lies in the stack; features come first."""
        if name not in self._widths:
            raise DataError(f"this Gram holds the blocks {list(self._widths)}, not {name!r}; pass {name} to update")
        names = list(self._widths)
        start = sum(self._widths[other] for other in names[: names.index(name)])
        return slice(start, start + self._widths[name])

    def _drift(self, name: str) -> Tensor:
        return self._sum[self._columns(name)] / self.weight_sum

    def _raw(self, first: str, second: str) -> Tensor:
        if first != "features" and second == "features":
            return self._raw(second, first).T
        p = self._widths["features"]
        rows, columns = self._columns(first), self._columns(second)
        if second == "features":
            return self._features
        columns = slice(columns.start - p, columns.stop - p)
        if first == "features":
            return self._cross[:, columns]
        return self._small[slice(rows.start - p, rows.stop - p), columns]
