"""λ, the laziness ratio: how much of the laziness that unmoved features would show is left."""

from __future__ import annotations

from torch import Tensor

from ..errors import DegenerateError
from ..gram import Gram
from .low_rank import Reference, low_rank_measure

NO_ROOM = 0.05  # under this D_LR, the features of the start leave no room between lazy and rich


def laziness_ratio(
    features: Tensor | Gram,
    start_features: Tensor | Gram,
    outputs: Tensor | None = None,
    *,
    weights: Tensor | None = None,
    rtol: float | None = None,
    reference: Reference = "projection",
) -> Tensor:
    r"""The laziness ratio λ: D_LR of the features over D_LR of the features of the start, against the same outputs.

    .. math:: λ = D_{LR}(Φ_t, f_t) / D_{LR}(Φ_0, f_t)

    λ is 1 where the features did not move, whatever the outputs, and 0 where they hold the learned functions and nothing else. It
    may exceed 1. D_LR itself has no such scale, because it also depends on the shape of the network and on the outputs.

    Args:
        features: (n, p) now; or a :class:`~lazyrich.Gram` with outputs.
        start_features: (n, q) of the start on the same samples; or a :class:`~lazyrich.Gram` with the *present* outputs.
        outputs: (n, C) present outputs; None for Grams.
        weights, rtol, reference: as for :func:`low_rank_measure`.

    Returns:
        0-d float64 tensor, 0 or more.

    Raises:
        DegenerateError: constant features or outputs; or D_LR of the features of the start is under 0.05, so that there is no
            room between lazy and rich.
        DataError, NonFiniteError, TypeError, ValueError: as for :func:`low_rank_measure`.

    Example:
        One output among three equally strong features gives D_LR = 1 - sqrt(1/3), among two 1 - sqrt(1/2):

        >>> import torch
        >>> x = torch.tensor([[1., 1, 1], [-1, 1, -1], [1, -1, -1], [-1, -1, 1]], dtype=torch.float64)
        >>> laziness_ratio(x[:, :2], x, x[:, :1])
        tensor(0.6930, dtype=torch.float64)
        >>> laziness_ratio(x + 1, x, x[:, :1])  # a shift moves no feature
        tensor(1., dtype=torch.float64)
    """
    value = low_rank_measure(features, outputs, weights=weights, rtol=rtol, reference=reference)
    return value / with_room(float(low_rank_measure(start_features, outputs, weights=weights, rtol=rtol, reference=reference)))


def with_room(start_value: float) -> float:
    """D_LR of the features of the start, if a ratio to it has a meaning.

    Raises:
        DegenerateError: it is under 0.05.
    """
    if start_value < NO_ROOM:
        raise DegenerateError(
            f"the features of the start have D_LR {start_value:.3f} against the present outputs, under {NO_ROOM:g}: they leave "
            "no room between lazy and rich"
        )
    return start_value
