"""What the cases are built of: matrices whose inner products are whole numbers, so that answers are closed forms."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

OFFSETS = (1.0, 10.0, 100.0, 1000.0)
SCALES = (1e-20, 1e-10, 1e10, 1e20)
DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4, torch.bfloat16: 2e-2, torch.float16: 2e-2}


def design(n: int, *columns: int) -> Tensor:
    """Columns of Sylvester's Hadamard matrix: ±1, orthogonal, and, but for column 0 of ones, with mean 0. n is a power of two.

    >>> design(4, 0, 1, 2).tolist()
    [[1.0, 1.0, 1.0], [1.0, -1.0, 1.0], [1.0, 1.0, -1.0], [1.0, -1.0, -1.0]]
    """
    matrix = torch.ones(1, 1, dtype=torch.float64)
    while len(matrix) < n:
        matrix = torch.cat([torch.cat([matrix, matrix], 1), torch.cat([matrix, -matrix], 1)])
    return matrix[:, list(columns)]


def normal(*shape: int, seed: int = 0) -> Tensor:
    """Standard normal numbers, the same in every run."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def rotation(size: int, seed: int = 0) -> Tensor:
    """A random orthogonal matrix."""
    return torch.linalg.qr(normal(size, size, seed=seed)).Q


def spectrum(n: int, singular_values: Tensor) -> Tensor:
    """(n, p) centred columns, orthogonal in L², with these norms, turned at random."""
    basis = normal(n, len(singular_values), seed=1)
    basis = torch.linalg.qr(basis - basis.mean(0)).Q * math.sqrt(n)
    return basis * singular_values @ rotation(len(singular_values))


def refused(function: Callable[..., Any], *arguments: Any, **named: Any) -> bool:
    """Whether a call raises, warns, or gives something that is not finite."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            value = function(*arguments, **named)
        except Exception:  # any: the suite does not prescribe which
            return True
    return bool(said) or not math.isfinite(value if isinstance(value, (int, float)) else float(value))
