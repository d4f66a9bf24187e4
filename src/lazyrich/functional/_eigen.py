"""Eigenvalues of symmetric matrices that do not fail where LAPACK's solver does."""

from __future__ import annotations

import torch
from torch import Tensor


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
