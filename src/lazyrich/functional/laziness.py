"""λ, the laziness ratio: how much of the laziness that unmoved features would show is left."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from ..errors import DegenerateError
from ..gram import Gram
from .influence import Influence, interval
from .low_rank import LowRankEstimate, Reference, low_rank_measure

NO_ROOM = 0.05  # under this D_LR, the features of the start leave no room between lazy and rich
_ERRORS = 3  # nor where it is under so many standard errors


@dataclass(frozen=True)
class LazinessEstimate:
    """λ with its error.

    Attributes:
        value: ratio of the plug-in values.
        corrected: ratio of the bias-corrected values; None where one of the two has none.
        stderr: standard error; None where the two were not estimated on the same retained rows.
        interval: 95 % interval around ``corrected``.
        influence: of the retained rows, from which errors of differences follow.
    """

    value: float
    corrected: float | None = None
    stderr: float | None = None
    interval: tuple[float, float] | None = None
    influence: Influence | None = field(default=None, repr=False, compare=False)


def laziness_estimate(now: LowRankEstimate, start: LowRankEstimate) -> LazinessEstimate:
    """λ from the estimates of D_LR for the features now and at the start, against the same outputs.

    The error follows from the influences of the same retained rows: a row moves λ by λ (IF_N/N - IF_D/D), N and D the numerator
    and the denominator. What moves both alike cancels.

    Raises:
        DegenerateError: there is no room: the denominator is under 0.05, or under three of its standard errors.
    """
    value = now.value / with_room(start.value, start.stderr)
    if now.corrected is None or start.corrected is None or start.corrected <= 0:
        return LazinessEstimate(value)
    corrected = now.corrected / start.corrected
    if now.influence is None or start.influence is None or now.value == 0:
        return LazinessEstimate(value, corrected)
    relative = now.influence.less(start.influence, 1 / start.value, value / start.value)
    if relative is None:
        return LazinessEstimate(value, corrected)
    stderr = relative.variance**0.5
    return LazinessEstimate(value, corrected, stderr, interval(corrected, stderr, relative.freedom), relative)


def laziness_ratio(
    features: Tensor | Gram,
    start_features: Tensor | Gram,
    outputs: Tensor | None = None,
    *,
    weights: Tensor | None = None,
    rtol: float | None = None,
    reference: Reference = "projection",
    head_bias: bool = True,
) -> Tensor:
    r"""The laziness ratio λ: D_LR of the features over D_LR of the features of the start, against the same outputs.

    .. math:: λ = D_{LR}(Φ_t, f_t) / D_{LR}(Φ_0, f_t)

    λ is 1 where the features did not move, whatever the outputs, and 0 where they hold the learned functions and nothing else. It
    may exceed 1. D_LR itself has no such scale, because it also depends on the shape of the network and on the outputs.

    Args:
        features: (n, p) now; or a :class:`~lazyrich.Gram` with outputs.
        start_features: (n, q) of the start on the same samples; or a :class:`~lazyrich.Gram` with the *present* outputs.
        outputs: (n, C) present outputs; None for Grams.
        weights, rtol, reference, head_bias: as for :func:`low_rank_measure`.

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

    def measured(x: Tensor | Gram) -> Tensor:
        return low_rank_measure(x, outputs, weights=weights, rtol=rtol, reference=reference, head_bias=head_bias)

    value = measured(features)
    return value / with_room(float(measured(start_features)))


def with_room(start_value: float, stderr: float | None = None) -> float:
    """D_LR of the features of the start, if a ratio to it has a meaning.

    Raises:
        DegenerateError: it is under 0.05, or under three standard errors.
    """
    least = max(NO_ROOM, _ERRORS * (stderr or 0.0))
    if start_value < least:
        raise DegenerateError(
            f"the features of the start have D_LR {start_value:.3f} against the present outputs, under {least:.2g}: they leave "
            "no room between lazy and rich"
        )
    return start_value
