"""torch-cka: two models that return what they are given, and loaders of one batch. It works in float32: doubles become that."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from torch_cka import CKA  # pyright: ignore[reportMissingImports]

PACKAGE = "torch-cka"


def debiased_kernel_alignment(a: Tensor, b: Tensor) -> Tensor:
    first, second = (nn.Sequential(nn.Identity()) for _ in range(2))
    comparison = CKA(first, second, "a", "b", model1_layers=["0"], model2_layers=["0"], device="cpu")
    given = [x.float() if x.dtype == torch.float64 else x for x in (a, b)]
    with torch.no_grad():
        comparison.compare(*(DataLoader(TensorDataset(x), batch_size=len(x)) for x in given))
    return comparison.export()["CKA"]
