"""Stored features and outputs of any framework, read in blocks of rows and measured as a network is."""

from __future__ import annotations

import mmap
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import DataError
from ..functional.inputs import AnyArray, as_matrix, as_tensor
from ..model.rows import Rows
from ..results.richness import Richness
from .measure import measure

BLOCK_BYTES = 2**23
HEAD_TOLERANCE = 1e-3  # between outputs that are stored and those that follow from the head: accelerators multiply in TF32
Source = AnyArray | Iterable[AnyArray]


def measure_arrays(
    features: Source,
    outputs: Source | None = None,
    targets: Source | None = None,
    *,
    start_features: Source | None = None,
    head_weight: AnyArray | None = None,
    head_bias: AnyArray | None = None,
    sample_weights: AnyArray | None = None,
    class_balanced: bool = False,
    progress: bool = False,
) -> Richness:
    """Measure stored features and outputs: was the network that they come from trained in the rich or the lazy regime?

    Arrays are those of NumPy, PyTorch, JAX, TensorFlow or CuPy (by DLPack or the buffer protocol), memory maps, data sets of
    HDF5; or iterables of batches of these. They are read in blocks of rows, so a memory map may be larger than memory.

    Args:
        features: (n, p) floating point: what the last linear layer of the network receives.
        outputs: (n, C) or (n,) floating point: what that layer returns. They follow from ``head_weight`` where it is passed.
        targets: (n,) integer class labels, or (n, T) or (n,) real targets.
        start_features: (n, p₀) features of the same samples at the start of training; adds S_init and λ.
        head_weight: (C, p) weight of the last linear layer, for NC3. The kernel of a layer of Flax or Keras is its transpose.
        head_bias: (C,) its bias.
        sample_weights: (n,) not negative.
        class_balanced: weight the samples so that every class counts equally; takes a second pass.
        progress: show progress (needs ``lazyrich[cli]``).

    Returns:
        :class:`Richness`, as of :func:`measure`. What needs the network itself, such as the norm of its parameters, is None.

    Raises:
        TypeError: not arrays of real numbers; features or outputs that are not floating point.
        DataError: different lengths, shapes that do not fit, no rows, neither ``outputs`` nor ``head_weight``, or outputs that do
            not follow from ``head_weight``.
        NonFiniteError: NaN or infinity; names the block of rows.
        DegenerateError: constant features or outputs.

    Example:
        The outputs are two of three uncorrelated features of equal size, so D_LR is 1 - sqrt(2/3):

        >>> import numpy as np
        >>> x = np.array([[1.0, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]])
        >>> round(measure_arrays(x, x[:, :2]).low_rank, 4)
        0.1835
    """
    named = {"features": features, "outputs": outputs, "targets": targets, "start_features": start_features}
    columns = {name: _Column(name, source) for name, source in named.items() if source is not None}
    first, lasting = columns["features"].first(), all(column.lasting for column in columns.values())
    head = _head(head_weight, head_bias, first)
    if outputs is None and head is None:
        raise DataError("the outputs are missing: pass outputs=, or head_weight= and head_bias= of the last linear layer")
    now = nn.Module() if head is None else head
    then = None if start_features is None else nn.Module() if head is None else _head(head_weight, head_bias, first)

    def rows(model: nn.Module, block: dict[str, Tensor]) -> Rows | Tensor:
        seen = block["start_features" if model is then else "features"]
        if head is None:
            return Rows(seen, block["outputs"])
        answers = model(seen.to(head.weight.dtype))
        if model is now and "outputs" in block:
            _check_same(answers, block["outputs"])
        return answers

    blocks = _Blocks(list(columns.values()))
    with warnings.catch_warnings(record=True) as caught:  # they are to point to the line of the user
        warnings.simplefilter("always")
        result = measure(
            now,
            blocks if lasting else iter(blocks),
            head=head,
            forward=rows,
            targets=None if targets is None else lambda block: block["targets"],
            start=then,
            sample_weights=None if sample_weights is None else as_tensor("sample_weights", sample_weights),
            class_balanced=class_balanced,
            distributed=False,
            device=first.device,
            progress=progress,
        )
    for warning in caught:
        warnings.warn(warning.message, stacklevel=2)
    source = (
        "features and outputs as they were stored" if head is None else "features as they were stored, outputs of head_weight"
    )
    evidence, comparison = result.evidence, result.comparison
    return replace(
        result,
        head="",
        evidence=evidence and replace(evidence, head="", linear=None, returned=source),
        comparison=comparison and replace(comparison, parameter_norm=None, parameter_distance=None),
    )


