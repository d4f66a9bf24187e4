"""The span of a block of functions (outputs or targets) from a Gram: singular values, rank, orthonormal basis."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..errors import DataError, DegenerateError
from ..gram import Gram
from ..gram.accumulator import Accumulator
from ..gram.checks import LARGEST
from .eigen import eigh

# The default cut, in units of the activations' rounding. `benchmarks/accuracy/rank_cut.py` measures what it must separate.
ROUNDING_FACTOR = 50.0
HALF_ROUNDING_FACTOR = 4.0
SMALLEST = 1e-150  # squares of numbers that are much smaller are zero in float64
GRAM_FLOOR = 1e-7  # products in float64 resolve singular values only down to the root of their own rounding


@dataclass(frozen=True)
class Span:
    """The span Ĥ = span{f₁ … f_C} of uncentred functions in L²(q).

    Attributes:
        singular_values: (C,) of the sample matrix, divided by √n, descending; all of them.
        rank: r, the number of singular values above the cut.
        to_basis: (C, r); the functions ``f @ to_basis`` are orthonormal over the samples and span Ĥ.
        basis_mean: (r,) ⟨1|g_k⟩ of these functions; its squared length is the share of the constant function that lies in Ĥ.
        basis_covariance: (r, r) covariance of these functions: QP_ĤQ in their coordinates.
        centred: whether the functions are taken less their mean over the samples.
    """

    singular_values: Tensor
    rank: int
    to_basis: Tensor
    basis_mean: Tensor
    basis_covariance: Tensor
    centred: bool = False


@dataclass(frozen=True)
class Directions:
    """Singular value decomposition of a block of functions, from which spans are cut.

    Attributes:
        singular_values: (C,) of the sample matrix, divided by √n, descending.
        right: (C, C) right singular vectors, one per row.
        means: (C,) mean of the functions along the left singular vectors.
        covariance: (C, C) covariance of the functions.
        rounding: the default cut; singular values up to this one are rounding.
        under_the_mean: singular values under the cut that would be above it if the functions had no mean, and larger than
            any of rounding that was measured.
        centred: whether the functions are taken less their mean over the samples.
    """

    singular_values: Tensor
    right: Tensor
    means: Tensor
    covariance: Tensor
    rounding: float
    under_the_mean: tuple[float, ...]
    centred: bool = False
    _spans: dict[int, Span] = field(default_factory=dict, repr=False)  # by rank, because several cuts give the same

    def span(self, rtol: float | None = None) -> Span:
        """The span of the directions above the default cut, or above ``rtol`` × the largest singular value.

        Raises:
            ValueError: ``rtol`` is outside [0, 1).
        """
        if rtol is not None and not 0 <= rtol < 1:
            raise ValueError(f"rtol is relative to the largest singular value and must satisfy 0 ≤ rtol < 1, got {rtol}")
        cut = self.rounding if rtol is None else max(rtol, GRAM_FLOOR) * float(self.singular_values[0])
        # at least one, because centred functions may vary by less than the cut of those with their mean
        rank = max(int((self.singular_values > cut).sum()), 1)
        if rank not in self._spans:
            to_basis = self.right[:rank].T / self.singular_values[:rank]
            covariance = to_basis.T @ self.covariance @ to_basis
            self._spans[rank] = Span(self.singular_values, rank, to_basis, self.means[:rank], covariance, self.centred)
        return self._spans[rank]


def default_cut(eps: float, rms: float, largest: float) -> float:
    """The largest singular value that is attributed to rounding of the activations.

    Args:
        eps: rounding unit of the activations.
        rms: their root mean square.
        largest: the largest singular value.
    """
    factor = HALF_ROUNDING_FACTOR if eps > 1e-5 else ROUNDING_FACTOR
    return max(factor * eps * rms, GRAM_FLOOR * largest)


def mean_note(gram: Gram) -> str | None:
    """A sentence about directions that are left out only because the mean of the outputs is very large, else None."""
    directions = directions_of(gram, "outputs")
    if not directions.under_the_mean:
        return None
    mean, spread = float(gram.mean("outputs").abs().max()), float(directions.covariance.diagonal().max().sqrt())
    listed = ", ".join(f"{value:.2g}" for value in directions.under_the_mean[:5])
    return (
        f"the outputs have a mean of up to {mean:.3g} and vary by {spread:.3g} around it: output directions with singular values "
        f"{listed} are left out, because rounding of numbers of that size may reach {directions.rounding:.2g}; "
        "subtract a constant from the outputs, or pass rtol="
    )


def span_of(gram: Gram, name: str, rtol: float | None = None) -> Span:
    """The span of a block of functions; see :meth:`Directions.span`."""
    return directions_of(gram, name).span(rtol)


def directions_of(gram: Gram, name: str, *, less_their_mean: bool = False, centred: bool = False) -> Directions:
    """Singular value decomposition of a block of functions f₁ … f_C.

    With ``less_their_mean`` it is that of their differences from the function (f₁ + … + f_C)/C, with ``centred`` that of each
    function less its mean over the samples. It decomposes the factor ``[sqrt(B_c); m]`` of ``B = B_c + m mᵀ`` instead of B, so
    that a large mean does not drown the variation. The default cut is that of the functions as they are.

    Raises:
        DataError: the functions stand for more of them, whose mean is not known.
    """
    text = f"directions of {name}{' less their mean' if less_their_mean else ''}{', centred' if centred else ''}"
    return gram.reading(text, lambda: _decomposed(gram, name, less_their_mean, centred))


def _decomposed(gram: Gram, name: str, less_their_mean: bool, centred: bool) -> Directions:
    covariance, mean = gram.block(name, name, centered=True), gram.mean(name)
    if less_their_mean:
        if name == "outputs" and gram.num_outputs != len(mean):
            raise DataError(f"the mean over {gram.num_outputs:,} outputs is not known, because they were compressed")
        covariance = covariance - covariance.mean(0)
        covariance, mean = covariance - covariance.mean(1, keepdim=True), mean - mean.mean()
    text = f"eigenvectors of {name}{' less their mean' if less_their_mean else ''}"
    values, vectors = gram.reading(text, lambda: eigh(covariance))
    if centred:
        singular, right, means = values.clamp_min(0).sqrt().flip(0), vectors.T.flip(0), torch.zeros_like(mean)
    else:
        factor = torch.cat([values.clamp_min(0).sqrt().unsqueeze(1) * vectors.T, mean.unsqueeze(0)])
        left, singular, right = torch.linalg.svd(factor, full_matrices=False)
        means = left[-1]
    largest = float(singular[0])
    if largest == 0:
        raise DegenerateError(f"{name} are constant over the samples (all zero), so they span nothing")
    columns = gram.num_outputs if name == "outputs" else len(singular)  # compressed outputs represent more columns
    size = max(largest, float(torch.linalg.vector_norm(mean)))  # divided out, so that no square underflows
    rms = size * float(((values.clamp_min(0).sum() / size / size + (mean / size).square().sum()) / columns).sqrt())
    cut = default_cut(gram.eps(name), rms, largest)
    spread = float((values.clamp_min(0).sum() / columns).sqrt())
    without_mean = default_cut(gram.eps(name), spread, float(values[-1].clamp_min(0).sqrt()))
    hidden = singular[(singular <= cut) & (singular > max(cut / 16, without_mean))]
    return Directions(singular, right, means, covariance, cut, tuple(hidden.tolist()), centred)


def varies(sums: Accumulator, name: str) -> bool:
    """Whether any column of a block varies over the samples by more than its own rounding.

    Raises:
        DataError: the variation is so small that its powers underflow.
    """

    def compute() -> bool:
        variance = sums.block(name, name, centered=True).diagonal().clamp_min(0)
        must_not_underflow(sums, name, 1 / LARGEST)
        return bool((variance.sqrt() > sums.eps(name) * sums.mean(name).abs()).any())

    return sums.reading(f"whether {name} vary", compute)


def must_not_underflow(sums: Accumulator, name: str, smallest: float = SMALLEST) -> None:
    """Raise an error where a block varies by less than ``smallest``, or is so small that its squares are zero.

    Raises:
        DataError: names the block and its size.
    """
    spread = float(sums.block(name, name, centered=True).diagonal().max().clamp_min(0)) ** 0.5
    size = spread or float(sums.mean(name).abs().max())  # squares of numbers below 1e-162 are zero, their mean is not
    if 0 < size < (smallest if spread else SMALLEST):
        verb = "vary by" if spread else "are of the size"
        raise DataError(f"{name} {verb} {size:.1e}, so powers of them underflow; multiply them by a constant first")
