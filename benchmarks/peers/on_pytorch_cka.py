"""pytorch-cka."""

from __future__ import annotations

from cka import cka_from_features  # pyright: ignore[reportMissingImports]
from torch import Tensor

PACKAGE = "pytorch-cka"


def debiased_kernel_alignment(a: Tensor, b: Tensor) -> Tensor:
    return cka_from_features(a, b)
