"""Influences of rows on an estimate, from which the errors of differences and ratios of estimates follow."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

_NORMAL = 1.959964  # 97.5 % quantile


@dataclass(frozen=True)
class Influence:
    """How far each retained row moves D_LR, so that errors of differences and ratios follow from those of the same rows.

    Attributes:
        moves: (m,) change of D_LR through the row; the variance is the sum of their squares, times what each row stands for.
        stands_for: (m,) see :class:`Design`.
        samples: effective number of samples.
    """

    moves: Tensor
    stands_for: Tensor
    samples: float

    @property
    def variance(self) -> float:
        """Variance of the estimate to first order."""
        return float(self.stands_for @ self.moves.square())

    @property
    def freedom(self) -> float:
        """Degrees of freedom of the variance: few if few rows decide."""
        shares = self.stands_for * self.moves.square()
        if not self.variance:
            return math.inf
        spread = float(shares.square().sum()) / self.variance**2 - 1 / len(shares)
        return max(2 / max(spread, 2 / self.samples), 3.0)

    @property
    def effective_rows(self) -> float:
        """Number of rows, had all the same influence, that would leave the variance as uncertain as it is."""
        return self.variance**2 / float(self.stands_for @ self.moves.square().square()) if self.variance else self.samples

    @property
    def largest_share(self) -> float:
        """Share of the row that decides most, in the sum of squared influences."""
        return float(self.moves.square().max()) / self.variance if self.variance else 0.0

    def less(self, other: Influence, own: float = 1.0, others: float = 1.0) -> Influence | None:
        """``own`` times these moves less ``others`` times the other's; None if the rows are not the same."""
        if len(self.moves) != len(other.moves) or not torch.equal(self.stands_for, other.stands_for):
            return None
        return Influence(own * self.moves - others * other.moves, self.stands_for, self.samples)


def interval(value: float, stderr: float, freedom: float) -> tuple[float, float]:
    """95 % interval with Student's quantile (Cornish-Fisher expansion, exact to 1 % from 3 degrees of freedom)."""
    z, v = _NORMAL, freedom
    quantile = z + (z**3 + z) / (4 * v) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * v**2)
    quantile += (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * v**3)
    return value - quantile * stderr, value + quantile * stderr
