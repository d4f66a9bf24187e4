"""The retained rows of a block of features, and the scalar products from which sums without one of the rows follow.

Deleting a row of weight w turns the covariance S into (1+δ)(S - δ x̃x̃ᵀ), with δ = w/(1-w) and x̃ the row less the mean.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..gram.accumulator import Accumulator
from ..gram.retained_rows import RetainedRows
from .retained_design import Design

PAIR_ROWS = 512  # rows whose pairs enter the second-order variance of D_LR


@dataclass(frozen=True)
class RetainedFeatures:
    """Retained rows of the first block, in a unit that brings ‖S‖_F close to one.

    Attributes:
        rows: the features x̃ from their mean, in the unit; and the other blocks, uncentred.
        design: how the rows were drawn.
        unit: a power of two.
        trace, norm2: of S, in the unit.
        lengths: (m,) ‖x̃‖².
        spread: (m,) x̃ᵀSx̃.
        along: (k, p) x̃ᵀS of the first k = PAIR_ROWS rows.
    """

    rows: RetainedRows
    design: Design
    unit: float
    trace: Tensor
    norm2: Tensor
    lengths: Tensor
    spread: Tensor
    along: Tensor

    @property
    def features(self) -> Tensor:
        """(m, p) x̃."""
        return next(iter(self.rows.blocks.values()))


def retained_features(sums: Accumulator) -> RetainedFeatures:
    """Those of a Gram or a pair, which keeps them until more rows come; its first block must vary."""
    return sums.reading("retained features", lambda: _read(sums))


def _read(sums: Accumulator) -> RetainedFeatures:
    first = next(iter(sums.widths))
    covariance = sums.block(first, first, centered=True)
    unit = unit_of(covariance)
    rows = sums.retained(unit)
    x = rows.blocks[first]
    lengths, spread, along = products(x, torch.mul(covariance, unit**2, out=x.new_empty(covariance.shape)))
    design, norm2 = Design.of(rows, sums.strata_rows), torch.linalg.matrix_norm(covariance).square() * unit**4
    return RetainedFeatures(rows, design, unit, covariance.trace() * unit**2, norm2, lengths, spread, along)


def coordinates(sums: Accumulator, vectors: Callable[[], Tensor]) -> Tensor:
    """(m, p) x̃ of the retained rows along the eigenvectors of S, (p, p), which are only asked for where these are not kept."""

    def compute() -> Tensor:
        x = retained_features(sums).features
        return x @ vectors().to(x.dtype)

    return sums.reading("retained coordinates", compute)


def unit_of(covariance: Tensor) -> float:
    """A power of two that brings the covariance of the features, multiplied by it, close to a norm of one."""
    return 2.0 ** -round(math.log2(float(torch.linalg.matrix_norm(covariance))) / 2)


def products(x: Tensor, covariance: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """‖x‖² and xᵀSx of (m, p) rows, (m,) float64 each; and xᵀS of the first ``PAIR_ROWS`` of them."""
    lengths = torch.linalg.vector_norm(x, dim=1, dtype=torch.float64).square()
    along, spread = x[:0], []
    for part in reversed(x.split(PAIR_ROWS)):  # the first part comes last, because `along` is that of it
        along = part @ covariance
        spread.insert(0, torch.linalg.vecdot(along, part).double())
    return lengths, torch.cat(spread), along
