"""What a batch must be before a Gram takes it."""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import DataError, NonFiniteError

ON_HOST = ("cpu", "mps")  # devices whose numbers are looked at as they come; all others would have to be waited for
LARGEST = 1e60  # beyond, sums of fourth powers leave float64


def checked(
    features: Tensor, outputs: Tensor | None, targets: Tensor | None, weights: Tensor | None, batch: int
) -> tuple[dict[str, Tensor], Tensor | None, Tensor | None]:
    """Blocks by name, weights (float64, on the CPU), and a 0-d bool that says whether all is finite.

    That bool is for accelerators alone, which would have to be waited for; on the CPU numbers are looked at here and it is None.

    Args:
        batch: its number, for the message.

    Raises:
        NonFiniteError, DataError, TypeError: as :meth:`lazyrich.Gram.update`.
    """
    given = {"features": features, "outputs": outputs, "targets": targets}
    blocks = {name: x.detach() for name, x in given.items() if x is not None}
    n = len(features)
    for name, x in blocks.items():
        if x.ndim != 2 or len(x) != n:
            raise DataError(f"{name} must have shape (n, width) with n = {n} rows as the features, got {tuple(x.shape)}")
        if x.shape[1] == 0:
            raise DataError(f"{name} have no columns, shape {tuple(x.shape)}")
        if name != "targets" and not x.is_floating_point():
            raise TypeError(f"{name} must be floating point, got {x.dtype}; convert them with .float()")
    if weights is not None:
        weights = weights.detach().to("cpu", torch.float64)
        if weights.shape != (n,):
            raise DataError(f"weights must have shape ({n},), one for each row, got {tuple(weights.shape)}")
        if not bool(torch.isfinite(weights).all()) or bool((weights < 0).any()):
            raise DataError("weights must be finite and not negative")
    finite = None
    for name, x in blocks.items():
        if x.numel() == 0 or not x.is_floating_point():
            continue
        low, high = torch.aminmax(x)
        if x.device.type in ON_HOST:
            _check(name, x, float(low), float(high), batch)
        else:
            both = (torch.isfinite(low) & torch.isfinite(high)).to(features.device)
            finite = both if finite is None else finite & both
    return blocks, weights, finite


def _check(name: str, x: Tensor, low: float, high: float, batch: int) -> None:
    if not (abs(low) < torch.inf and abs(high) < torch.inf):  # NaN is less than nothing
        row = int((~torch.isfinite(x)).any(dim=1).nonzero()[0])
        raise NonFiniteError(
            f"{name} hold NaN or infinity in batch {batch} (row {row} of {len(x)}, counting from 0); "
            "find the layer or the sample that produces it before you measure"
        )
    if max(-low, high) > LARGEST:
        raise DataError(f"{name} reach {max(-low, high):.1e}, and powers of that overflow; divide them by a constant first")
