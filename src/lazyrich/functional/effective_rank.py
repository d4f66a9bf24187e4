"""Effective ranks of features: how many directions carry them."""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import DegenerateError
from ..gram import Gram
from ._eigen import eigvalsh
from ._inputs import as_gram
from ._span import varies

RANKME_EPS = 1e-7  # ε of the RankMe paper


def effective_rank(features: Tensor | Gram, *, weights: Tensor | None = None, eps: float = 0.0) -> float:
    """Entropy rank of the centred covariance: exp(-Σ p_k log p_k), p_k = λ_k/Σλ + eps.

    Args:
        features: (n, p), or a :class:`~lazyrich.Gram`.
        weights: (n,) not negative.
        eps: added to every share, which the definition does not do; some packages add RankMe's 1e-7 here too.

    Raises:
        DataError: shapes, fewer than two samples.
        NonFiniteError: NaN or infinity.
        DegenerateError: constant features.

    Reference:
        Roy & Vetterli, EUSIPCO 2007, with the eigenvalues of the covariance in place of singular values.

    Example:
        Three equally strong, uncorrelated features have rank 3:

        >>> import torch
        >>> x = torch.tensor([[1., 1, 1], [-1, 1, -1], [1, -1, -1], [-1, -1, 1]])
        >>> round(effective_rank(x + 100), 6)
        3.0
    """
    values = covariance_eigenvalues(_double(features), weights)
    values = values[: _count(features)]
    return float(torch.special.entr(values / values.sum() + eps).sum().exp())


def participation_ratio(features: Tensor | Gram, *, weights: Tensor | None = None) -> float:
    """tr(S_c)²/‖S_c‖_F² = (Σλ)²/Σλ² of the centred covariance.

    Arguments and errors as :func:`effective_rank`.

    Reference:
        Gao et al., bioRxiv 214262 (2017).

    Example:
        Two features of variance 9 and 1 count as (9 + 1)²/(81 + 1) = 1.22:

        >>> import torch
        >>> x = torch.tensor([[3., 1.], [-3., 1.], [3., -1.], [-3., -1.]])
        >>> round(participation_ratio(x), 2)
        1.22
    """
    gram = _varying(_double(features), weights)
    covariance = gram.block("features", "features", centered=True)
    return float(covariance.trace().square() / covariance.square().sum())


def stable_rank(features: Tensor | Gram, *, weights: Tensor | None = None) -> float:
    """‖Φ‖_F²/‖Φ‖₂² of the raw, uncentred feature matrix.

    Arguments and errors as :func:`effective_rank`, but constant features other than zero have rank 1.

    Reference:
        Rudelson & Vershynin, J. ACM 54 (2007).

    Example:
        Singular values 3 and 1 give (9 + 1)/9:

        >>> import torch
        >>> round(stable_rank(torch.tensor([[3.0, 0.0], [0.0, 1.0]])), 3)
        1.111
    """
    values = _raw_eigenvalues(features, weights)
    return float(values.sum() / values[0])


def rankme(features: Tensor | Gram, *, weights: Tensor | None = None) -> float:
    """RankMe: entropy rank exp(-Σ p_k log p_k) of the raw singular values, p_k = σ_k/‖σ‖₁ + 1e-7.

    The features are not centred, and p_k are singular values, not eigenvalues, as in the paper. The sum has min(n, p) terms.
    Arguments and errors as :func:`effective_rank`, but constant features other than zero have rank 1.

    Reference:
        Garrido, Balestriero, Najman & LeCun, ICML 2023, arXiv 2210.02885, equation 3.

    Example:
        Singular values 3 and 1 give the entropy of (3/4, 1/4), exp(0.562) = 1.755:

        >>> import torch
        >>> round(rankme(torch.tensor([[3.0, 0.0], [0.0, 1.0]])), 3)
        1.755
    """
    singular = _raw_eigenvalues(features, weights).sqrt()
    share = singular / singular.sum() + RANKME_EPS
    return float(torch.special.entr(share).sum().exp())


def covariance_eigenvalues(features: Tensor | Gram, weights: Tensor | None = None) -> Tensor:
    """(p,) of the centred covariance, descending, not negative."""
    gram = _varying(features, weights)
    return eigvalsh(gram.block("features", "features", centered=True)).flip(0).clamp_min(0)


def _count(features: Tensor | Gram) -> int:
    return features.count if isinstance(features, Gram) else len(features)


def _double(features: Tensor | Gram) -> Tensor | Gram:
    """Tensors in double precision, so that small singular values are not rounding of float32 products."""
    return features.double() if isinstance(features, Tensor) and features.is_floating_point() else features


def _varying(features: Tensor | Gram, weights: Tensor | None) -> Gram:
    gram = as_gram(features, weights=weights)
    if not varies(gram, "features"):
        raise DegenerateError("features are constant over the samples (dead): their covariance has no rank")
    return gram


def _raw_eigenvalues(features: Tensor | Gram, weights: Tensor | None) -> Tensor:
    """(min(n, p),) squared singular values over n, descending; those under the rounding of float32 products are 0."""
    gram = as_gram(_double(features), weights=weights)
    values = eigvalsh(gram.block("features", "features")).flip(0)[: gram.count]
    if values[0] <= 0:
        raise DegenerateError("features are all zero: they have no rank")
    return torch.where(values > gram.product_eps * values[0] * 1e-3, values, 0.0)
