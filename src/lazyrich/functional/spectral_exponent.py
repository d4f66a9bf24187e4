"""α-ReQ: the exponent of the decay of the feature covariance's eigenvalues."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import DataError
from ..gram import Gram
from .effective_rank import varying
from .eigen import above_rounding
from .inputs import AnyArray

LEAST_RANKS = 5  # of a fit


@dataclass(frozen=True)
class PowerLaw:
    """The law λ_i ∝ i^-α, with the range and the quality of its fit.

    Attributes:
        alpha: the exponent α, also ``float(law)``.
        first, last: the first and the last rank of the fit, counted from 1.
        r_squared: share of the variance of log λ that the fit explains; 1 for an exact power law.
    """

    alpha: float
    first: int
    last: int
    r_squared: float

    def __float__(self) -> float:
        return self.alpha

    def __str__(self) -> str:
        return f"α = {self.alpha:.3f} over ranks {self.first} to {self.last}, R² = {self.r_squared:.3f}"


def alpha_req(
    features: AnyArray | Gram, *, fit_range: tuple[int, int] | None = None, weights: AnyArray | None = None
) -> PowerLaw:
    """α-ReQ: the exponent α from the least-squares fit of log λ_i on log i, with λ_i the eigenvalues of the centred covariance.

    Rank i has the weight 1/i, so that each octave of ranks counts the same, as in Stringer et al. (2019).

    Args:
        features: (n, p), or a :class:`~lazyrich.Gram`.
        fit_range: first and last rank of the fit, counted from 1. By default the fit starts at rank 11 (at 1 if the numerical
            rank is below 50) and ends at half the numerical rank, because the end of every sample spectrum bends down. The
            numerical rank counts the eigenvalues above the rounding of the activations and of products in float32, so that
            tensors and a pass over the data use the same ranks.
        weights: (n,) not negative.

    Raises:
        DataError: fewer than five ranks to fit.
        ValueError: a range outside 1 … numerical rank.
        DegenerateError, NonFiniteError: as for :func:`effective_rank`.

    Reference:
        Agrawal, Mondal, Ghosh & Richards, NeurIPS 2022.

    Example:
        Singular values 1/i give eigenvalues 1/i², so the exponent is 2:

        >>> import torch
        >>> basis = torch.linalg.qr(torch.randn(200, 50, generator=torch.Generator().manual_seed(0), dtype=torch.float64)).Q
        >>> basis = torch.linalg.qr(torch.cat([torch.ones(200, 1, dtype=torch.float64), basis], dim=1)).Q[:, 1:]  # centred
        >>> law = alpha_req(basis / torch.arange(1, 51))
        >>> round(law.alpha, 6), law.first, law.last, round(law.r_squared, 6)
        (2.0, 11, 25, 1.0)
    """
    values = above_rounding(varying(features, weights), centered=True)
    return power_law(values[: int((values > 0).cumprod(0).sum())], fit_range)


def power_law(values: Tensor, fit_range: tuple[int, int] | None = None) -> PowerLaw:
    """Fit the law to eigenvalues that are above rounding, descending; ``fit_range`` and errors as for :func:`alpha_req`."""
    rank = len(values)
    if fit_range is None and not rank:
        raise DataError(f"a power law needs at least {LEAST_RANKS} ranks, and no eigenvalue is above rounding")
    first, last = fit_range if fit_range is not None else (11 if rank >= 50 else 1, max(rank // 2, min(rank, LEAST_RANKS)))
    if not 1 <= first <= last <= rank:
        raise ValueError(f"fit_range must lie in 1 … {rank}, the numerical rank of the features, got {fit_range}")
    if last - first + 1 < LEAST_RANKS:
        raise DataError(f"a power law needs at least {LEAST_RANKS} ranks, got {last - first + 1} ({first} to {last})")
    index = torch.arange(first, last + 1, dtype=torch.float64, device=values.device)
    x, y, w = index.log(), values[first - 1 : last].log(), (1 / index) / (1 / index).sum()
    x_deviation, y_deviation = x - w @ x, y - w @ y
    slope = (w * x_deviation) @ y_deviation / (w @ x_deviation.square())
    rest = w @ (y_deviation - slope * x_deviation).square()
    spread = float(w @ y_deviation.square())
    return PowerLaw(-float(slope), first, last, 1 - float(rest) / spread if spread > 0 else 1.0)
