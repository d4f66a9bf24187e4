"""Quality on other data: how much of the targets there the training features' eigenfunctions hold."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..errors import DataError
from ..gram import Gram
from .inputs import as_gram
from .span import span_of
from .spectrum import Array, FeatureSpectrum


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
    gram = as_gram(features, None, targets, weights=weights, needs=("targets",))
    if gram.widths["features"] != spectrum.num_features:
        raise DataError(f"the spectrum has {spectrum.num_features} features, these data {gram.widths['features']}")
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
