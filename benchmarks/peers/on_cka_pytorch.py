"""cka-pytorch: two models that return some of the columns of what they are given, and a loader of one batch."""

from __future__ import annotations

import torch
from cka_pytorch.cka import CKACalculator  # pyright: ignore[reportMissingImports]
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

PACKAGE = "cka-pytorch"


class Columns(nn.Module):
    def __init__(self, columns: slice) -> None:
        super().__init__()
        self.columns, self.kept = columns, nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.kept(x[:, self.columns])


def debiased_kernel_alignment(a: Tensor, b: Tensor) -> Tensor:
    width = a.shape[1]
    first, second = Columns(slice(width)), Columns(slice(width, None))
    calculator = CKACalculator(first, second, ["kept"], ["kept"], device=torch.device("cpu"), verbose=False)
    x = torch.cat([a, b], dim=1)
    return calculator.calculate_cka_matrix(DataLoader(TensorDataset(x, x), batch_size=len(x)), num_epochs=1)
