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

from typing import Any

import numpy as np
import torch
from torch import Tensor

from .errors import DataError, NonFiniteError

BLOCK_ROWS = 1024
LARGEST = 1e60  # beyond, sums of fourth powers leave float64


class Gram:
    """Streamed, mergeable, resumable inner products of features, outputs and targets.

    Args:
        retain: rows kept for the jackknife (uniform over everything seen, chosen by a hash of the row's index, so the
            choice depends neither on batch sizes nor on a random generator). ``0`` keeps none: no error bars.

    Example:
        >>> import torch
        >>> gram = Gram()
        >>> gram.update(torch.tensor([[1.0], [3.0]]))
        >>> gram.update(torch.tensor([[5.0]]))
        >>> gram.mean("features"), gram.block("features", "features", centered=True)
        (tensor([3.], dtype=torch.float64), tensor([[2.6667]], dtype=torch.float64))
    """

    def __init__(self, *, retain: int = 1024) -> None:
        if retain < 0:
            raise ValueError(f"retain is a number of rows, 0 or more, got {retain}")
        self.retain = retain
        self.num_rows = 0
        self.weight_sum = 0.0
        self.squared_weight_sum = 0.0
        self.uniform = True
        self._updates = 0
        self._widths: dict[str, int] = {}
        self._dtypes: dict[str, torch.dtype] = {}
        self._device = torch.device("cpu")
        self._pending_rows = 0

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
                self._dtypes[name] = max(self._dtypes[name], x.dtype, key=lambda t: torch.finfo(t).eps)
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
        self._dtypes = {name: x.dtype if x.is_floating_point() else torch.float64 for name, x in blocks.items()}
        feature_device = blocks["features"].device
        self._device = torch.device("cpu") if feature_device.type == "mps" else feature_device  # mps has no float64
        double = any(blocks[name].dtype == torch.float64 for name in ("features", "outputs") if name in blocks)
        self._product_dtype = torch.float64 if double else torch.float32
        p, small = widths["features"], sum(widths.values()) - widths["features"]

        def zeros(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
            return torch.zeros(*shape, dtype=dtype, device=self._device)

        self._pending = (zeros(BLOCK_ROWS, p, dtype=self._product_dtype), zeros(BLOCK_ROWS, small), zeros(BLOCK_ROWS))
        self._pilot: tuple[Tensor, Tensor] | None = None
        self._sum = zeros(p + small)  # Σ w h
        self._features = zeros(p, p)  # Σ w Φ Φᵀ
        self._cross = zeros(p, small)  # Σ w Φ [f̂|f*]ᵀ
        self._small = zeros(small, small)
        self._quartic = zeros(1)  # Σ w²‖Φ‖⁴
        self._cubic = zeros(p)  # Σ w²‖Φ‖²Φ
        self._square = zeros(p + 1)  # Σ w² [Φ|‖Φ‖²]
        self._kept = (zeros(0, p, dtype=self._product_dtype), zeros(0, small), zeros(0))
        self._kept_priority = np.empty(0, dtype=np.uint64)

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

    def _flush(self) -> None:
        """Turns the pending rows into sums."""
        m = self._pending_rows
        if m == 0:
            return
        features, small, weights = (x[:m] for x in self._pending)
        with torch.no_grad(), torch.autocast(self._device.type, enabled=False):
            self._keep(features, small, weights)
            if self._pilot is None:
                share = weights / weights.sum()
                self._pilot = ((share @ features.double()).to(self._product_dtype), share @ small)
            y, z = features - self._pilot[0], small - self._pilot[1]
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

    def _keep(self, features: Tensor, small: Tensor, weights: Tensor) -> None:
        """Updates the uniform subset: the ``retain`` rows whose index has the smallest hash."""
        if not self.retain:
            return
        new = _hash(np.arange(self.num_rows, self.num_rows + len(features), dtype=np.uint64))
        self._select((features, small, weights), new)

    def _select(self, rows: tuple[Tensor, ...], priority: np.ndarray) -> None:
        held = len(self._kept_priority)
        everything = np.concatenate([self._kept_priority, priority])
        if len(everything) > self.retain:
            chosen = np.sort(np.argpartition(everything, self.retain - 1)[: self.retain])
        else:
            chosen = np.arange(len(everything))
        coming = chosen[chosen >= held]
        if not len(coming):
            return
        index = torch.from_numpy(coming - held).to(self._device)
        if held < self.retain:
            staying = torch.from_numpy(chosen[chosen < held]).to(self._device)
            kept = [torch.cat([old[staying], new[index]]) for old, new in zip(self._kept, rows, strict=True)]
            self._kept = (kept[0], kept[1], kept[2])
            self._kept_priority = everything[chosen]
        else:  # as many leave as come: write in place
            leaving = np.setdiff1d(np.arange(held), chosen[chosen < held], assume_unique=True)
            place = torch.from_numpy(leaving).to(self._device)
            for old, new in zip(self._kept, rows, strict=True):
                old.index_copy_(0, place, new[index])
            self._kept_priority[leaving] = everything[coming]

    # --- merging and saving --------------------------------------------------------------------------------------

    def merge(self, other: Gram) -> Gram:
        """Adds what ``other`` has seen (another process, an earlier run) to this Gram and returns this Gram."""
        if not other._widths:
            return self
        if not self._widths:
            self.load_state_dict(other.state_dict())
            return self
        if self._widths != other._widths:
            raise DataError(f"cannot merge a Gram with blocks {other._widths} into one with blocks {self._widths}")
        if self._product_dtype != other._product_dtype:
            raise DataError(f"cannot merge products in {other._product_dtype} with products in {self._product_dtype}")
        self._flush()
        other._flush()
        if other._pilot is None:
            return self
        if self._pilot is None:
            self.load_state_dict(other.state_dict())
            return self
        shift = torch.cat([(a.double() - b.double()) for a, b in zip(other._pilot, self._pilot, strict=True)]).to(self._device)
        moved = other._about(shift)
        for name, value in moved.items():
            getattr(self, name).add_(value.to(self._device))
        if self.retain:
            kept = tuple(x.to(self._device) for x in other._kept)
            self._select(kept, other._kept_priority)
        for name, dtype in other._dtypes.items():
            self._dtypes[name] = max(self._dtypes[name], dtype, key=lambda t: torch.finfo(t).eps)
        self.num_rows += other.num_rows
        self.weight_sum += other.weight_sum
        self.squared_weight_sum += other.squared_weight_sum
        self.uniform = self.uniform and other.uniform
        self._updates += other._updates
        return self

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
            y, kept_weights = self._kept_deviation(), self._kept[2]
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
        if self._pilot is None:
            raise DataError("the Gram is empty: call update first")
        return self._kept[0].double() - self._pilot[0].double()

    _SUMS = ("_sum", "_features", "_cross", "_small", "_quartic", "_cubic", "_square")
    _COUNTS = ("retain", "num_rows", "weight_sum", "squared_weight_sum", "uniform", "_updates", "_pending_rows")

    def state_dict(self) -> dict[str, Any]:
        """Everything, pending rows too, as tensors and plain values: ``torch.save`` it, load it with weights only."""
        state: dict[str, Any] = {name: getattr(self, name) for name in self._COUNTS}
        state["widths"] = dict(self._widths)
        state["dtypes"] = {name: str(dtype).removeprefix("torch.") for name, dtype in self._dtypes.items()}
        if self._widths:
            state["sums"] = {name: getattr(self, name).clone() for name in self._SUMS}
            state["pilot"] = None if self._pilot is None else [x.clone() for x in self._pilot]
            state["pending"] = [x.clone() for x in self._pending]
            state["kept"] = [x.clone() for x in self._kept]
            state["kept_priority"] = torch.from_numpy(self._kept_priority.view(np.int64).copy())
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes over what :meth:`state_dict` gave; further updates continue as if never interrupted.

        Raises:
            DataError: not such a state; nothing is changed.
        """
        missing = {*self._COUNTS, "widths", "dtypes"} - set(state)
        if not missing and state["widths"]:
            missing = {"sums", "pilot", "pending", "kept", "kept_priority"} - set(state)
        if missing:
            raise DataError(f"not the state of a Gram: {', '.join(sorted(missing))} missing")
        for name in self._COUNTS:
            setattr(self, name, state[name])
        self._widths = dict(state["widths"])
        self._dtypes = {name: getattr(torch, dtype) for name, dtype in state["dtypes"].items()}
        if self._widths:
            for name in self._SUMS:
                setattr(self, name, state["sums"][name].clone())
            self._pilot = None if state["pilot"] is None else (state["pilot"][0].clone(), state["pilot"][1].clone())
            pending, kept = [x.clone() for x in state["pending"]], [x.clone() for x in state["kept"]]
            self._pending = (pending[0], pending[1], pending[2])
            self._kept = (kept[0], kept[1], kept[2])
            self._kept_priority = state["kept_priority"].numpy().copy().view(np.uint64)
            self._product_dtype = pending[0].dtype
            self._device = pending[0].device

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
        return torch.finfo(self._dtypes[name]).eps

    @property
    def product_eps(self) -> float:
        """Rounding unit of the products of features with features."""
        return torch.finfo(self._product_dtype).eps

    def mean(self, name: str) -> Tensor:
        """Weighted mean of a block, (width,) float64."""
        self._ready()
        return self._pilot_of(name) + self._drift(name)

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
        order = torch.from_numpy(np.argsort(self._kept_priority, kind="stable")).to(self._device)
        rows = {"features": (self._kept_deviation() - self._drift("features"))[order]}
        p = self._widths["features"]
        for name in list(self._widths)[1:]:
            columns = self._columns(name)
            rows[name] = self._kept[1][order, columns.start - p : columns.stop - p]
        return rows, self._kept[2][order] / self.weight_sum

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

    def _pilot_of(self, name: str) -> Tensor:
        if self._pilot is None:
            raise DataError("the Gram is empty: call update first")
        return torch.cat([x.double() for x in self._pilot])[self._columns(name)]

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


def _hash(index: np.ndarray) -> np.ndarray:
    """SplitMix64 (Steele, Lea, Flood 2014): spreads consecutive indices evenly over 64 bits."""
    x = (index + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
