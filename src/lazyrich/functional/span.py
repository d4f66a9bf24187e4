"""The span of a set of functions (the outputs, the targets), from a Gram: singular values, rank, orthonormal basis."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import DataError, DegenerateError
from ..gram import Gram
from ..gram.accumulator import Accumulator
from ..gram.checks import LARGEST
from .eigen import eigh

# The default cut, in units of the activations' rounding; `benchmarks/accuracy/rank_cut.py` measures what it must separate.
ROUNDING_FACTOR = 50.0
HALF_ROUNDING_FACTOR = 4.0
GRAM_FLOOR = 1e-7  # float64 products resolve singular values to the root of their own rounding


@dataclass(frozen=True)
class Span:
    """Ĥ = span{f₁ … f_C}, uncentred, in L²(q).

    Attributes:
        singular_values: (C,) of the sample matrix over √n, descending, all of them.
        rank: how many are kept.
        to_basis: (C, r); ``f @ to_basis`` are functions orthonormal over the samples that span Ĥ.
        basis_mean: (r,) ⟨1|g_k⟩ of those functions; its squared length is how much of the constant function Ĥ holds.
        basis_covariance: (r, r) covariance of those functions, QP_ĤQ in their coordinates.
    """

    singular_values: Tensor
    rank: int
    to_basis: Tensor
    basis_mean: Tensor
    basis_covariance: Tensor


@dataclass(frozen=True)
class Directions:
    """Singular value decomposition of a block of functions, of which spans are cut.

    Attributes:
        singular_values: (C,) of the sample matrix over √n, descending.
        right: (C, C) right singular vectors, a row each.
        means: (C,) mean of the functions along the left singular vectors.
        covariance: (C, C) of the functions.
        rounding: singular values at or under this are rounding.
    """

    singular_values: Tensor
    right: Tensor
    means: Tensor
    covariance: Tensor
    rounding: float

    def span(self, rtol: float | None = None) -> Span:
        """The span without the directions that are rounding, or that lie under ``rtol`` × the largest."""
        if rtol is not None and not 0 <= rtol < 1:
            raise ValueError(f"rtol is relative to the largest singular value, 0 ≤ rtol < 1, got {rtol}")
        cut = self.rounding if rtol is None else max(rtol, GRAM_FLOOR) * float(self.singular_values[0])
        rank = int((self.singular_values > cut).sum())
        to_basis = self.right[:rank].T / self.singular_values[:rank]
        return Span(self.singular_values, rank, to_basis, self.means[:rank], to_basis.T @ self.covariance @ to_basis)


def default_cut(eps: float, rms: float, largest: float) -> float:
    """Singular values at or under this are rounding of the activations, not functions."""
    factor = HALF_ROUNDING_FACTOR if eps > 1e-5 else ROUNDING_FACTOR
    return max(factor * eps * rms, GRAM_FLOOR * largest)


def span_of(gram: Gram, name: str, rtol: float | None = None) -> Span:
    """The span of a block of functions."""
    return directions_of(gram, name).span(rtol)


def directions_of(gram: Gram, name: str) -> Directions:
    """Singular value decomposition of a block of functions.

    The factor ``[sqrt(B_c); m]`` of the uncentred ``B = B_c + m mᵀ`` is decomposed instead of B, so that a large mean
    does not drown what varies.
    """
    return gram.reading(f"directions of {name}", lambda: _decomposed(gram, name))


def _decomposed(gram: Gram, name: str) -> Directions:
    covariance, mean = gram.block(name, name, centered=True), gram.mean(name)
    values, vectors = eigh(covariance)
    factor = torch.cat([values.clamp_min(0).sqrt().unsqueeze(1) * vectors.T, mean.unsqueeze(0)])
    left, singular, right = torch.linalg.svd(factor, full_matrices=False)
    largest = float(singular[0])
    if largest == 0:
        raise DegenerateError(f"{name} are constant over the samples (all zero): they span nothing")
    columns = gram.num_outputs if name == "outputs" else len(singular)  # compressed outputs stand for more
    rms = largest * float(((singular / largest).square().sum() / columns).sqrt())
    return Directions(singular, right, left[-1], covariance, default_cut(gram.eps(name), rms, largest))


def varies(sums: Accumulator, name: str) -> bool:
    """Whether any column of a block differs between samples by more than its own rounding."""
    variance = sums.block(name, name, centered=True).diagonal().clamp_min(0)
    if 0 < float(variance.max()) < LARGEST**-2:
        raise DataError(f"{name} vary by {float(variance.max()) ** 0.5:.1e}, and powers of that vanish; multiply them first")
    return bool((variance.sqrt() > sums.eps(name) * sums.mean(name).abs()).any())
