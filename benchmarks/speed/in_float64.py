"""The definitions, in float64 with NumPy and without a thought of speed: what each package's number is held to."""

from __future__ import annotations

import numpy as np

Array = np.ndarray


def low_rank(features: Array, outputs: Array) -> float:
    """D_LR, the projection being on the left singular vectors of the outputs."""
    basis, values, _ = np.linalg.svd(outputs, full_matrices=False)
    basis = basis[:, values > 1e-6 * values[0]]
    centred, basis = features - features.mean(0), basis - basis.mean(0)
    norms = np.linalg.norm(centred.T @ centred) * np.linalg.norm(basis.T @ basis)
    return 1 - np.linalg.norm(basis.T @ centred) ** 2 / norms


def eigenvalues(features: Array, *, centred: bool = True) -> Array:
    """Of the covariance, or of the second moment, descending."""
    x = features - features.mean(0) if centred else features
    return np.linalg.svd(x, compute_uv=False) ** 2 / len(x)


def entropy_rank(shares: Array) -> float:
    shares = shares[shares > 0]
    return float(np.exp(-(shares * np.log(shares)).sum()))


def rankme(raw: Array) -> float:
    """Of the second moment's eigenvalues, as in the paper."""
    return entropy_rank(np.sqrt(raw) / np.sqrt(raw).sum() + 1e-7)


def exponent(values: Array, first: int, last: int) -> float:
    """α: the weighted line through log λ over log rank."""
    rank = np.arange(first, last + 1)
    return -float(np.polyfit(np.log(rank), np.log(values[first - 1 : last]), 1, w=rank**-0.5)[0])


def alignment(a: Array, b: Array) -> float:
    """Linear CKA of the samples as they are."""
    a, b = a - a.mean(0), b - b.mean(0)
    return float(np.linalg.norm(a.T @ b) ** 2 / (np.linalg.norm(a.T @ a) * np.linalg.norm(b.T @ b)))


def debiased_alignment(a: Array, b: Array) -> float:
    """Linear CKA from HSIC₁ (Song et al. 2012), which no shift of the features changes."""
    a, b = a - a.mean(0), b - b.mean(0)

    def hsic(x: Array, y: Array) -> float:
        n, kx, ky = len(x), (x**2).sum(1), (y**2).sum(1)  # the diagonals that are left out
        rows_x, rows_y = x @ x.sum(0) - kx, y @ y.sum(0) - ky
        trace = np.linalg.norm(x.T @ y) ** 2 - kx @ ky
        return trace + rows_x.sum() * rows_y.sum() / ((n - 1) * (n - 2)) - 2 / (n - 2) * rows_x @ rows_y

    return float(hsic(a, b) / np.sqrt(hsic(a, a) * hsic(b, b)))


def collapse(features: Array, labels: Array, head: Array) -> dict[str, float]:
    """NC1-NC3 (Papyan, Han & Donoho 2020), equiangularity as the mean deviation of the cosines."""
    classes = len(head)
    means = np.stack([features[labels == c].mean(0) for c in range(classes)])
    deviations, m = features - means[labels], means - features.mean(0)
    between = np.linalg.pinv(m.T @ m / classes, rcond=1e-9, hermitian=True)
    norms = np.linalg.norm(m, axis=1)
    cosines = (m @ m.T / np.outer(norms, norms))[np.triu_indices(classes, 1)]
    return {
        "NC1": float((deviations.T @ deviations / len(features) * between).sum() / classes),
        "NC2 norms": float(norms.std() / norms.mean()),
        "NC2 angles": float(np.abs(cosines + 1 / (classes - 1)).mean()),
        "NC3": float(np.linalg.norm(head / np.linalg.norm(head) - m / np.linalg.norm(m))),
    }
