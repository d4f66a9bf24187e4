"""Eigenvalues of symmetric matrices: in full, with a second attempt where LAPACK fails, or the leading part of a large matrix."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..gram import Gram

FULL_SPECTRUM = 4096  # up to this many features are decomposed in full; `benchmarks/accuracy/large_p.py` measures the cost
LEADING = 128  # number of eigenvalues that are computed for more features
TOLERANCE = 1e-8  # largest residual of the leading part, relative to the largest eigenvalue
MOST_STEPS = 100
_SOLVER_FAILED = (AssertionError, torch.linalg.LinAlgError)  # pyright: ignore[reportPrivateImportUsage]


@dataclass(frozen=True)
class Eigen:
    """Eigenvalues and eigenvectors of a positive semi-definite matrix, all or the leading ones.

    Attributes:
        values: (k,) descending, not negative.
        vectors: (p, k) one eigenvector per column.
        trace: sum of all p eigenvalues, from the diagonal.
        square: sum of the squares of all p eigenvalues, from the entries.
        residual: max_k ‖S v_k - λ_k v_k‖/λ₁ of the leading part; None for a complete decomposition.
    """

    values: Tensor
    vectors: Tensor
    trace: float
    square: float
    residual: float | None = None

    @property
    def whole(self) -> bool:
        """Whether these are all eigenvalues."""
        return self.residual is None


def decomposed(gram: Gram, *, centered: bool, leading: int | None = None) -> Eigen:
    """Decompose the second moment of the features, or with ``centered`` their covariance.

    Args:
        gram: holds the features.
        centered: whether to decompose the covariance.
        leading: number of eigenvalues. None computes all of them for up to ``FULL_SPECTRUM`` features, and the first ``LEADING``
            for more.

    Raises:
        ValueError: ``leading`` is below 1.
    """
    matrix = gram.block("features", "features", centered=centered)
    p = len(matrix)
    if leading is not None and leading < 1:
        raise ValueError(f"leading must be a number of eigenvalues, 1 or more, or None, got {leading}")
    count = min(leading or (p if p <= FULL_SPECTRUM else LEADING), p)
    if count < p:
        return leading_part(matrix, count)
    eigen = whole(matrix)
    return replace(eigen, values=gram.reading(f"eigenvalues {centered}", lambda: eigen.values))


def eigenvalues(gram: Gram, *, centered: bool) -> Tensor:
    """(p,) all eigenvalues of the features' second moment, or with ``centered`` of their covariance; descending, not negative.

    The Gram keeps them, as it keeps those of :func:`decomposed`, but not the eigenvectors, which are as large as the Gram.
    """

    def compute() -> Tensor:
        return eigvalsh(gram.block("features", "features", centered=centered)).flip(0).clamp_min(0)

    return gram.reading(f"eigenvalues {centered}", compute)


def whole(matrix: Tensor) -> Eigen:
    """Compute all eigenvalues and eigenvectors by LAPACK."""
    values, vectors = eigh(matrix)
    return Eigen(values.flip(0).clamp_min(0), vectors.flip(1), *_sums(matrix))


def leading_part(matrix: Tensor, count: int) -> Eigen:
    """Compute the first ``count`` eigenvalues and eigenvectors by LOBPCG from a seeded start, with their residual.

    The block of the solver is 1.5 times as wide as ``count``, because convergence depends on the gap behind its last column. The
    method needs three such blocks side by side. A matrix that is too small for them is decomposed in full and cut.

    Reference:
        Knyazev, SIAM J. Sci. Comput. 23 (2001) 517; Stathopoulos & Wu, ibid. 2165 (its orthogonal basis).
    """
    block = count + max(8, count // 2)
    basis = whole(matrix).vectors[:, :count] if 3 * block > len(matrix) else _lobpcg(matrix, count, block)
    basis = torch.linalg.qr(basis).Q
    image = matrix @ basis
    values, rotation = eigh(basis.T @ image)  # one more Rayleigh-Ritz step, so that all ends of the solver give sorted pairs
    values, rotation = values.flip(0)[:count], rotation.flip(1)[:, :count]
    vectors = basis @ rotation
    distance = float(torch.linalg.vector_norm(image @ rotation - vectors * values, dim=0).max())
    return Eigen(values.clamp_min(0), vectors, *_sums(matrix), distance / float(values[0]) if distance else 0.0)


def _lobpcg(matrix: Tensor, count: int, block: int) -> Tensor:
    """(p, k ≥ count) a basis of the leading eigenvectors: the last iterate, whether or not the solver converged."""
    start = torch.randn(len(matrix), block, generator=torch.Generator().manual_seed(0), dtype=matrix.dtype).to(matrix.device)
    iterates = [start]
    try:
        return torch.lobpcg(
            matrix,
            k=count,
            X=start,
            niter=MOST_STEPS,
            tol=TOLERANCE / 2,  # the solver compares it with λ_k plus a norm of the matrix
            largest=True,
            tracker=lambda solver: iterates.append(solver.X),  # pyright: ignore[reportArgumentType]
        )[1]
    except _SOLVER_FAILED:  # rounding stopped the solver; the residual of the last iterate is reported
        return iterates[-1]


def _sums(matrix: Tensor) -> tuple[float, float]:
    return float(matrix.trace()), float(torch.linalg.matrix_norm(matrix)) ** 2


def eigh(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Compute the eigenvalues, ascending, and the eigenvectors of a symmetric matrix.

    LAPACK's divide and conquer sometimes fails to converge on a finite matrix, for example on the covariance of features of which
    nearly all are dead. Then the upper triangle is tried, and after it the rows in reverse order.

    Raises:
        torch.linalg.LinAlgError: none of the three attempts converges.
    """
    try:
        return torch.linalg.eigh(matrix)
    except torch.linalg.LinAlgError:  # pyright: ignore[reportPrivateImportUsage]
        pass
    try:
        return torch.linalg.eigh(matrix, UPLO="U")
    except torch.linalg.LinAlgError:  # pyright: ignore[reportPrivateImportUsage]
        values, vectors = torch.linalg.eigh(matrix.flip(0, 1))
        return values, vectors.flip(0)


def eigvalsh(matrix: Tensor) -> Tensor:
    """Compute the eigenvalues only, ascending."""
    try:
        return torch.linalg.eigvalsh(matrix)
    except torch.linalg.LinAlgError:  # pyright: ignore[reportPrivateImportUsage]
        return eigh(matrix)[0]
