"""The feature spectrum: how strong each feature is, and how much of the target and of the learned function it holds."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import DataError
from ..gram import Gram
from ._eigen import eigh
from ._inputs import as_gram, one_hot
from ._span import span_of

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class FeatureSpectrum:
    """Eigen-decomposition of the feature kernel T, strongest feature first.

    Attributes:
        eigenvalues: (p,) ρ_k of T, uncentred unless ``centered``; values past ``rank`` are rounding.
        quality: (p,) ⟨e_k|P*|e_k⟩ of each feature with the target space, None without targets; 0 past the rank.
        utilization: (p,) ⟨e_k|P̂|e_k⟩ with the space of the outputs, None without outputs; 0 past the rank.
        contributions: (p,) share of each *centred* eigenfunction in 1 - D_LR (they sum to it), None without outputs.
        rank: numerical rank of the features.
        target_rank, output_rank: dimensions of the two spaces.
        centered: whether the curves use the centred operator.
        eigenvectors: (p, rank) v_k; the eigenfunctions are e_k(x) = v_kᵀΦ(x)/√ρ_k. Not written to files.
        mean: (p,) what was subtracted from the features first: their mean if ``centered``, else zero.
    """

    eigenvalues: Array
    rank: int
    centered: bool
    quality: Array | None = None
    utilization: Array | None = None
    contributions: Array | None = None
    target_rank: int | None = None
    output_rank: int | None = None
    eigenvectors: Array | None = field(default=None, repr=False)
    mean: Array | None = field(default=None, repr=False)

    @property
    def relative_eigenvalues(self) -> Array:
        """(p,) ρ_k/ρ₁: how strong the k-th feature is."""
        return self.eigenvalues / self.eigenvalues[0]

    @property
    def cumulative_quality(self) -> Array | None:
        """(p,) Π*(k): how much of the target space the first k features hold, in [0, 1]."""
        return None if self.quality is None or not self.target_rank else np.cumsum(self.quality) / self.target_rank

    @property
    def cumulative_utilization(self) -> Array | None:
        """(p,) Π̂(k): how much of the learned space the first k features hold, in [0, 1]."""
        if self.utilization is None or not self.output_rank:
            return None
        return np.cumsum(self.utilization) / self.output_rank

    def __str__(self) -> str:
        lines = [f"features: {len(self.eigenvalues)}, numerical rank {self.rank}"]
        curves = {"quality": self.cumulative_quality, "utilization": self.cumulative_utilization}
        for name, curve in curves.items():
            if curve is not None:
                enough = int(np.searchsorted(curve, 0.95 * curve[-1])) + 1
                lines.append(f"cumulative {name}: {curve[-1]:.3f}, 95 % of it in the first {enough}")
        return "\n".join(lines)

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
        for name in ("rank", "target_rank", "output_rank"):
            if type(given.get(name)) is not int and not (given.get(name) is None and name != "rank"):
                raise TypeError(f"{name} must be a whole number, got {given.get(name)!r}")
        return cls(**given)


def feature_spectrum(
    features: Tensor | Gram,
    outputs: Tensor | None = None,
    targets: Tensor | None = None,
    *,
    centered: bool = False,
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
        weights: (n,) not negative.

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
    if targets is not None and targets.ndim == 1 and not targets.is_floating_point():
        targets = one_hot(targets)
    gram = as_gram(features, outputs, targets, weights=weights)
    moment = gram.block("features", "features", centered=centered)
    mean = gram.mean("features")
    eigenvalues, eigenvectors = _descending(moment)
    rank = _rank(gram, eigenvalues)
    scale = eigenvectors[:, :rank] / eigenvalues[:rank].sqrt()  # e_k = scale_kᵀΦ

    def held(name: str) -> tuple[Array, int]:
        """⟨e_k|P|e_k⟩ of every kept eigenfunction with the span of a block, zeros after."""
        span = span_of(gram, name)
        products = scale.T @ (gram.block("features", name, centered=centered) @ span.to_basis)
        return _padded(products.square().sum(1), len(eigenvalues)), span.rank

    quality, target_rank = held("targets") if "targets" in gram.widths else (None, None)
    utilization, output_rank = held("outputs") if "outputs" in gram.widths else (None, None)
    return FeatureSpectrum(
        eigenvalues=eigenvalues.cpu().numpy(),
        rank=rank,
        centered=centered,
        quality=quality,
        utilization=utilization,
        contributions=_contributions(gram, (eigenvalues, eigenvectors) if centered else None),
        target_rank=target_rank,
        output_rank=output_rank,
        eigenvectors=eigenvectors[:, :rank].cpu().numpy(),
        mean=(mean if centered else torch.zeros_like(mean)).cpu().numpy(),
    )


def _descending(matrix: Tensor) -> tuple[Tensor, Tensor]:
    values, vectors = eigh(matrix)
    return values.flip(0).clamp_min(0), vectors.flip(1)


def _rank(gram: Gram, eigenvalues: Tensor) -> int:
    """Eigenvalues above the rounding of the products (which are taken about the mean), activations and eigensolver."""
    p = len(eigenvalues)
    covariance = gram.block("features", "features", centered=True)
    largest = torch.linalg.matrix_norm(covariance @ covariance).sqrt()  # within p^(1/4) of the largest eigenvalue
    activations = gram.eps("features") ** 2 * float(eigenvalues.sum()) / p
    solver = 2 * p * torch.finfo(torch.float64).eps * float(eigenvalues[0])
    cut = max(16 * gram.product_eps * float(largest), activations, solver)
    return max(1, min(int((eigenvalues > cut).sum()), gram.count))


def _padded(values: Tensor, length: int) -> Array:
    full = np.zeros(length)
    full[: len(values)] = values.cpu().numpy()
    return full


def _contributions(gram: Gram, centred: tuple[Tensor, Tensor] | None) -> Array | None:
    if "outputs" not in gram.widths:
        return None
    covariance = gram.block("features", "features", centered=True)
    vectors = (centred or _descending(covariance))[1]
    span = span_of(gram, "outputs")
    # ρ_k⟨e_k|QP̂Q|e_k⟩ = ‖v_kᵀ A_c to_basis‖², which needs no division by a small ρ_k
    shares = (vectors.T @ (gram.block("features", "outputs", centered=True) @ span.to_basis)).square().sum(1)
    norms = torch.linalg.matrix_norm(covariance) * torch.linalg.matrix_norm(span.basis_covariance)
    return (shares / norms).cpu().numpy()


def held_out_quality(
    spectrum: FeatureSpectrum,
    features: Tensor | Gram,
    targets: Tensor | None = None,
    *,
    weights: Tensor | None = None,
) -> Array:
    """Cumulative quality of the training features' eigenfunctions on other data.

    The eigenfunctions e_k(x) = v_kᵀΦ(x)/√ρ_k extend to any input (Nyström). They are orthonormal over the training
    samples only, so on other data they are made orthonormal again, strongest first; entry k is then the share of the
    target space that lies in the span of the first k+1, which on the training data is the quality of the spectrum.
    Eigenfunctions that depend on the stronger ones over these samples add nothing.

    Args:
        spectrum: from :func:`feature_spectrum` on the training data (not one loaded from a file).
        features: (n, p) features of the other data, or a :class:`~lazyrich.Gram` with targets.
        targets: (n,) integer class labels or (n, T) real.
        weights: (n,) not negative.

    Returns:
        (rank,) float64 in [0, 1], not decreasing.

    Raises:
        DataError: no eigenvectors, another number of features, no targets.
    """
    if spectrum.eigenvectors is None or spectrum.mean is None:
        raise DataError("this spectrum has no eigenvectors (it was loaded from a file): compute it from features")
    if targets is not None and targets.ndim == 1 and not targets.is_floating_point():
        targets = one_hot(targets)
    gram = as_gram(features, None, targets, weights=weights, needs=("targets",))
    p = len(spectrum.eigenvalues)
    if gram.widths["features"] != p:
        raise DataError(f"the spectrum has {p} features, these data {gram.widths['features']}")
    device = gram.mean("features").device
    vectors = torch.from_numpy(spectrum.eigenvectors).to(device)
    scale = vectors / torch.from_numpy(spectrum.eigenvalues[: spectrum.rank]).to(device).sqrt()
    shift = gram.mean("features") - torch.from_numpy(spectrum.mean).to(device)
    covariance = gram.block("features", "features", centered=True)
    inner = scale.T @ (covariance + torch.outer(shift, shift)) @ scale
    span = span_of(gram, "targets")
    cross = gram.block("features", "targets", centered=True) + torch.outer(shift, gram.mean("targets"))
    gains = _sequential_gains(inner, scale.T @ (cross @ span.to_basis), 16 * gram.product_eps)
    return np.cumsum(gains.cpu().numpy()) / span.rank


def _sequential_gains(inner: Tensor, cross: Tensor, tolerance: float) -> Tensor:
    """What each function adds to the projection on the targets, by a Cholesky factorisation that skips dependent ones."""
    count = len(inner)
    lower = torch.zeros_like(inner)
    whitened = torch.zeros_like(cross)
    diagonal = inner.diagonal()
    limit = tolerance * diagonal.clamp_min(1.0)
    for k in range(count):
        pivot = diagonal[k] - lower[k, :k].square().sum()
        if pivot <= limit[k]:
            continue
        root = pivot.sqrt()
        lower[k, k] = root
        lower[k + 1 :, k] = (inner[k + 1 :, k] - lower[k + 1 :, :k] @ lower[k, :k]) / root
        whitened[k] = (cross[k] - lower[k, :k] @ whitened[:k]) / root
    return whitened.square().sum(1)
