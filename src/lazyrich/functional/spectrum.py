"""The feature spectrum: the strength of each feature, and its share of the targets and of the learned functions."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass, field, fields, replace
from typing import Any, get_args, get_type_hints

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .._support.stored import number
from ..errors import ConvergenceWarning
from ..gram import Gram
from .eigen import TOLERANCE, Eigen, decomposed, separated
from .inputs import AnyArray, as_gram
from .retained_features import coordinates
from .span import span_of

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class FeatureSpectrum:
    """Eigen-decomposition of the feature kernel T, strongest feature first: all p features, or the leading k of them.

    Attributes:
        eigenvalues: (k,) ρ_k of T, uncentred unless ``centered``; values past ``rank`` are rounding.
        quality: (k,) ⟨e_k|P*|e_k⟩ of each feature with the target space, 0 past the rank; None without targets.
        utilization: (k,) ⟨e_k|P̂|e_k⟩ of each feature with the space of the outputs, 0 past the rank; None without outputs.
        contributions: (k,) contribution of each *centred* eigenfunction to 1 - D_LR, which is the sum over all p; None without
            outputs.
        rank: numerical rank of the features, or a lower bound of it if ``rank_is_bound``.
        num_features: p.
        trace: Σρ over all p features, also if only a part of them was computed.
        residual: max_k ‖T v_k - ρ_k v_k‖/ρ₁ of a leading part, the larger one of the centred and uncentred operators; None for a
            complete spectrum.
        block_ends: (k,) bool, whether feature k is clearly stronger than the next. Features of equal strength form a block, of
            which any basis is as good as another: the cumulative curves are determined at the end of a block, and arbitrary
            inside it. None in files of earlier versions.
        target_rank, output_rank: dimensions of the two spaces.
        centered: whether the curves are those of the centred operator.
        eigenvectors: (p, at most rank) v_k; the eigenfunctions are e_k(x) = v_kᵀΦ(x)/√ρ_k. They are not saved.
        mean: (p,) the vector that is subtracted from the features first: their mean if ``centered``, else zero.
    """

    eigenvalues: Array
    rank: int
    centered: bool
    num_features: int
    trace: float
    residual: float | None = None
    quality: Array | None = None
    utilization: Array | None = None
    contributions: Array | None = None
    target_rank: int | None = None
    output_rank: int | None = None
    eigenvectors: Array | None = field(default=None, repr=False)
    mean: Array | None = field(default=None, repr=False)
    block_ends: NDArray[np.bool_] | None = field(default=None, repr=False)

    @property
    def whole(self) -> bool:
        """Whether the spectrum has all p features, not only the leading ones."""
        return len(self.eigenvalues) == self.num_features

    @property
    def rank_is_bound(self) -> bool:
        """Whether every feature of a leading part is above rounding, so that the true rank may be larger."""
        return not self.whole and self.rank == len(self.eigenvalues)

    @property
    def relative_eigenvalues(self) -> Array:
        """(k,) ρ_k/ρ₁, the strength of each feature relative to the strongest."""
        return self.eigenvalues / self.eigenvalues[0]

    @property
    def cumulative_eigenvalues(self) -> Array:
        """(k,) Σ_{j≤k} ρ_j/Σρ, the share of the first k features in the sum of all, in [0, 1]; exact for a leading part too."""
        return np.cumsum(self.eigenvalues) / self.trace

    @property
    def cumulative_quality(self) -> Array | None:
        """(k,) Π*(k), the share of the target space that lies in the span of the first k features, in [0, 1]."""
        return None if self.quality is None or not self.target_rank else np.cumsum(self.quality) / self.target_rank

    @property
    def cumulative_utilization(self) -> Array | None:
        """(k,) Π̂(k), the share of the space of the outputs that lies in the span of the first k features, in [0, 1]."""
        if self.utilization is None or not self.output_rank:
            return None
        return np.cumsum(self.utilization) / self.output_rank

    def __str__(self) -> str:
        bound = "at least " if self.rank_is_bound else ""
        lines = [f"features: {self.num_features}, numerical rank {bound}{self.rank}"]
        if not self.whole:
            lines.append(f"{self.part}, residual {self.residual or 0:.1e}")
        curves = {"quality": self.cumulative_quality, "utilization": self.cumulative_utilization}
        for name, curve in curves.items():
            if curve is not None:
                enough = int(np.searchsorted(curve, 0.95 * curve[-1])) + 1
                lines.append(f"cumulative {name}: {curve[-1]:.3f}, 95 % of it in the first {enough}")
        return "\n".join(lines)

    @property
    def blocks(self) -> list[tuple[int, int]]:
        """First and last of the features, counted from 1, of each block of features of equal strength, up to the rank."""
        if self.block_ends is None:
            return []
        ends = np.flatnonzero(self.block_ends[: self.rank]) + 1
        ends = ends if len(ends) and ends[-1] == self.rank else np.append(ends, self.rank)
        starts = np.append(1, ends[:-1] + 1)
        return [(int(first), int(last)) for first, last in zip(starts, ends, strict=True) if last > first]

    @property
    def part(self) -> str:
        """Which part of the spectrum was computed, in words; empty for a complete spectrum."""
        if self.whole:
            return ""
        share = 100 * self.cumulative_eigenvalues[-1]
        return f"the leading {len(self.eigenvalues):,} of {self.num_features:,}, which hold {share:.4g} % of the sum of all"

    def to_dict(self) -> dict[str, Any]:
        """Plain lists and numbers for JSON, without the eigenvectors."""
        values = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("eigenvectors", "mean")}
        return {name: v.tolist() if isinstance(v, np.ndarray) else v for name, v in values.items()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> FeatureSpectrum:
        """The inverse of :meth:`to_dict`.

        Raises:
            ValueError, TypeError: values of another type, arrays of unequal lengths, fields that are missing or unknown.
        """
        types = get_type_hints(cls)
        spectrum = cls(**{name: _read(name, value, types.get(name)) for name, value in values.items()})
        for name in ("eigenvalues", "quality", "utilization", "contributions", "block_ends"):
            curve = getattr(spectrum, name)
            if curve is not None and (curve.ndim != 1 or curve.shape != spectrum.eigenvalues.shape or not len(curve)):
                raise ValueError(f"{name} must be a list of numbers, one for each of the eigenvalues")
        count = len(spectrum.eigenvalues)
        if spectrum.num_features < count:
            raise ValueError(f"num_features is {spectrum.num_features}, and there are {count} eigenvalues")
        return spectrum


def _read(name: str, value: Any, declared: Any) -> Any:
    """A value of a file as the type that the field declares."""
    if value is None and type(None) in get_args(declared):
        return None
    if declared in (int, int | None) and type(value) is not int:
        raise TypeError(f"{name} must be a whole number, got {value!r}")
    if declared is bool and type(value) is not bool:
        raise TypeError(f"{name} must be true or false, got {value!r}")
    if declared in (float, float | None):
        return number(name, value)
    if declared == NDArray[np.bool_] | None:
        if not isinstance(value, list) or not all(type(entry) is bool for entry in value):
            raise TypeError(f"{name} must be a list of true and false")
        return np.array(value, dtype=bool)
    if declared in (Array, Array | None):
        return np.array(value, dtype=np.float64)
    return value


def feature_spectrum(
    features: AnyArray | Gram,
    outputs: AnyArray | None = None,
    targets: AnyArray | None = None,
    *,
    centered: bool = False,
    leading: int | None = None,
    weights: AnyArray | None = None,
) -> FeatureSpectrum:
    """Eigenvalues, quality, utilization and each feature's contribution to 1 - D_LR.

        Π*(k) = (1/r*) Σ_{j≤k} ⟨e_j|P*|e_j⟩,   Π̂(k) = (1/r̂) Σ_{j≤k} ⟨e_j|P̂|e_j⟩,
        1 - D_LR = Σ_k ρ_k ⟨e_k|QP̂Q|e_k⟩ / (‖ρ‖₂ ‖QP̂Q‖_F)   with ρ, e of the centred operator

    Args:
        features: (n, p), or a :class:`~lazyrich.Gram`. Curves over all p features need n > p.
        outputs: (n, C) or (n,); without them there are no utilization and contributions.
        targets: (n,) integer class labels, or (n, T) or (n,) real; without them there is no quality.
        centered: whether to decompose the covariance instead of the second moment.
        leading: number of the strongest features to compute. None computes all of them for up to 4,096 features, and the leading
            128 for more. ``torch.lobpcg`` computes a leading part from a seeded start, to a residual of 10⁻⁸ of ρ₁. Its numbers
            are those of the complete spectrum.
        weights: (n,) not negative.

    Warns:
        ConvergenceWarning: the residual of a leading part is above 10⁻⁸, or it ends inside a block of features of equal strength.

    Raises:
        DataError: shapes that do not match, labels out of range, fewer than two samples.
        NonFiniteError: NaN or infinity.
        ValueError: ``leading`` is below 1.

    Reference:
        Nam et al., arXiv 2410.04264, section 4.

    Example:
        Two orthogonal features of strength 4 and 1. The target is the weaker one, the output the stronger one:

        >>> import torch
        >>> x = torch.tensor([[1., 1], [1, -1], [-1, 1], [-1, -1]], dtype=torch.float64)
        >>> s = feature_spectrum(x * torch.tensor([2.0, 1.0]), outputs=x[:, 0], targets=x[:, 1])
        >>> s.relative_eigenvalues.tolist(), s.cumulative_quality.tolist(), s.cumulative_utilization.tolist()
        ([1.0, 0.25], [0.0, 1.0], [1.0, 1.0])
    """
    gram = as_gram(features, outputs, targets, weights=weights)
    spectrum = spectrum_of(gram, centered=centered, leading=leading)
    if text := convergence_note(spectrum):
        warnings.warn(text, ConvergenceWarning, stacklevel=2)
    return spectrum


def spectrum_of(gram: Gram, *, centered: bool = False, leading: int | None = None) -> FeatureSpectrum:
    """The spectrum of a Gram's features; arguments as for :func:`feature_spectrum`."""
    operator = covariance = decomposed(gram, centered=True, leading=leading)
    contributions = _contributions(gram, covariance) if "outputs" in gram.widths else None
    if covariance.whole and gram.retain:
        coordinates(gram, lambda: covariance.vectors)  # for the error of the effective rank, while the eigenvectors are there
    if not centered:
        operator = covariance = replace(covariance, vectors=covariance.vectors.new_empty(0))  # frees their memory
        operator = decomposed(gram, centered=False, leading=leading)
    rank = _rank(gram, operator, covariance)
    vectors, roots = operator.vectors[:, :rank], operator.values[:rank].sqrt()  # e_k = v_kᵀΦ/√ρ_k

    def shares(name: str) -> tuple[Array, int]:
        """⟨e_k|P|e_k⟩ of every eigenfunction up to the rank with the span of a block, then zeros; and the rank of the block."""
        span = span_of(gram, name)
        products = vectors.T @ (gram.block("features", name, centered=centered) @ span.to_basis)
        return _padded((products / roots.unsqueeze(1)).square().sum(1), len(operator.values)), span.rank

    quality, target_rank = shares("targets") if "targets" in gram.widths else (None, None)
    utilization, output_rank = shares("outputs") if "outputs" in gram.widths else (None, None)
    mean = gram.mean("features")
    residuals = [e.residual for e in (operator, covariance) if e.residual is not None]
    return FeatureSpectrum(
        eigenvalues=operator.values.cpu().numpy(),
        rank=rank,
        centered=centered,
        num_features=gram.widths["features"],
        trace=operator.trace,
        residual=max(residuals, default=None),
        block_ends=separated(gram, operator, centered=centered).cpu().numpy(),
        quality=quality,
        utilization=utilization,
        contributions=contributions,
        target_rank=target_rank,
        output_rank=output_rank,
        eigenvectors=vectors.cpu().numpy(),
        mean=(mean if centered else torch.zeros_like(mean)).cpu().numpy(),
    )


