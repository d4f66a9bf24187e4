"""What the functions take: tensors, arrays of other libraries, or a Gram or a pair of feature blocks that has seen them."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from ..errors import DataError
from ..gram import FeaturePair, Gram
from ..gram.accumulator import Accumulator


class SupportsDLPack(Protocol):
    """An array of JAX, CuPy, TensorFlow or another library that shares its memory by DLPack."""

    def __dlpack__(self, **options: Any) -> Any:
        """The memory of the array, as DLPack describes it."""
        ...


AnyArray = Tensor | np.ndarray | SupportsDLPack


def as_tensor(name: str, x: Any) -> Tensor:
    """A tensor of the values of an array: without a copy where its memory can be shared and is writable.

    Args:
        name: of the argument, for errors.
        x: a tensor; an array of NumPy, or of a library that supports DLPack, the buffer protocol or ``__array__``.

    Raises:
        TypeError: not an array, or its elements are not numbers.

    Example:
        >>> as_tensor("features", np.array([[1.0, 2.0]]))
        tensor([[1., 2.]], dtype=torch.float64)
    """
    if isinstance(x, Tensor):
        return x
    if not isinstance(x, np.ndarray) and hasattr(x, "__dlpack__"):
        return torch.from_dlpack(x)
    has_values: Any = x
    try:
        array = np.asarray(has_values if hasattr(x, "__array__") else memoryview(has_values))
    except TypeError as error:
        kind = type(x).__name__
        raise TypeError(f"{name} must be a tensor or an array, got {kind}; convert it with numpy.asarray") from error
    if array.dtype.name == "bfloat16":  # of ml_dtypes: NumPy has no such type
        return torch.from_numpy(array.astype(np.float32)).bfloat16()
    if array.dtype.kind not in "fiub":
        raise TypeError(f"{name} must hold real numbers, got an array of dtype {array.dtype}")
    if array.dtype.kind == "u" and array.dtype.itemsize > 1:
        array = array.astype(np.int64)  # PyTorch can do little with wider unsigned integers
    if array.dtype.itemsize > 8:
        array = array.astype(np.float64)
    if not array.dtype.isnative or not array.flags.writeable or min(array.strides, default=0) < 0:
        array = array.astype(array.dtype.newbyteorder("="))
    return torch.from_numpy(array)


def as_gram(
    features: AnyArray | Gram,
    outputs: AnyArray | None = None,
    targets: AnyArray | None = None,
    *,
    weights: AnyArray | None = None,
    retain: int = 0,
    needs: tuple[str, ...] = (),
    double: bool = False,
    head_bias: bool = True,
) -> Gram:
    """A Gram of the tensors or arrays, or the Gram that was passed.

    Args:
        features: (n, p), or a Gram.
        outputs: (n, C) or (n,).
        targets: (n, T) or (n,) real, or (n,) integer class labels.
        weights: (n,) not negative.
        retain: number of rows that a new Gram retains.
        needs: blocks that the Gram must have.
        double: whether products of the features of a new Gram are formed in float64, because products in float32 would round
            small singular values away. What rounding the features themselves have is still that of their dtype.
        head_bias: of a new Gram.

    Raises:
        TypeError: a block is no array of numbers, or arrays were passed together with a Gram.
        DataError: shapes that do not match, fewer than two samples, or a missing block.
    """
    if isinstance(features, Gram):
        if outputs is not None or targets is not None or weights is not None:
            raise TypeError("a Gram already holds outputs, targets and weights: pass the Gram alone")
        if features.head_bias and not head_bias:
            raise TypeError("a Gram has its own head_bias: build it by Gram(head_bias=False)")
        gram = features
    else:
        arguments = {"features": features, "outputs": outputs, "targets": targets}
        blocks = {name: _block(name, x) for name, x in arguments.items() if x is not None}
        gram = Gram(retain=retain, head_bias=head_bias)
        if double and blocks["features"].is_floating_point():
            gram = Gram(retain=retain, head_bias=head_bias, dtypes={"features": blocks["features"].dtype})
            blocks["features"] = blocks["features"].double()
        gram.update(**blocks, weights=_weights(weights))
    _must_suffice(gram)
    for name in needs:
        if name not in gram.widths:
            raise DataError(f"this measure needs {name}, and none were passed")
    return gram


def as_pair(
    features_a: AnyArray | FeaturePair,
    features_b: AnyArray | None = None,
    *,
    weights: AnyArray | None = None,
    retain: int = 0,
) -> FeaturePair:
    """A pair of the tensors or arrays, or the pair that was passed; arguments and errors as for :func:`as_gram`."""
    if isinstance(features_a, FeaturePair):
        if features_b is not None or weights is not None:
            raise TypeError("a FeaturePair already holds both blocks and the weights: pass the FeaturePair alone")
        pair = features_a
    elif features_b is None:
        raise DataError("this measure needs features_b, the features that features_a are compared with")
    else:
        pair = FeaturePair(retain=retain)
        pair.update(_block("features_a", features_a), _block("features_b", features_b), _weights(weights))
    _must_suffice(pair)
    return pair


def _weights(weights: AnyArray | None) -> Tensor | None:
    return None if weights is None else as_tensor("weights", weights)


def _block(name: str, x: AnyArray) -> Tensor:
    x = as_tensor(name, x)
    if name == "targets":
        x = target_matrix(x)
    elif name in ("outputs", "features_b"):
        x = as_matrix(x)
    if x.ndim != 2:
        raise DataError(f"{name} must have shape (n, width), got {tuple(x.shape)}; flatten or average the other dimensions")
    return x


def _must_suffice(sums: Accumulator) -> None:
    if sums.count < 2:
        raise DataError(f"at least 2 samples are needed for a covariance, got {sums.count}")


def are_labels(targets: Tensor) -> bool:
    """Whether targets are class labels, (n,) of a type that is not floating point."""
    return targets.ndim == 1 and not targets.is_floating_point()


def target_matrix(targets: Tensor, num_classes: int | None = None) -> Tensor:
    """(n, T) targets: one-hot rows of class labels, a column of (n,) real targets, else the targets themselves.

    Raises:
        DataError, TypeError: as :func:`one_hot`.
    """
    return one_hot(targets, num_classes) if are_labels(targets) else as_matrix(targets)


def as_matrix(x: Tensor) -> Tensor:
    """A vector (n,) as a column (n, 1); anything else as it is."""
    return x.unsqueeze(1) if x.ndim == 1 else x


def one_hot(labels: Tensor, num_classes: int | None = None) -> Tensor:
    """One-hot rows (n, num_classes) of (n,) integer labels, float64; by default there are max(labels) + 1 classes.

    Raises:
        TypeError: labels that are not integers.
        DataError: labels of another shape, or outside 0 … num_classes - 1; the error names the label.
    """
    if labels.ndim != 1:
        raise DataError(f"labels must have shape (n,), one class number for each sample; got {tuple(labels.shape)}")
    if labels.dtype == torch.bool or labels.is_floating_point() or labels.is_complex():
        raise TypeError(f"labels must be integers, got {labels.dtype}; convert them with .long()")
    if num_classes is None:
        num_classes = int(labels.max()) + 1 if len(labels) else 1  # without labels, a later error says that there are no samples
    if len(labels) and (int(labels.min()) < 0 or int(labels.max()) >= num_classes):
        bad = int(labels[(labels < 0) | (labels >= num_classes)][0])
        raise DataError(f"label {bad} is out of range: with num_classes = {num_classes} classes are 0 … {num_classes - 1}")
    rows = torch.zeros(len(labels), num_classes, dtype=torch.float64, device=labels.device)
    return rows.scatter_(1, labels.long().unsqueeze(1), 1.0)
