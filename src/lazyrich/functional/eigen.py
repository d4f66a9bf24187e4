"""Eigenvalues of symmetric matrices: solvers that do not fail where LAPACK's does, and the leading part of a large matrix."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..gram import Gram

FULL_SPECTRUM = 4096  # features up to here are decomposed in full, `benchmarks/accuracy/large_p.py` shows what it costs
LEADING = 128  # eigenvalues taken of more features than that
TOLERANCE = 1e-8  # of the leading part: largest residual, relative to the largest eigenvalue
MOST_STEPS = 100
_SOLVER_FAILED = (AssertionError, torch.linalg.LinAlgError)  # pyright: ignore[reportPrivateImportUsage]


@dataclass(frozen=True)
class Eigen:
    """Eigenvalues and eigenvectors of a symmetric matrix that has none under zero, all or the leading ones.

    Attributes:
        values: (k,) descending, not negative.
        vectors: (p, k).
        trace: sum of all p eigenvalues, from the diagonal.
        square: sum of their squares, from the entries.
        residual: max_k ‖S v_k - λ_k v_k‖/λ₁ of the leading part; None where all p are there.
    """

    values: Tensor
    vectors: Tensor
    trace: float
    square: float
    residual: float | None = None

    @property
    def whole(self) -> bool:
        """Whether all eigenvalues are there."""
        return self.residual is None

    @property
    def converged(self) -> bool:
        """Whether the residual is within ``TOLERANCE``."""
        return self.residual is None or self.residual <= TOLERANCE


def decomposed(gram: Gram, *, centered: bool, leading: int | None = None) -> Eigen:
    """The second moment, or with ``centered`` the covariance, of the features: in full, or its leading part.

    Args:
        leading: how many eigenvalues; None takes all of up to ``FULL_SPECTRUM`` features, of more the first ``LEADING``.
    """
    matrix = gram.block("features", "features", centered=centered)
    p = len(matrix)
    if leading is not None and leading < 1:
        raise ValueError(f"leading is a number of eigenvalues, 1 or more, or None, got {leading}")
    count = min(leading or (p if p <= FULL_SPECTRUM else LEADING), p)
    if count < p:
        return leading_part(matrix, count)
    found = whole(matrix)
    return replace(found, values=gram.reading(f"eigenvalues {centered}", lambda: found.values))


def eigenvalues(gram: Gram, *, centered: bool) -> Tensor:
    """(p,) all of the second moment, or with ``centered`` the covariance, of the features, descending, not negative.

    The Gram keeps them, as it keeps those of :func:`decomposed`, but no eigenvectors, which are as large as itself.
    """

    def compute() -> Tensor:
        return eigvalsh(gram.block("features", "features", centered=centered)).flip(0).clamp_min(0)

    return gram.reading(f"eigenvalues {centered}", compute)


def whole(matrix: Tensor) -> Eigen:
    """All eigenvalues and eigenvectors, by LAPACK."""
    values, vectors = eigh(matrix)
    return Eigen(values.flip(0).clamp_min(0), vectors.flip(1), *_sums(matrix))


def leading_part(matrix: Tensor, count: int) -> Eigen:
    """The first ``count`` eigenvalues and eigenvectors, by LOBPCG from a seeded start, with their residual.

    Its block is half as wide again as what is asked for, since convergence depends on the gap behind the last column. Where
    three such blocks do not fit beside each other, which the method needs, the matrix is decomposed in full and cut.

    Reference:
        Knyazev, SIAM J. Sci. Comput. 23 (2001) 517; Stathopoulos & Wu, ibid. 2165 (its orthogonal basis).
    """
    block = count + max(8, count // 2)
    basis = whole(matrix).vectors[:, :count] if 3 * block > len(matrix) else _lobpcg(matrix, count, block)
    basis = torch.linalg.qr(basis).Q
    image = matrix @ basis
    values, rotation = eigh(basis.T @ image)  # once more Rayleigh-Ritz: in order, whatever way the solver ended
    values, rotation = values.flip(0)[:count], rotation.flip(1)[:, :count]
    vectors = basis @ rotation
    distance = float(torch.linalg.vector_norm(image @ rotation - vectors * values, dim=0).max())
    return Eigen(values.clamp_min(0), vectors, *_sums(matrix), distance / float(values[0]) if distance else 0.0)


def _lobpcg(matrix: Tensor, count: int, block: int) -> Tensor:
    """(p, k ≥ count) what spans the leading eigenvectors, as good as it came."""
    start = torch.randn(len(matrix), block, generator=torch.Generator().manual_seed(0), dtype=matrix.dtype).to(matrix.device)
    reached = [start]
    try:
        return torch.lobpcg(
            matrix,
            k=count,
            X=start,
            niter=MOST_STEPS,
            tol=TOLERANCE / 2,  # the solver holds it against λ_k and a norm of the matrix together
            largest=True,
            tracker=lambda solver: reached.append(solver.X),  # pyright: ignore[reportArgumentType]
        )[1]
    except _SOLVER_FAILED:  # it lost its way in rounding: the residual tells how far it came
        return reached[-1]


def _sums(matrix: Tensor) -> tuple[float, float]:
    return float(matrix.trace()), float(torch.linalg.matrix_norm(matrix)) ** 2


def eigh(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues, ascending, and eigenvectors of a symmetric matrix.

    LAPACK's divide and conquer now and then does not converge on a finite matrix, seen on the covariance of features of
    which nearly all are dead; the upper triangle or the rows in reverse then take it another way.

    Raises:
        torch.linalg.LinAlgError: none of the ways converges.
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
    """The eigenvalues alone, ascending."""
    try:
        return torch.linalg.eigvalsh(matrix)
    except torch.linalg.LinAlgError:  # pyright: ignore[reportPrivateImportUsage]
        return eigh(matrix)[0]
