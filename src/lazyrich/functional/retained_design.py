"""How the retained rows were drawn: what each of them stands for, and how sums over all rows follow.

Rows have weights W that sum to one over all rows. They are a sample of one law, or of several strata whose rows are samples of
their own and whose shares of the weight are fixed, as where classes are weighed to count equally. Deleting a row of a stratum of
weight T gives its weight to the others there, so that it moves an estimate by W T/(T - W) times the difference of its influence
from the mean influence of its stratum.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..gram import Gram
from ..gram.retained_rows import RetainedRows


@dataclass(frozen=True)
class Design:
    """A sample of rows that stands for all.

    Attributes:
        w: (m,) weights, scaled such that those of all rows, retained or not, sum to one.
        stands_for: (m,) for how many rows each stands.
        strata: (m,) int64; None if there is one stratum.
        factor: (m,) 1/(1 - W/T), and what the mean of few retained rows of a stratum takes from the squares.
        rows: (strata,) number of all rows of each stratum, for those that have any; empty if there is one.
        retained: (strata,) number of retained rows of each.
    """

    w: Tensor
    stands_for: Tensor
    strata: Tensor | None
    factor: Tensor
    rows: Tensor
    retained: Tensor

    @classmethod
    def of(cls, rows: RetainedRows, strata_rows: Tensor) -> Design:
        """From the rows that a Gram has retained, and the number of all rows in each stratum."""
        w, stands_for, strata = rows.weights, rows.stands_for, rows.strata
        if not len(strata_rows):
            return cls(w, stands_for, None, 1 / (1 - w), strata_rows, strata_rows)
        ones = torch.ones_like(w)

        def totals(x: Tensor) -> Tensor:
            return torch.zeros_like(strata_rows).index_add_(0, strata, x)

        surely = stands_for <= 1
        left = (strata_rows - totals(surely.to(w))) / totals(torch.where(surely, 0.0, stands_for))
        stands_for = torch.where(surely, 1.0, stands_for * left[strata])
        retained, weight = totals(ones), totals(w * stands_for)
        few = retained / (retained - 1) * (strata_rows - 1) / strata_rows
        there = strata_rows > 0
        factor = few[strata] / (1 - w / weight[strata])
        return cls(w, stands_for, strata, factor, strata_rows[there], retained[there])

    def too_few(self) -> str | None:
        """Why a stratum has too few rows for an error; None where none has."""
        if bool((self.rows < 2).any()):
            return "no error, because a class has fewer than two rows"
        if bool((self.retained < 2).any()):
            return "no error, because fewer than two rows of a class were retained"
        return None

    def total(self, x: Tensor) -> Tensor:
        """Estimate of the sum of (m,) values over all rows."""
        return self.stands_for @ x

    def _shares(self) -> Tensor:
        """(strata, m) the share of each row in its stratum's weight; 0 for the rows of others."""
        shares = (self.w * self.stands_for).unsqueeze(0)
        if self.strata is not None:
            shares = torch.where(self.strata == self.strata.unique().unsqueeze(1), shares, 0.0)
        return shares / shares.sum(1, keepdim=True)

    def _members(self) -> Tensor:
        """(m, strata) 1 where a row is of a stratum."""
        return (self._shares() > 0).to(self.w).T

    def moves(self, influence: Tensor) -> Tensor:
        """(m,) by how much each row moves an estimate, from its influence: the sum of squares is the variance."""
        mean = self._members() @ (self._shares() @ influence)
        return self.w * self.factor.sqrt() * (influence - mean)

    def centre_pairs(self, pairs: Tensor) -> None:
        """Subtract from an (m, m) symmetric function of pairs of rows its means over the strata of both, in place."""
        shares, members = self._shares().to(pairs), self._members().to(pairs)
        means = members @ (shares @ pairs)
        pairs.sub_(means).sub_(means.T).add_(means @ shares.T @ members.T)


def unbiased_squared_norm(
    gram: Gram, design: Design, features: Tensor, lengths: Tensor, along: Tensor, unit: float = 1.0
) -> Tensor:
    """Estimate ‖Σ‖_F² of the features without bias (to first order where there are strata), in the given unit.

    With equal weights this is the estimate of Himeno & Yamada (2014, J. Multivariate Anal. 130), for any distribution with finite
    fourth moments and unknown mean. With weights that vary it is the weighted U-statistic over distinct rows. With strata, the
    bias that the moments of each stratum give the plug-in estimate is taken off.

    Args:
        features: (m, p) retained, from their mean, in the unit.
        lengths: (m,) ‖x̃‖².
        along: (m,) x̃ᵀS_c x̃, with the plug-in S_c.
    """
    covariance = gram.block("features", "features", centered=True)
    plug_in = torch.linalg.matrix_norm(covariance).square() * unit**4
    trace = covariance.trace() * unit**2
    w, total = design.w, design.total
    if design.strata is not None:
        return plug_in - _bias_of_strata(design, design.strata, features, lengths, along, covariance * unit**2)
    if gram.uniform:
        return himeno_yamada(plug_in, trace, gram.fourth_moment() * unit**4, gram.count)
    w2 = 1 / gram.effective_count
    w3, w4 = float(total(w**3)), float(total(w**4))
    fourth = [float(total(w**k * lengths.square())) for k in (2, 3, 4)]
    second, across = total(w**2 * lengths), total(w**2 * along)
    distinct_2 = plug_in - fourth[0]
    distinct_3 = 2 * fourth[1] - across
    distinct_4 = second.square() + 2 * across.square() / plug_in - 6 * fourth[2]
    return (
        distinct_2 / (1 - w2) - 2 * distinct_3 / (1 - 3 * w2 + 2 * w3) + distinct_4 / (1 - 6 * w2 + 8 * w3 + 3 * w2**2 - 6 * w4)
    )


def himeno_yamada(plug_in: Tensor, trace: Tensor, fourth_moment: float, n: float) -> Tensor:
    """Estimate tr(Σ²) without bias for any distribution with unknown mean and finite fourth moments.

    Args:
        plug_in, trace: ‖S‖² and tr S of the covariance divided by n, not by n - 1.
        fourth_moment: Σ‖xᵢ-x̄‖⁴ / n².
        n: number of samples.
    """
    unbiased = n / (n - 1)
    q = fourth_moment * n**2 / (n - 1)
    square, trace = plug_in * unbiased**2, trace * unbiased
    return (n - 1) / (n * (n - 2) * (n - 3)) * ((n - 1) * (n - 2) * square + trace.square() - n * q)


def _bias_of_strata(design: Design, strata: Tensor, x: Tensor, lengths: Tensor, along: Tensor, covariance: Tensor) -> Tensor:
    """Σ over strata of Σ W² · (mean of ‖yyᵀ - M‖² - 2 (y - m)ᵀS(y - m)), M and m the means of yyᵀ and y in the stratum."""
    bias = covariance.new_zeros(())
    for stratum in strata.unique():
        among = strata == stratum
        w, stands_for = design.w[among], design.stands_for[among]
        share = w * stands_for / (w @ stands_for)
        y = x[among]
        kernel = (y @ y.T).double().square_()
        mean = share @ y.double()
        within = share @ lengths[among].square() - share @ kernel @ share
        within = within - 2 * (share @ along[among] - mean @ covariance @ mean)
        bias = bias + (stands_for @ w.square()) * within / (1 - share @ share)
    return bias
