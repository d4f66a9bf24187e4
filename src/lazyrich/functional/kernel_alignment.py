"""Centred kernel alignment of two sets of functions, and of the feature kernel with the targets."""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import DegenerateError
from ..gram import Gram
from .inputs import as_gram
from .span import varies


def kernel_alignment(
    features_a: Tensor | Gram, features_b: Tensor | None = None, *, weights: Tensor | None = None, other: str = "outputs"
) -> Tensor:
    """Linear CKA: 1 for the same kernel up to scale, 0 for unrelated ones.

        CKA = ‖Cov(a, b)‖_F² / (‖Cov(a, a)‖_F ‖Cov(b, b)‖_F)

    Against the features of the starting network this is S_init. Against targets it is the kernel-target alignment, for
    which :func:`target_alignment` takes class labels too. Neither shift, scale nor an orthogonal map of either side changes it.

    Args:
        features_a: (n, p), or a :class:`~lazyrich.Gram`, whose features are compared with its block ``other``.
        features_b: (n, q) of the same samples; None for a Gram.
        weights: (n,) not negative.
        other: "outputs" or "targets", the block of a Gram to compare with.

    Returns:
        0-d float64 tensor in [0, 1].

    Raises:
        DataError: shapes that do not match, fewer than two samples.
        NonFiniteError: NaN or infinity.
        DegenerateError: one side is constant.

    Reference:
        Kornblith, Norouzi, Lee & Hinton, ICML 2019; Cortes, Mohri & Rostamizadeh, JMLR 13 (2012).

    Example:
        Two of three equally strong, uncorrelated features have CKA sqrt(2/3) with all three:

        >>> import torch
        >>> x = torch.tensor([[1., 1, 1], [-1, 1, -1], [1, -1, -1], [-1, -1, 1]], dtype=torch.float64)
        >>> kernel_alignment(x, x[:, :2])
        tensor(0.8165, dtype=torch.float64)
    """
    gram = as_gram(features_a, features_b, weights=weights, needs=(other,))
    for name in ("features", other):
        if not varies(gram, name):
            raise DegenerateError(f"{name} are constant over the samples: an alignment with them is undefined")

    def norm(first: str, second: str) -> Tensor:
        return torch.linalg.matrix_norm(gram.block(first, second, centered=True))

    value = norm("features", other).square() / (norm("features", "features") * norm(other, other))
    return value.clamp_max(1)  # Cauchy-Schwarz up to rounding


def target_alignment(features: Tensor | Gram, targets: Tensor | None = None, *, weights: Tensor | None = None) -> Tensor:
    """Kernel-target alignment CKA(T, f*f*ᵀ): how much of the feature kernel is the targets'.

    Args:
        features: (n, p), or a :class:`~lazyrich.Gram` with targets.
        targets: (n,) integer class labels, or (n, T) real.
        weights: (n,) not negative.

    Returns and raises as :func:`kernel_alignment`.

    Example:
        One-hot features of the class are the target kernel itself:

        >>> import torch
        >>> target_alignment(torch.eye(3, dtype=torch.float64)[[0, 1, 2, 0, 1, 2]], torch.tensor([0, 1, 2, 0, 1, 2]))
        tensor(1., dtype=torch.float64)
    """
    gram = as_gram(features, None, targets, weights=weights)
    return kernel_alignment(gram, other="targets")