class _Column:
    """One argument: an array that is cut into blocks of rows, or an iterable of such blocks.

    Attributes:
        name: of the argument.
        array: it can be cut; None for an iterable.
        lasting: whether it can be read twice.
    """

    def __init__(self, name: str, source: Any) -> None:
        self.name, self._batches = name, source
        self.array = _array(name, source)
        self.lasting = self.array is not None or not isinstance(source, Iterator)
        if self.array is not None and (not self.array.shape or not len(self.array)):
            raise DataError(f"{name} must have rows, got an array of shape {tuple(self.array.shape)}")

    def first(self) -> Tensor:
        """The first rows."""
        if self.array is not None:
            return self.rows(0, 1)
        batches = iter(self._batches)
        batch = next(batches, None)
        if batch is None:
            raise DataError(f"{self.name} gave no batches: an empty iterable, or an iterator that was used up")
        if not self.lasting:
            self._batches = chain([batch], batches)
        return self._checked(as_tensor(self.name, batch))

    def rows(self, start: int, stop: int) -> Tensor:
        """Some rows of the array."""
        if self.array is None:
            raise TypeError(f"{self.name} is an iterable of blocks, which cannot be cut")
        rows = self._checked(as_tensor(self.name, self.array[start:stop]))
        _release(self.array)
        return rows

    def batches(self) -> Iterator[Tensor]:
        """The blocks of the iterable."""
        return (self._checked(as_tensor(self.name, batch)) for batch in self._batches)

    def _checked(self, x: Tensor) -> Tensor:
        if self.name == "targets":
            return x
        if not x.is_floating_point():
            raise TypeError(f"{self.name} must be real floating point, got {x.dtype}; convert them to float32")
        if self.name == "outputs":
            x = as_matrix(x)
        if x.ndim < 2:
            raise DataError(f"{self.name} must have shape (n, p), got {tuple(x.shape)} for a block of rows")
        return x


