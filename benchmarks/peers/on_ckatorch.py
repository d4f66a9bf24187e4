"""ckatorch."""

from __future__ import annotations

from ckatorch.core import cka_base  # pyright: ignore[reportMissingImports]
from torch import Tensor

PACKAGE = "ckatorch"


def kernel_alignment(a: Tensor, b: Tensor) -> Tensor:
    return cka_base(a, b, kernel="linear")


def debiased_kernel_alignment(a: Tensor, b: Tensor) -> Tensor:
    return cka_base(a, b, kernel="linear", unbiased=True)