def convergence_note(spectrum: FeatureSpectrum) -> str | None:
    """A sentence about a leading part whose residual is above the tolerance or whose end is arbitrary, else None."""
    if spectrum.residual is None:
        return None
    if spectrum.residual <= TOLERANCE:
        if spectrum.block_ends is None or spectrum.block_ends[-1] or not spectrum.rank_is_bound:
            return None
        first, count = (spectrum.blocks or [(spectrum.rank, spectrum.rank)])[-1][0], len(spectrum.eigenvalues)
        return (
            f"the leading part of the spectrum ends inside a block of features of equal strength, from feature {first} on: "
            f"which {count - first + 1} of them are counted is arbitrary; pass leading={first - 1 or 'None'} or more than {count}"
        )
    return (
        f"the leading part of the spectrum did not converge: its residual is {spectrum.residual:.1e} of the largest eigenvalue "
        f"and should be {TOLERANCE:g}; features of nearly equal strength may be mixed with one another"
    )


def block_note(spectrum: FeatureSpectrum) -> str | None:
    """A sentence about features of equal strength, of at least 1/1000 of the strongest, else None."""
    blocks = [block for block in spectrum.blocks if spectrum.relative_eigenvalues[block[0] - 1] >= 1e-3]
    if not blocks:
        return None
    listed = ", ".join(f"{first} to {last}" for first, last in blocks[:5]) + (" …" if len(blocks) > 5 else "")
    return f"features {listed} are equally strong: the curves are determined at the end of such a block and arbitrary inside it"


