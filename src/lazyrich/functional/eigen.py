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
ROUNDING_FACTOR = 4.0  # products in float32 make eigenvalues of up to 1.1 (features of either sign) or 3.2 (ReLU) eps·√p·vᵀDv
_SOLVER_FAILED = (AssertionError, torch.linalg.LinAlgError)  # pyright: ignore[reportPrivateImportUsage]


@dataclass(frozen=True)
class Eigen:
    """Eigenvalues and eigenvectors of a positive semi-definite matrix, all or the leading ones.

    Attributes:
        values: (k,) descending, not negative.
        vectors: (p, k) one eigenvector per column.
        trace: sum of all p eigenvalues, from the diagonal.
        square: sum of the squares of all p eigenvalues, from the entries.
        next_value: 0-d, the eigenvalue after the last one of ``values``; 0 for a complete decomposition.
        residual: max_k ‖S v_k - λ_k v_k‖/λ₁ of the leading part; None for a complete decomposition.
    """

    values: Tensor
    vectors: Tensor
    trace: float
    square: float
    next_value: Tensor
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
    gram.reading(f"roundings {centered}", lambda: _roundings(gram, eigen, centered))
    return replace(eigen, values=gram.reading(f"eigenvalues {centered}", lambda: eigen.values))


def eigenvalues(gram: Gram, *, centered: bool) -> Tensor:
    """(p,) all eigenvalues of the features' second moment, or with ``centered`` of their covariance; descending, not negative.

    The Gram keeps them, as it keeps those of :func:`decomposed`, but not the eigenvectors, which are as large as the Gram.
    """

    def compute() -> Tensor:
        return eigvalsh(gram.block("features", "features", centered=centered)).flip(0).clamp_min(0)

    return gram.reading(f"eigenvalues {centered}", compute)


def above_rounding(gram: Gram, *, centered: bool) -> Tensor:
    """(p,) the :func:`eigenvalues`, with zero for each that the rounding of products and activations may have made.

    An entry of the products of features i and j is off by about eps·√(D_i D_j), with D the mean squares about the pilot. So the
    eigenvalues of v, in a space of p dimensions, are off by up to about eps·√p·vᵀDv. The precision eps is that of a pass's
    products: float32 where the features are float32 or coarser. Thus tensors and a pass count the same directions.
    """

    def compute() -> Tensor:
        eigen = whole(gram.block("features", "features", centered=centered))
        gram.reading(f"eigenvalues {centered}", lambda: eigen.values)
        return _roundings(gram, eigen, centered)

    roundings = gram.reading(f"roundings {centered}", compute)
    values = eigenvalues(gram, centered=centered)
    return torch.where(values > roundings, values, 0.0)


def separated(gram: Gram, eigen: Eigen, *, centered: bool) -> Tensor:
    """(k,) bool, for each number of leading eigenvectors whether the next eigenvalue is clearly smaller.

    Eigenvectors of eigenvalues that differ by less than their rounding, or than the residual of the solver, are any basis of the
    space that they span together.
    """
    values = torch.cat([eigen.values, eigen.next_value.reshape(1)])
    if eigen.whole:
        roundings = gram.reading(f"roundings {centered}", lambda: _roundings(gram, eigen, centered))
    else:
        roundings = _roundings(gram, eigen, centered).clamp_min(TOLERANCE * float(values[0]))
    apart = values[:-1] - values[1:] > roundings
    apart[-1] |= eigen.whole
    return apart


def _roundings(gram: Gram, eigen: Eigen, centered: bool) -> Tensor:
    """(k,) for each eigenvector the largest eigenvalue that is attributed to rounding."""
    p, mean = gram.widths["features"], gram.mean("features")
    raw = gram.block("features", "features", centered=True).diagonal() + mean.square()
    activations = gram.eps("features")
    products = max(gram.product_eps, min(activations, torch.finfo(torch.float32).eps))
    scales = torch.stack([ROUNDING_FACTOR * products * p**0.5 * gram.squares_about_pilot, activations**2 * raw])
    along = torch.cat([scales @ part.square() for part in eigen.vectors.split(LEADING, dim=1)], dim=1)
    solver = 2 * p * torch.finfo(torch.float64).eps * float(eigen.values[0])
    return along.amax(0).clamp_min(solver)


def whole(matrix: Tensor) -> Eigen:
    """Compute all eigenvalues and eigenvectors by LAPACK."""
    values, vectors = eigh(matrix)
    return Eigen(values.flip(0).clamp_min(0), vectors.flip(1), *_sums(matrix), next_value=values.new_zeros(()))


def leading_part(matrix: Tensor, count: int) -> Eigen:
    """Compute the first ``count`` eigenvalues and eigenvectors by LOBPCG from a seeded start, with their residual.

    The block of the solver is 1.5 times as wide as ``count``, because convergence depends on the gap behind its last column. The
    method needs three such blocks side by side. A matrix that is too small for them is decomposed in full and cut.

    Reference:
        Knyazev, SIAM J. Sci. Comput. 23 (2001) 517; Stathopoulos & Wu, ibid. 2165 (its orthogonal basis).
    """
    block = count + max(8, count // 2)
    basis = whole(matrix).vectors[:, : count + 1] if 3 * block > len(matrix) else _lobpcg(matrix, count + 1, block)
    basis = torch.linalg.qr(basis).Q
    image = matrix @ basis
    values, rotation = eigh(basis.T @ image)  # one more Rayleigh-Ritz step, so that all ends of the solver give sorted pairs
    values, rotation = values.flip(0).clamp_min(0), rotation.flip(1)[:, :count]
    first, next_value = values[:count], values[count] if len(values) > count else values.new_zeros(())
    vectors = basis @ rotation
    distance = float(torch.linalg.vector_norm(image @ rotation - vectors * first, dim=0).max())
    return Eigen(first, vectors, *_sums(matrix), next_value, distance / float(first[0]) if distance else 0.0)


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
