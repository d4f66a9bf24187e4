"""Influences of rows on an estimate, from which the errors of differences and ratios of estimates follow."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..gram.retained_rows import adding_up_to

_ENOUGH_COMMON = 30  # common rows from which the error of a difference is estimated, unless there are no others
FEW = 8  # samples below which there is no error
ONE_DECIDES = 0.9  # share of one row in the sum of squared influences above which there is no error
_NORMAL = 1.959964  # 97.5 % quantile


@dataclass(frozen=True)
class Influence:
    """How far each retained row moves D_LR, so that errors of differences and ratios follow from those of the same rows.

    Attributes:
        moves: (m,) change of D_LR through the row; the variance is the sum of their squares, times what each row stands for.
        stands_for: (m,) see :class:`Design`.
        keys: (m,) int64, the identity of each row.
        samples: effective number of samples.
    """

    moves: Tensor
    stands_for: Tensor
    keys: Tensor
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
        """``own`` times these moves less ``others`` times the other's; None if the two are not of the same rows.

        Where the two have retained different ones among the same rows, the common ones count. Both samples took the same random
        number for a row, so that it is in both with the smaller of the two probabilities, and stands for the larger number.
        """
        mine, theirs = self, other
        if not torch.equal(self.keys, other.keys):
            common = np.intersect1d(self.keys.cpu().numpy(), other.keys.cpu().numpy(), return_indices=True)[1:]
            mine, theirs = self._some(common[0]), other._some(common[1])
        enough = len(mine.moves) >= min(_ENOUGH_COMMON, len(self.moves), len(other.moves))
        if not enough or not math.isclose(self.samples, other.samples, rel_tol=1e-6):
            return None
        moves = own * mine.moves.double() - others * theirs.moves.double()
        stands_for = torch.maximum(mine.stands_for, theirs.stands_for).double()
        return Influence(moves, adding_up_to(float(self.stands_for.double().sum()), stands_for), mine.keys, self.samples)

    def joined(self, other: Influence) -> Influence:
        """The moves of both, whose rows are independent: the variance is the sum of the two."""
        parts = [torch.cat([getattr(one, name) for one in (self, other)]) for name in ("moves", "stands_for", "keys")]
        return Influence(*parts, samples=self.samples + other.samples)

    def _some(self, rows: np.ndarray) -> Influence:
        index = torch.from_numpy(rows).to(self.keys.device)
        return Influence(self.moves[index], self.stands_for[index], self.keys[index], self.samples)

    def stored(self) -> Influence:
        """The same on the CPU, rounded to float32, in which it is stored."""
        return replace(self, moves=self.moves.float().cpu(), stands_for=self.stands_for.float().cpu(), keys=self.keys.cpu())


def known_influences(**estimates: Any) -> dict[str, Influence]:
    """Measure -> influence, of those estimates that have one."""
    return {name: of.influence for name, of in estimates.items() if of.influence is not None}


def interval(value: float, stderr: float, freedom: float) -> tuple[float, float]:
    """95 % interval with Student's quantile (Cornish-Fisher expansion, exact to 1 % from 3 degrees of freedom)."""
    z, v = _NORMAL, freedom
    quantile = z + (z**3 + z) / (4 * v) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * v**2)
    quantile += (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * v**3)
    return value - quantile * stderr, value + quantile * stderr
