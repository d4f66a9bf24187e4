"""The feature spectrum: how strong each feature is, and how much of the target and of the learned function it holds."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .._support.stored import number
from ..errors import ConvergenceWarning
from ..gram import Gram
from .eigen import TOLERANCE, Eigen, decomposed
from .inputs import as_gram
from .span import span_of

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class FeatureSpectrum:
    """Eigen-decomposition of the feature kernel T, strongest feature first: all p features, or the leading k of them.

    Attributes:
        eigenvalues: (k,) ρ_k of T, uncentred unless ``centered``; values past ``rank`` are rounding.
        quality: (k,) ⟨e_k|P*|e_k⟩ of each feature with the target space, None without targets; 0 past the rank.
        utilization: (k,) ⟨e_k|P̂|e_k⟩ with the space of the outputs, None without outputs; 0 past the rank.
        contributions: (k,) share of each *centred* eigenfunction in 1 - D_LR (all p sum to it), None without outputs.
        rank: numerical rank of the features; where ``rank_is_bound``, it is at least that.
        num_features: p.
        trace: Σρ over all p, whether they are there or not.
        residual: max_k ‖T v_k - ρ_k v_k‖/ρ₁ of a leading part, the larger of both operators'; None where all p are there.
        target_rank, output_rank: dimensions of the two spaces.
        centered: whether the curves use the centred operator.
        eigenvectors: (p, at most rank) v_k; the eigenfunctions are e_k(x) = v_kᵀΦ(x)/√ρ_k. Not written to files.
        mean: (p,) what was subtracted from the features first: their mean if ``centered``, else zero.
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

    @property
    def whole(self) -> bool:
        """Whether all p features are there, not only the leading ones."""
        return len(self.eigenvalues) == self.num_features

    @property
    def rank_is_bound(self) -> bool:
        """Whether every feature of a leading part is above rounding, so that the rank may be larger."""
        return not self.whole and self.rank == len(self.eigenvalues)

    @property
    def relative_eigenvalues(self) -> Array:
        """(k,) ρ_k/ρ₁: how strong the k-th feature is."""
        return self.eigenvalues / self.eigenvalues[0]

    @property
    def cumulative_eigenvalues(self) -> Array:
        """(k,) Σ_{j≤k} ρ_j/Σρ: how much of all that the features hold lies in the first k, in [0, 1]; exact for a part too."""
        return np.cumsum(self.eigenvalues) / self.trace

    @property
    def cumulative_quality(self) -> Array | None:
        """(k,) Π*(k): how much of the target space the first k features hold, in [0, 1]."""
        return None if self.quality is None or not self.target_rank else np.cumsum(self.quality) / self.target_rank

    @property
    def cumulative_utilization(self) -> Array | None:
        """(k,) Π̂(k): how much of the learned space the first k features hold, in [0, 1]."""
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
    def part(self) -> str:
        """What of the spectrum is there, in words; empty where it is all."""
        if self.whole:
            return ""
        held = 100 * self.cumulative_eigenvalues[-1]
        return f"the leading {len(self.eigenvalues):,} of {self.num_features:,}, which hold {held:.4g} % of the sum of all"

    def to_dict(self) -> dict[str, Any]:
        """Plain lists and numbers, ready for JSON; without the eigenvectors."""
        values = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("eigenvectors", "mean")}
        return {name: v.tolist() if isinstance(v, np.ndarray) else v for name, v in values.items()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> FeatureSpectrum:
        """The inverse of :meth:`to_dict`.

        Raises:
            ValueError, TypeError: values of another kind, arrays of unequal lengths.
        """
        arrays = ("eigenvalues", "quality", "utilization", "contributions")
        given: dict[str, Any] = dict(values)
        for name in arrays:
            if given.get(name) is not None:
                given[name] = np.array(given[name], dtype=np.float64)
                if given[name].ndim != 1 or given[name].shape != given["eigenvalues"].shape or not len(given[name]):
                    raise ValueError(f"{name} must be a list of numbers, one for each of the eigenvalues")
        for name in ("rank", "num_features", "target_rank", "output_rank"):
            if type(given.get(name)) is not int and not (given.get(name) is None and name.endswith("t_rank")):
                raise TypeError(f"{name} must be a whole number, got {given.get(name)!r}")
        if given["num_features"] < len(given["eigenvalues"]):
            raise ValueError(f"num_features is {given['num_features']}, and there are {len(given['eigenvalues'])} eigenvalues")
        given["trace"] = number("trace", given["trace"])
        given["residual"] = None if given.get("residual") is None else number("residual", given["residual"])
        return cls(**given)


def feature_spectrum(
    features: Tensor | Gram,
    outputs: Tensor | None = None,
    targets: Tensor | None = None,
    *,
    centered: bool = False,
    leading: int | None = None,
    weights: Tensor | None = None,
) -> FeatureSpectrum:
    """Eigenvalues, quality, utilization and each feature's contribution to 1 - D_LR.

        Π*(k) = (1/r*) Σ_{j≤k} ⟨e_j|P*|e_j⟩,   Π̂(k) = (1/r̂) Σ_{j≤k} ⟨e_j|P̂|e_j⟩,
        1 - D_LR = Σ_k ρ_k ⟨e_k|QP̂Q|e_k⟩ / (‖ρ‖₂ ‖QP̂Q‖_F)   with ρ, e of the centred operator

    Args:
        features: (n, p), or a :class:`~lazyrich.Gram`. All p curves need n > p.
        outputs: (n, C); None leaves utilization and contributions out.
        targets: (n,) integer class labels, or (n, T) real; None leaves quality out.
        centered: decompose the covariance instead of the second moment.
        leading: how many of the strongest features; p or more is all of them. None is all of up to 4,096 features, and the
            leading 128 of more. A part is found by ``torch.lobpcg`` from a seeded start, to a residual of 10⁻⁸ of ρ₁; its
            numbers are those of the whole spectrum, cut.
        weights: (n,) not negative.

    Warns:
        ConvergenceWarning: the residual of a leading part is above 10⁻⁸.

    Raises:
        DataError: shapes that do not match, labels out of range, too few samples.
        NonFiniteError: NaN or infinity.

    Reference:
        Nam et al., arXiv 2410.04264, section 4.

    Example:
        Two orthogonal features of strength 4 and 1; the target is the weaker, the output the stronger:

        >>> import torch
        >>> x = torch.tensor([[1., 1], [1, -1], [-1, 1], [-1, -1]], dtype=torch.float64)
        >>> s = feature_spectrum(x * torch.tensor([2.0, 1.0]), outputs=x[:, 0], targets=x[:, 1])
        >>> s.relative_eigenvalues.tolist(), s.cumulative_quality.tolist(), s.cumulative_utilization.tolist()
        ([1.0, 0.25], [0.0, 1.0], [1.0, 1.0])
    """
    gram = as_gram(features, outputs, targets, weights=weights)
    found = spectrum_of(gram, centered=centered, leading=leading)
    if text := convergence_note(found):
        warnings.warn(text, ConvergenceWarning, stacklevel=2)
    return found


def spectrum_of(gram: Gram, *, centered: bool = False, leading: int | None = None) -> FeatureSpectrum:
    """The spectrum of a Gram's features; arguments as of :func:`feature_spectrum`."""
    operator = covariance = decomposed(gram, centered=True, leading=leading)
    contributions = _contributions(gram, covariance) if "outputs" in gram.widths else None
    if not centered:
        operator = covariance = replace(covariance, vectors=covariance.vectors.new_empty(0))  # makes room for the others
        operator = decomposed(gram, centered=False, leading=leading)
    rank = _rank(gram, operator, covariance)
    vectors, roots = operator.vectors[:, :rank], operator.values[:rank].sqrt()  # e_k = v_kᵀΦ/√ρ_k

    def held(name: str) -> tuple[Array, int]:
        """⟨e_k|P|e_k⟩ of every kept eigenfunction with the span of a block, zeros after."""
        span = span_of(gram, name)
        products = vectors.T @ (gram.block("features", name, centered=centered) @ span.to_basis)
        return _padded((products / roots.unsqueeze(1)).square().sum(1), len(operator.values)), span.rank

    quality, target_rank = held("targets") if "targets" in gram.widths else (None, None)
    utilization, output_rank = held("outputs") if "outputs" in gram.widths else (None, None)
    mean = gram.mean("features")
    residuals = [e.residual for e in (operator, covariance) if e.residual is not None]
    return FeatureSpectrum(
        eigenvalues=operator.values.cpu().numpy(),
        rank=rank,
        centered=centered,
        num_features=gram.widths["features"],
        trace=operator.trace,
        residual=max(residuals, default=None),
        quality=quality,
        utilization=utilization,
        contributions=contributions,
        target_rank=target_rank,
        output_rank=output_rank,
        eigenvectors=vectors.cpu().numpy(),
        mean=(mean if centered else torch.zeros_like(mean)).cpu().numpy(),
    )


def convergence_note(spectrum: FeatureSpectrum) -> str | None:
    """What a reader must know of a leading part that did not come to its tolerance."""
    if spectrum.residual is None or spectrum.residual <= TOLERANCE:
        return None
    return (
        f"the leading part of the spectrum did not converge: its residual is {spectrum.residual:.1e} of the largest eigenvalue "
        f"and should be {TOLERANCE:g}; features of nearly equal strength may be mixed with others"
    )


def _rank(gram: Gram, operator: Eigen, covariance: Eigen) -> int:
    """Eigenvalues above the rounding of the products (which are taken about the mean), activations and eigensolver."""
    p = gram.widths["features"]
    largest = float(covariance.values[0])
    fourth = (covariance.values / largest).pow(4).sum() if largest else torch.ones(())
    if not covariance.whole and largest:  # those that are not there are no larger than the last that is
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
