"""Quality on other data: the share of the targets that lies in the span of the training features' eigenfunctions."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..errors import DataError
from ..gram import Gram
from .inputs import AnyArray, as_gram
from .span import span_of
from .spectrum import Array, FeatureSpectrum


def held_out_quality(
    spectrum: FeatureSpectrum,
    features: AnyArray | Gram,
    targets: AnyArray | None = None,
    *,
    weights: AnyArray | None = None,
) -> Array:
    """Cumulative quality of the training features' eigenfunctions on other data.

    The eigenfunctions e_k(x) = v_kᵀΦ(x)/√ρ_k extend to any input (Nyström). They are orthonormal over the training samples only,
    so on other data they are orthonormalised again, in order of strength. Entry k of the result is the share of the target space
    that lies in the span of the first k+1 eigenfunctions. On the training data this is the cumulative quality of the spectrum.
    An eigenfunction that is linearly dependent on stronger ones over these samples adds nothing.

    Args:
        spectrum: result of :func:`feature_spectrum` on the training data; one that was loaded from a file has no eigenvectors.
        features: (n, p) features of the other data, or a :class:`~lazyrich.Gram` with targets.
        targets: (n,) integer class labels or (n, T) real.
        weights: (n,) not negative.

    Returns:
        (rank,) float64 in [0, 1], not decreasing.

    Raises:
        DataError: the spectrum has no eigenvectors, the numbers of features differ, or there are no targets.
    """
    if spectrum.eigenvectors is None or spectrum.mean is None:
        raise DataError("this spectrum has no eigenvectors, because it was loaded from a file: compute it from features")
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
    # A projection is at most as long as what is projected (Bessel), and no gain is negative: what is above 1 is rounding.
    return np.minimum(np.cumsum(gains.cpu().numpy()) / span.rank, 1.0)


def _sequential_gains(inner: Tensor, cross: Tensor, tolerance: float) -> Tensor:
    """What each function adds to the projection of the targets, by a Cholesky factorisation that skips dependent functions."""
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
