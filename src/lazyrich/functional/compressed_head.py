"""Compress a head with very many outputs to a narrow one with the same inner products."""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import DataError
from .eigen import eigh
from .inputs import AnyArray, as_tensor

ROWS_AT_ONCE = 4096  # rows of the head's weight that are copied to float64 at a time


def compressed_head(weight: AnyArray, bias: AnyArray | None = None) -> tuple[Tensor, Tensor]:
    """Compute a narrow linear map whose outputs have the same inner products as the outputs of the head.

    The outputs ŴΦ̂, with Ŵ = [W b] and Φ̂ = [Φ 1], lie in a space of at most p + 1 dimensions. With ŴᵀŴ = V Λ Vᵀ, the outputs
    Λ^{1/2} Vᵀ Φ̂ have the same singular values and span the same functions, so every measure of the outputs has the same value.
    No array of size C × C or n × C is formed.

    Args:
        weight: (C, p) weight of the head.
        bias: (C,) bias of the head, or None.

    Returns:
        A map (p, k) and a shift (k,), float64, with k = min(C, p + 1): pass ``features @ map + shift`` as the outputs to a
        ``Gram(num_outputs=C)``.

    Raises:
        DataError: shapes that do not match.

    Example:
        A thousand outputs of three features become four:

        >>> import torch
        >>> weight = torch.randn(1000, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        >>> bias = torch.ones(1000, dtype=torch.float64)
        >>> to_narrow, shift = compressed_head(weight, bias)
        >>> x = torch.tensor([[1.0, 2.0, 3.0], [0.0, 1.0, -1.0]], dtype=torch.float64)
        >>> outputs, narrow = x @ weight.T + bias, x @ to_narrow + shift
        >>> narrow.shape, torch.allclose(narrow @ narrow.T, outputs @ outputs.T)
        (torch.Size([2, 4]), True)
    """
    weight, bias = as_tensor("weight", weight), None if bias is None else as_tensor("bias", bias)
    if weight.ndim != 2 or (bias is not None and bias.shape != weight.shape[:1]):
        bias_shape = None if bias is None else tuple(bias.shape)
        raise DataError(f"weight must have shape (C, p) and bias (C,), got {tuple(weight.shape)} and {bias_shape}")
    p = weight.shape[1]
    device = torch.device("cpu") if weight.device.type == "mps" else weight.device
    inner = torch.zeros(p + 1, p + 1, dtype=torch.float64, device=device)  # ŴᵀŴ
    for start in range(0, len(weight), ROWS_AT_ONCE):
        rows = weight[start : start + ROWS_AT_ONCE].detach().to(device, torch.float64)
        last = torch.zeros(len(rows)) if bias is None else bias[start : start + ROWS_AT_ONCE].detach()
        augmented = torch.cat([rows, last.to(rows).unsqueeze(1)], dim=1)
        inner += augmented.T @ augmented
    values, vectors = eigh(inner)
    root = (vectors * values.clamp_min(0).sqrt()).flip(1)[:, : min(len(weight), p + 1)]
    return root[:p], root[p]
