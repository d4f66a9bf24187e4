"""Effective ranks of features: over how many directions their variance is spread."""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import DegenerateError
from ..gram import Gram
from .eigen import eigenvalues
from .inputs import AnyArray, as_gram, as_tensor
from .span import varies

RANKME_EPS = 1e-7  # ε of the RankMe paper


def effective_rank(features: AnyArray | Gram, *, weights: AnyArray | None = None, eps: float = 0.0) -> float:
    """Entropy rank of the centred covariance: exp(-Σ p_k log p_k), p_k = λ_k/Σλ + eps.

    Args:
        features: (n, p), or a :class:`~lazyrich.Gram`.
        weights: (n,) not negative.
        eps: constant that is added to every share. The definition has none; some packages add RankMe's 1e-7 here too.

    Returns:
        A number between 1 and min(n, p).

    Raises:
        DataError: shapes that do not match, fewer than two samples.
        NonFiniteError: NaN or infinity.
        DegenerateError: constant features.

    Reference:
        Roy & Vetterli, EUSIPCO 2007, with the eigenvalues of the covariance instead of singular values.

    Example:
        Three equally strong, uncorrelated features have rank 3:

        >>> import torch
        >>> x = torch.tensor([[1., 1, 1], [-1, 1, -1], [1, -1, -1], [-1, -1, 1]])
        >>> round(effective_rank(x + 100), 6)
        3.0
    """
    gram = varying(features, weights)
    values = eigenvalues(gram, centered=True)[: gram.count]
    return float(torch.special.entr(values / values.sum() + eps).sum().exp())


def participation_ratio(features: AnyArray | Gram, *, weights: AnyArray | None = None) -> float:
    """Participation ratio tr(S_c)²/‖S_c‖_F² = (Σλ)²/Σλ² of the centred covariance.

    Arguments, result and errors are those of :func:`effective_rank`.

    Reference:
        Gao et al., bioRxiv 214262 (2017).

    Example:
        Two features of variance 9 and 1 count as (9 + 1)²/(81 + 1) = 1.22:

        >>> import torch
        >>> x = torch.tensor([[3., 1.], [-3., 1.], [3., -1.], [-3., -1.]])
        >>> round(participation_ratio(x), 2)
        1.22
    """
    gram = varying(features, weights)
    covariance = gram.block("features", "features", centered=True)
    return float(covariance.trace().square() / covariance.square().sum())


def stable_rank(features: AnyArray | Gram, *, weights: AnyArray | None = None) -> float:
    """Stable rank ‖Φ‖_F²/‖Φ‖₂² of the raw, uncentred feature matrix.

    Arguments, result and errors are those of :func:`effective_rank`, except that constant features other than zero have rank 1.

    Reference:
        Rudelson & Vershynin, J. ACM 54 (2007).

    Example:
        Singular values 3 and 1 give (9 + 1)/9:

        >>> import torch
        >>> round(stable_rank(torch.tensor([[3.0, 0.0], [0.0, 1.0]])), 3)
        1.111
    """
    values = eigenvalues(as_gram(in_double(features), weights=weights), centered=False)
    _not_zero(values)
    return float(values.sum() / values[0])


def rankme(features: AnyArray | Gram, *, weights: AnyArray | None = None) -> float:
    """RankMe: entropy rank exp(-Σ p_k log p_k) of the raw singular values, p_k = σ_k/‖σ‖₁ + 1e-7.

    As in the paper, the features are not centred, and p_k are shares of singular values, not of eigenvalues. The sum has
    min(n, p) terms. Arguments, result and errors are those of :func:`effective_rank`, except that constant features other than
    zero have rank 1.

    Reference:
        Garrido, Balestriero, Najman & LeCun, ICML 2023, arXiv 2210.02885, equation 3.

    Example:
        Singular values 3 and 1 give the entropy of (3/4, 1/4), exp(0.562) = 1.755:

        >>> import torch
        >>> round(rankme(torch.tensor([[3.0, 0.0], [0.0, 1.0]])), 3)
        1.755
    """
    gram = as_gram(in_double(features), weights=weights)
    values = eigenvalues(gram, centered=False)[: gram.count]
    _not_zero(values)
    # The products are taken about the mean, so their rounding depends on the covariance and not on a common offset.
    products = gram.product_eps * float(torch.linalg.matrix_norm(gram.block("features", "features", centered=True)))
    cut = max(1e-3 * products, torch.finfo(torch.float64).eps * float(values[0]))
    singular = torch.where(values > cut, values, 0.0).sqrt()
    share = singular / singular.sum() + RANKME_EPS
    return float(torch.special.entr(share).sum().exp())


def in_double(features: AnyArray | Gram) -> Tensor | Gram:
    """Convert tensors to double precision, because float32 products would round small singular values away."""
    if isinstance(features, Gram):
        return features
    features = as_tensor("features", features)
    return features.double() if features.is_floating_point() else features


def varying(features: AnyArray | Gram, weights: AnyArray | None) -> Gram:
    """A Gram of the features, which must not be constant.

    Raises:
        DegenerateError: constant features.
    """
    gram = as_gram(in_double(features), weights=weights)
    if not varies(gram, "features"):
        raise DegenerateError("features are constant over the samples (dead): their covariance has no rank")
    return gram


def _not_zero(values: Tensor) -> None:
    if values[0] <= 0:
        raise DegenerateError("features are all zero, so they have no rank")