class _Blocks:
    """The rows of all columns, block by block, as often as they are asked for."""

    def __init__(self, columns: list[_Column]) -> None:
        self._arrays = {column.name: column for column in columns if column.array is not None}
        self._iterables = {column.name: column for column in columns if column.array is None}
        lengths = {name: len(column.array) for name, column in self._arrays.items()}
        if len({*lengths.values()}) > 1:
            raise DataError(f"the arrays must have the same length: {_listed(lengths)}")
        self._length = next(iter(lengths.values()), None)

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        start = 0
        for stop, block in self._of_iterables() if self._iterables else ((stop, {}) for stop in self._stops()):
            if self._length is not None and stop > self._length:
                raise self._unequal(stop)
            yield block | {name: column.rows(start, stop) for name, column in self._arrays.items()}
            start = stop
        if self._length not in (None, start):
            raise self._unequal(start)

    def __len__(self) -> int:
        if self._iterables:
            raise TypeError("the number of batches is unknown")
        return len(self._stops())

    def _stops(self) -> list[int]:
        """Where blocks of at most ``BLOCK_BYTES`` end."""
        if self._length is None:
            raise TypeError("all arguments are iterables of blocks, which cannot be cut")
        widest = max(column.rows(0, 1).nbytes for column in self._arrays.values())
        size = max(1, BLOCK_BYTES // widest)
        return [*range(size, self._length, size), self._length]

    def _of_iterables(self) -> Iterator[tuple[int, dict[str, Tensor]]]:
        """Where each block ends, and the block."""
        streams, stop = {name: column.batches() for name, column in self._iterables.items()}, 0
        while True:
            block = {name: next(stream, None) for name, stream in streams.items()}
            present = {name: batch for name, batch in block.items() if batch is not None}
            if not present:
                return
            lengths = {name: 0 if batch is None else len(batch) for name, batch in block.items()}
            if len({*lengths.values()}) > 1:
                raise DataError(f"the batches of all arguments must have the same lengths; after {stop} rows: {_listed(lengths)}")
            stop += next(iter(lengths.values()))
            yield stop, present

    def _unequal(self, rows: int) -> DataError:
        return DataError(f"the arrays have {self._length} rows, and {_listed(dict.fromkeys(self._iterables, rows))} or more")


def _array(name: str, source: Any) -> Any:
    """Something with a shape and rows that can be cut; None for an iterable of such."""
    if hasattr(source, "shape") and hasattr(source, "__getitem__"):
        return source
    try:
        return np.asarray(memoryview(source))
    except TypeError:
        if isinstance(source, Iterable) and not isinstance(source, (str, dict)):
            return None
    raise TypeError(f"{name} must be an array or an iterable of batches, got {type(source).__name__}")


def _release(array: Any) -> None:
    """Give the pages of a memory map back, because the system counts them as memory of this process until it needs them."""
    owner, mode = array, getattr(array, "mode", None)
    while isinstance(owner, np.ndarray):
        owner = owner.base
    if isinstance(owner, mmap.mmap) and mode in ("r", "r+") and hasattr(mmap, "MADV_DONTNEED"):
        owner.madvise(mmap.MADV_DONTNEED)


def _head(weight: AnyArray | None, bias: AnyArray | None, first: Tensor) -> nn.Linear | None:
    """The last linear layer, in a precision that holds its parameters and the features."""
    if weight is None:
        if bias is not None:
            raise DataError("head_bias needs head_weight, (C, p)")
        return None
    w = as_tensor("head_weight", weight)
    b = None if bias is None else as_tensor("head_bias", bias)
    width = first.shape[-1]
    if w.ndim != 2 or w.shape[1] != width:
        hint = ", which is the transpose of that: pass head_weight.T" if w.ndim == 2 and w.shape[0] == width else ""
        raise DataError(f"head_weight must have shape (C, {width}), got {tuple(w.shape)}{hint}")
    if b is not None and b.shape != w.shape[:1]:
        raise DataError(f"head_bias must have shape ({len(w)},), got {tuple(b.shape)}")
    dtype = torch.promote_types(first.dtype, w.dtype)
    head = nn.Linear(width, len(w), bias=b is not None, device="meta", dtype=dtype)
    head.weight = nn.Parameter(w.to(first.device, dtype), requires_grad=False)
    if b is not None:
        head.bias = nn.Parameter(b.to(first.device, dtype), requires_grad=False)
    return head


def _check_same(answers: Tensor, outputs: Tensor) -> None:
    """Raise unless stored outputs are those of the head."""
    if answers.shape != outputs.shape:
        raise DataError(f"outputs have shape {tuple(outputs.shape)}, and head_weight gives {tuple(answers.shape)}")
    deviation = float((answers.double() - outputs.double()).norm() / outputs.double().norm())
    if not deviation <= max(HEAD_TOLERANCE, 4 * torch.finfo(outputs.dtype).eps):
        raise DataError(
            f"outputs are not features @ head_weight.T + head_bias: they differ by {deviation:.2g} of their norm. Pass the "
            "parameters of the layer that returned them, or leave out head_weight"
        )


def _listed(lengths: dict[str, int]) -> str:
    return ", ".join(f"{name} {length}" for name, length in lengths.items())