def _rank(gram: Gram, operator: Eigen, covariance: Eigen) -> int:
    """Number of eigenvalues above the rounding of the products (which are taken about the mean), activations and eigensolver."""
    p = gram.widths["features"]
    largest = float(covariance.values[0])
    fourth = (covariance.values / largest).pow(4).sum() if largest else torch.ones(())
    if not covariance.whole and largest:  # the remaining eigenvalues are at most as large as the last computed one
        left = covariance.square / largest**2 - (covariance.values / largest).square().sum()
        fourth = fourth + (covariance.values[-1] / largest).square() * left.clamp_min(0)
    schatten = largest * float(fourth) ** 0.25  # ‖S_c‖₄, within p^(1/4) of the largest eigenvalue
    activations = gram.eps("features") ** 2 * operator.trace / p
    solver = 2 * p * torch.finfo(torch.float64).eps * float(operator.values[0])
    cut = max(16 * gram.product_eps * schatten, activations, solver)
    return max(1, min(int((operator.values > cut).sum()), gram.count))


def _padded(values: Tensor, length: int) -> Array:
    full = np.zeros(length)
    full[: len(values)] = values.cpu().numpy()
    return full


def _contributions(gram: Gram, covariance: Eigen) -> Array:
    span = span_of(gram, "outputs")
    # ρ_k⟨e_k|QP̂Q|e_k⟩ = ‖v_kᵀ A_c to_basis‖², which needs no division by a small ρ_k
    cross = gram.block("features", "outputs", centered=True) @ span.to_basis
    shares = (covariance.vectors.T @ cross).square().sum(1)
    norm = math.sqrt(covariance.square) * torch.linalg.matrix_norm(span.basis_covariance)
    return (shares / norm).cpu().numpy()
