"""What every function takes: tensors, or a Gram that has seen them."""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import DataError
from ..gram import Gram


def as_gram(
    features: Tensor | Gram,
    outputs: Tensor | None = None,
    targets: Tensor | None = None,
    *,
    weights: Tensor | None = None,
    retain: int = 0,
    needs: tuple[str, ...] = (),
) -> Gram:
    """A Gram of the tensors, or the one given; raises where a block that is needed is missing."""
    if isinstance(features, Gram):
        if outputs is not None or targets is not None or weights is not None:
            raise TypeError("a Gram already holds outputs, targets and weights: pass the Gram alone")
        gram = features
    else:
        named = {"features": features, "outputs": outputs, "targets": targets}
        given = {name: _matrix(name, x) for name, x in named.items() if x is not None}
        gram = Gram(retain=retain)
        gram.update(given["features"], given.get("outputs"), given.get("targets"), weights)
    if gram.count < 2:
        raise DataError(f"at least 2 samples are needed for a covariance, got {gram.count}")
    for name in needs:
        if name not in gram.widths:
            raise DataError(f"this measure needs {name}, and none were given")
    return gram


def _matrix(name: str, x: Tensor) -> Tensor:
    if not isinstance(x, Tensor):
        raise TypeError(f"{name} must be a torch.Tensor, got {type(x).__name__}; convert with torch.as_tensor")
    if name != "features":
        x = target_matrix(x) if name == "targets" else _columns(x)
    if x.ndim != 2:
        raise DataError(f"{name} must have shape (n, width), got {tuple(x.shape)}; flatten or average the other dimensions")
    return x


def are_labels(targets: Tensor) -> bool:
    """Whether targets are class labels, (n,) of a type that is not floating point."""
    return targets.ndim == 1 and not targets.is_floating_point()


def target_matrix(targets: Tensor, num_classes: int | None = None) -> Tensor:
    """(n, T) targets: one-hot rows of class labels, a column of (n,) real targets, else the targets themselves.

    Raises:
        DataError, TypeError: as :func:`one_hot`.
    """
    return one_hot(targets, num_classes) if are_labels(targets) else _columns(targets)


def _columns(x: Tensor) -> Tensor:
    return x.unsqueeze(1) if x.ndim == 1 else x


def one_hot(labels: Tensor, num_classes: int | None = None) -> Tensor:
    """(n,) integer labels -> (n, num_classes) float64.

    Raises:
        DataError: labels that are not whole numbers, or that lie outside 0 … num_classes - 1 (the error names the class).
    """
    if labels.ndim != 1:
        raise DataError(f"labels must have shape (n,), one class number for each sample, got {tuple(labels.shape)}")
    if labels.dtype == torch.bool or labels.is_floating_point() or labels.is_complex():
        raise TypeError(f"labels must be integers, got {labels.dtype}; convert them with .long()")
    if num_classes is None:
        num_classes = int(labels.max()) + 1 if len(labels) else 1  # so that it is the samples that are said to be missing
    if len(labels) and (int(labels.min()) < 0 or int(labels.max()) >= num_classes):
        bad = int(labels[(labels < 0) | (labels >= num_classes)][0])
        raise DataError(f"label {bad} is out of range: with num_classes = {num_classes} classes are 0 … {num_classes - 1}")
    rows = torch.zeros(len(labels), num_classes, dtype=torch.float64, device=labels.device)
    return rows.scatter_(1, labels.long().unsqueeze(1), 1.0)
