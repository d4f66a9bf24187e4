"""Effective ranks of features: over how many directions their variance is spread."""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import DegenerateError
from ..gram import Gram
from .eigen import above_rounding, eigenvalues
from .inputs import AnyArray, as_gram
from .span import must_not_underflow, varies

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
    gram = as_gram(features, weights=weights, double=True)
    values = _not_zero(gram)
    return float(values.sum() / values[0])


def rankme(features: AnyArray | Gram, *, weights: AnyArray | None = None) -> float:
    """RankMe: entropy rank exp(-Σ p_k log p_k) of the raw singular values, p_k = σ_k/‖σ‖₁ + 1e-7.

    As in the paper, the features are not centred, and p_k are shares of singular values, not of eigenvalues. The sum has
    min(n, p) terms. A singular value that rounding of the activations, or of products in float32, may have made counts as zero,
    so that tensors and a pass over the data give the same number. Arguments, result and errors are those of
    :func:`effective_rank`, except that constant features other than zero have rank 1.

    Reference:
        Garrido, Balestriero, Najman & LeCun, ICML 2023, arXiv 2210.02885, equation 3.

    Example:
        Singular values 3 and 1 give the entropy of (3/4, 1/4), exp(0.562) = 1.755:

        >>> import torch
        >>> round(rankme(torch.tensor([[3.0, 0.0], [0.0, 1.0]])), 3)
        1.755
    """
    gram = as_gram(features, weights=weights, double=True)
    _not_zero(gram)
    singular = above_rounding(gram, centered=False)[: gram.count].sqrt()
    share = singular / singular.sum() + RANKME_EPS
    return float(torch.special.entr(share).sum().exp())


def varying(features: AnyArray | Gram, weights: AnyArray | None) -> Gram:
    """A Gram of the features, which must not be constant.

    Raises:
        DegenerateError: constant features.
    """
    gram = as_gram(features, weights=weights, double=True)
    if not varies(gram, "features"):
        raise DegenerateError("features are constant over the samples (dead): their covariance has no rank")
    return gram


def _not_zero(gram: Gram) -> Tensor:
    must_not_underflow(gram, "features")
    values = eigenvalues(gram, centered=False)
    if values[0] <= 0:
        raise DegenerateError("features are all zero, so they have no rank")
    return values
