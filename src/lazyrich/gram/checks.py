"""The checks that a batch must pass before it is added."""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import DataError, NonFiniteError

ON_HOST = ("cpu", "mps")  # devices whose values are checked at once; for any other the host would have to wait
LARGEST = 1e60  # sums of fourth powers of larger numbers overflow float64
LARGEST_WEIGHT = 1e100  # weights are squared: larger ones overflow, and smaller ones than its inverse underflow


def checked(
    blocks: dict[str, Tensor], weights: Tensor | None, batch: int
) -> tuple[dict[str, Tensor], Tensor | None, Tensor | None]:
    """Check the blocks of one batch and their weights.

    Args:
        blocks: (n, width) tensors by name. Only "targets" may hold whole numbers.
        weights: (n,) not negative, or None.
        batch: the batch's number, for the error message.

    Returns:
        The detached blocks; the weights as float64 on the CPU; and for accelerators a 0-d bool tensor that is True if all values
        are finite. On the CPU the values are checked here and the third is None.

    Raises:
        NonFiniteError: NaN or infinity in a block on the CPU.
        DataError: shapes that do not match, no columns, numbers that are too large, or weights that are negative or not finite.
        TypeError: a block other than "targets" is not floating point.
    """
    blocks = {name: x.detach() for name, x in blocks.items()}
    first = next(iter(blocks))
    n = len(blocks[first])
    for name, x in blocks.items():
        if x.ndim != 2 or len(x) != n:
            raise DataError(f"{name} must have shape (n, width), with n = {n} as the length of {first}; got {tuple(x.shape)}")
        if x.shape[1] == 0:
            raise DataError(f"{name} must have at least one column, got shape {tuple(x.shape)}")
        if name != "targets" and not x.is_floating_point():
            raise TypeError(f"{name} must be floating point, got {x.dtype}; convert the tensor with .float()")
    if weights is not None:
        weights = weights.detach().to("cpu", torch.float64)
        if weights.shape != (n,):
            raise DataError(f"weights must have shape ({n},), one weight for each row; got {tuple(weights.shape)}")
        if not bool(torch.isfinite(weights).all()) or bool((weights < 0).any()):
            raise DataError("weights must be finite and not negative")
        if n and float(weights.max()) > LARGEST_WEIGHT:
            raise DataError(
                f"weights reach {float(weights.max()):.1e}, so their squares overflow; divide all of them by a constant"
            )
    finite = None
    for name, x in blocks.items():
        if x.numel() == 0 or not x.is_floating_point():
            continue
        low, high = torch.aminmax(x)
        if x.device.type in ON_HOST:
            _check(name, x, float(low), float(high), batch)
        else:
            both = (torch.isfinite(low) & torch.isfinite(high)).to(blocks[first].device)
            finite = both if finite is None else finite & both
    return blocks, weights, finite


def _check(name: str, x: Tensor, low: float, high: float, batch: int) -> None:
    if not (abs(low) < torch.inf and abs(high) < torch.inf):  # a comparison with NaN is False
        row = int((~torch.isfinite(x)).any(dim=1).nonzero()[0])
        raise NonFiniteError(
            f"{name} hold NaN or infinity in batch {batch} (row {row} of {len(x)}, counting from 0); "
            "find the layer or the sample that produces it before you measure"
        )
    if max(-low, high) > LARGEST:
        raise DataError(f"{name} reach {max(-low, high):.1e}, so their fourth powers overflow; divide them by a constant first")
