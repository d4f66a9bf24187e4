"""Linear CKA: of the samples as they are, and from the unbiased estimate of HSIC."""

from __future__ import annotations

import math

import pytest
import torch

from .conftest import Implementation
from .designs import DTYPES, OFFSETS, SCALES, TOLERANCE, design, normal, refused, rotation

PLUG_IN, DEBIASED = "kernel_alignment", "debiased_kernel_alignment"
both = pytest.mark.parametrize("name", [PLUG_IN, DEBIASED])


def expected(name: str, n: int, p: int, q: int, common: int) -> float:
    """For p and q columns of a Hadamard matrix of which ``common`` are the same.

    Plug-in: tr(KL) = n²c, so c/sqrt(pq). HSIC₁ leaves the diagonals (p and q everywhere) out: with them zero, tr(KL) is
    n²c - npq, 1ᵀK1 = -np and 1ᵀKL1 = npq, so HSIC₁ ∝ c - pq/(n - 1).
    """
    lost = 0 if name == PLUG_IN else 1 / (n - 1)
    return (common - p * q * lost) / math.sqrt((p - p * p * lost) * (q - q * q * lost))


A, B = design(16, *range(1, 7)), design(16, *range(5, 9))  # two of six and four columns in common


@both
@pytest.mark.parametrize(("p", "q", "common"), [(3, 2, 2), (6, 4, 2), (1, 1, 1), (7, 5, 4)])
def test_columns_in_common(implementation: Implementation, name: str, p: int, q: int, common: int) -> None:
    """p and q orthogonal columns with c in common: c/sqrt(pq); debiased c - pq/(n - 1) and so on."""
    a, b = design(16, *range(1, p + 1)), design(16, *range(p + 1 - common, p + q + 1 - common))
    assert float(implementation[name](a, b)) == pytest.approx(expected(name, 16, p, q, common), abs=1e-5)


def test_unequal_strengths(implementation: Implementation) -> None:
    """Features of strength s₁, s₂ against the first of them: s₁²/sqrt(s₁⁴ + s₂⁴)."""
    a = design(16, 1, 2) * torch.tensor([3.0, 2.0], dtype=torch.float64)
    assert float(implementation[PLUG_IN](a, a[:, :1])) == pytest.approx(9 / math.sqrt(81 + 16), abs=1e-9)


@both
def test_same_kernel(implementation: Implementation, name: str) -> None:
    """Features with themselves, turned, shifted and scaled: 1."""
    x = normal(40, 5)
    assert float(implementation[name](x, 3 * x @ rotation(5) - 2)) == pytest.approx(1, abs=1e-5)


@both
def test_unrelated(implementation: Implementation, name: str) -> None:
    """Orthogonal columns: 0; the debiased estimate lies below zero, and cutting it off there would be a bias again."""
    a, b = design(16, 1, 2, 3), design(16, 4, 5)
    assert float(implementation[name](a, b)) == pytest.approx(expected(name, 16, 3, 2, 0), abs=1e-5)


@both
@pytest.mark.parametrize("offset", OFFSETS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_offset(implementation: Implementation, name: str, offset: float, dtype: torch.dtype) -> None:
    """A common offset of both sides, as ReLU features have, changes nothing."""
    a, b = A @ rotation(6) + offset, B @ rotation(4) - offset  # turned, for whole numbers would be exact in any precision
    value = implementation[name](a.to(dtype), b.to(dtype))
    assert float(value) == pytest.approx(expected(name, 16, 6, 4, 2), abs=1e-3)


@both
@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_scale(implementation: Implementation, name: str, scale: float, dtype: torch.dtype) -> None:
    """Very small and very large features."""
    value = implementation[name]((A * scale).to(dtype), B.to(dtype))
    assert float(value) == pytest.approx(expected(name, 16, 6, 4, 2), abs=1e-4)


@both
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_precision(implementation: Implementation, name: str, dtype: torch.dtype) -> None:
    """Double, single and half precision, with numbers that all of them hold exactly."""
    value = implementation[name](A.to(dtype), B.to(dtype))
    assert float(value) == pytest.approx(expected(name, 16, 6, 4, 2), abs=TOLERANCE[dtype] if dtype != torch.float64 else 1e-5)


@both
def test_many_features(implementation: Implementation, name: str) -> None:
    """More features than samples: the same kernel, p = 6 columns mapped isometrically into 50 dimensions."""
    wide = A @ rotation(50)[:6]
    assert float(implementation[name](wide, B)) == pytest.approx(expected(name, 16, 6, 4, 2), abs=1e-5)


@both
@pytest.mark.parametrize("seed", range(3))
def test_invariances(implementation: Implementation, name: str, seed: int) -> None:
    """Rotation, order and exchange of the sides change nothing."""
    order = normal(16, seed=seed).argsort()
    value = implementation[name]((B @ rotation(4, seed))[order], (A @ rotation(6, seed))[order])
    assert float(value) == pytest.approx(expected(name, 16, 6, 4, 2), abs=1e-5)


BAD = {
    "constant": (torch.full((16, 3), 2.5), A.float()),
    "constant on the other side": (A.float(), torch.full((16, 3), 0.1)),
    "zero": (torch.zeros(16, 3), A.float()),
    "NaN": (A.float().index_fill(0, torch.tensor([5]), math.nan), B.float()),
    "infinity": (A.float().index_fill(0, torch.tensor([5]), math.inf), B.float()),
    "one sample": (torch.ones(1, 3), torch.ones(1, 2)),
    "unequal lengths": (A.float(), B[:8].float()),
}


@both
@pytest.mark.parametrize("case", BAD)
def test_no_answer(implementation: Implementation, name: str, case: str) -> None:
    """Constant, NaN or infinite data, one sample, unequal lengths: no number."""
    assert refused(implementation[name], *BAD[case])


@both
def test_arguments_stay(implementation: Implementation, name: str) -> None:
    """Neither tensor is written into, and the same call gives the same bits."""
    a, b = normal(30, 6) + 3, normal(30, 2, seed=1)
    kept = a.clone(), b.clone()
    first, second = (float(implementation[name](a, b)) for _ in range(2))
    assert first == second
    assert torch.equal(a, kept[0])
    assert torch.equal(b, kept[1])
