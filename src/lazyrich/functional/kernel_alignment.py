"""Centred kernel alignment (CKA) of two blocks of functions, and of the feature kernel with the targets."""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import DegenerateError
from ..gram import FeaturePair, Gram
from .inputs import AnyArray, as_gram, as_pair
from .span import varies


def kernel_alignment(
    features_a: AnyArray | FeaturePair | Gram,
    features_b: AnyArray | None = None,
    *,
    weights: AnyArray | None = None,
    other: str = "outputs",
) -> Tensor:
    """Linear centred kernel alignment (CKA): 1 for kernels that are equal up to scale, 0 for unrelated kernels.

        CKA = ‖Cov(a, b)‖_F² / (‖Cov(a, a)‖_F ‖Cov(b, b)‖_F)

    Against the features of the network at its start this is S_init. Against the targets it is the kernel-target alignment, for
    which :func:`target_alignment` also takes class labels. A shift, a scale or an orthogonal map of either side changes nothing.

    Args:
        features_a: (n, p); or a :class:`~lazyrich.gram.FeaturePair`, whose two blocks are compared; or a :class:`~lazyrich.Gram`,
            whose features are compared with its block ``other``.
        features_b: (n, q) features of the same samples; None for a pair or a Gram.
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
    if isinstance(features_a, Gram):
        sums = as_gram(features_a, features_b, weights=weights, needs=(other,))
        first, second = "features", other
    else:
        sums = as_pair(features_a, features_b, weights=weights)
        first, second = sums.first, sums.second
    for name in (first, second):
        if not varies(sums, name):
            raise DegenerateError(f"{name} are constant over the samples, so an alignment with them is undefined")

    def norm(a: str, b: str) -> Tensor:
        return torch.linalg.matrix_norm(sums.block(a, b, centered=True))

    value = norm(first, second).square() / (norm(first, first) * norm(second, second))
    return value.clamp_max(1)  # the bound of Cauchy and Schwarz, which rounding may exceed


def target_alignment(features: AnyArray | Gram, targets: AnyArray | None = None, *, weights: AnyArray | None = None) -> Tensor:
    """Kernel-target alignment CKA(T, f*f*ᵀ): how similar the feature kernel is to the kernel of the targets.

    Args:
        features: (n, p), or a :class:`~lazyrich.Gram` with targets.
        targets: (n,) integer class labels, or (n, T) real.
        weights: (n,) not negative.

    Returns and raises the same as :func:`kernel_alignment`.

    Example:
        One-hot features of the class have the target kernel:

        >>> import torch
        >>> target_alignment(torch.eye(3, dtype=torch.float64)[[0, 1, 2, 0, 1, 2]], torch.tensor([0, 1, 2, 0, 1, 2]))
        tensor(1., dtype=torch.float64)
    """
    gram = as_gram(features, None, targets, weights=weights)
    return kernel_alignment(gram, other="targets")
