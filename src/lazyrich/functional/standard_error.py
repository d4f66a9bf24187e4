"""Standard errors of measures other than D_LR: delete-one on the rows that a Gram or a pair retains."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from ..errors import DataError, DegenerateError
from ..gram import RETAINED_ROWS, FeaturePair, Gram
from ..gram.accumulator import Accumulator
from .eigen import decomposed, eigenvalues
from .influence import FEW, ONE_DECIDES, Influence
from .inputs import AnyArray, as_gram, as_pair
from .neural_collapse import class_means, holds_labels, scatter_of_classes
from .retained_features import RetainedFeatures, coordinates, products, retained_features, unit_of
from .span import varies

Measured = Literal["participation_ratio", "effective_rank", "kernel_alignment", "target_alignment", "nc1"]
_NEEDS = {"kernel_alignment": ("outputs",), "target_alignment": ("targets",), "nc1": ("targets",)}  # blocks of a Gram
_STEP = 1.25  # in log s, of the integral over resolvents
_SHIFTS = torch.arange(-24.0, 12.5, _STEP, dtype=torch.float64).exp()  # s, between which the integrand is not 0


def standard_error(
    measure: Measured,
    features: AnyArray | Gram | FeaturePair,
    other: AnyArray | None = None,
    *,
    weights: AnyArray | None = None,
    retain: int = RETAINED_ROWS,
) -> float | None:
    """Standard error of a measure of features, by deleting one row after the other.

    Every quantity without a row follows in closed form from a few scalar products, so nothing is decomposed again. NC1 is taken
    to first order in the change of the class means. Weights and strata count as they do in the error of D_LR.

    Args:
        measure: "participation_ratio", "effective_rank", "kernel_alignment" (of S_init too), "target_alignment" or "nc1".
        features: (n, p); or a :class:`~lazyrich.Gram`, or a :class:`~lazyrich.gram.FeaturePair` for "kernel_alignment", that
            retains rows. Of a Gram, "kernel_alignment" is that of features with outputs.
        other: (n, q) features for "kernel_alignment"; class labels or real targets for "target_alignment"; class labels for
            "nc1". None for the other measures, and for a Gram or a pair.
        weights: (n,) not negative.
        retain: number of rows on which the error is evaluated; ignored for a Gram or a pair, which has its own.

    Returns:
        The standard error; None without retained rows, with fewer than 8 samples, with a class of one sample where classes
        matter, or where one row has over 90 % of the squared influences.

    Raises:
        ValueError: an unknown measure.
        DataError, NonFiniteError, DegenerateError, TypeError: as for the measure itself.

    Example:
        The participation ratio of two Gaussian features of variances 4 and 1 varies by 0.037 with 500 samples, because their
        variances vary by the share √(2/500):

        >>> import torch
        >>> x = torch.randn(500, 2, generator=torch.Generator().manual_seed(0)) * torch.tensor([2.0, 1.0])
        >>> abs(standard_error("participation_ratio", x) - 0.037) < 0.006
        True
    """
    if measure not in get_args(Measured):
        raise ValueError(f"measure must be one of {', '.join(get_args(Measured))}, got {measure!r}")
    if measure == "kernel_alignment" and not isinstance(features, Gram):
        sums = as_pair(features, other, weights=weights, retain=retain)
    elif isinstance(features, FeaturePair):
        raise TypeError(f"a FeaturePair has no {measure}: pass a Gram")
    else:
        sums = as_gram(features, targets=other, weights=weights, retain=retain, needs=_NEEDS.get(measure, ()))
    first = next(iter(sums.widths))
    if not varies(sums, first):
        raise DegenerateError(f"{first} are constant over the samples (dead): {measure} is undefined")
    if not sums.retain or sums.effective_count < FEW:
        return None
    sample = retained_features(sums)
    if sample.design.too_few() is not None:
        return None
    w = sample.design.w
    value, without = _values(measure, sums, sample, w / (1 - w))
    moves, rows = sample.design.moves((value - without) * (1 - w) / w), sample.rows.sample
    influence = Influence(moves, sample.design.stands_for, rows.keys, sums.effective_count)
    known = bool(torch.isfinite(without).all()) and influence.largest_share <= ONE_DECIDES
    return influence.variance**0.5 if known else None


def _values(measure: str, sums: Gram | FeaturePair, sample: RetainedFeatures, delta: Tensor) -> tuple[Tensor, Tensor]:
    """The measure, 0-d; and (m,) the same without each of the rows."""
    if isinstance(sums, FeaturePair):
        return _alignment(sums, sums.second, sample, delta)
    if measure == "participation_ratio":
        return _participation_ratio(sample, delta)
    if measure == "effective_rank":
        return _effective_rank(sums, sample, delta)
    if measure == "nc1":
        return _nc1(sums, sample, delta)
    return _alignment(sums, "targets" if measure == "target_alignment" else "outputs", sample, delta)


def _participation_ratio(sample: RetainedFeatures, delta: Tensor) -> tuple[Tensor, Tensor]:
    def ratio(d: Tensor) -> Tensor:
        left = sample.norm2 - 2 * d * sample.spread + (d * sample.lengths).square()
        return (sample.trace - d * sample.lengths).square() / left

    return ratio(torch.zeros_like(delta))[0], ratio(delta)


def _alignment(sums: Accumulator, second: str, sample: RetainedFeatures, delta: Tensor) -> tuple[Tensor, Tensor]:
    if not varies(sums, second):
        raise DegenerateError(f"{second} are constant over the samples, so an alignment with them is undefined")
    first, x = next(iter(sums.widths)), sample.features
    covariance = sums.block(second, second, centered=True)
    unit = unit_of(covariance)
    y = ((sample.rows.blocks[second] - sums.mean(second)) * unit).to(x.dtype)
    covariance = covariance * unit**2
    lengths, spread, _ = products(y, covariance.to(y.dtype))
    cross = sums.block(first, second, centered=True) * (sample.unit * unit)
    both = torch.linalg.vecdot(x @ cross.to(x.dtype), y).double()

    def aligned(d: Tensor) -> Tensor:
        numerator = cross.square().sum() - 2 * d * both + d.square() * sample.lengths * lengths
        own = sample.norm2 - 2 * d * sample.spread + (d * sample.lengths).square()
        others = covariance.square().sum() - 2 * d * spread + (d * lengths).square()
        return numerator / (own * others).sqrt()

    return aligned(torch.zeros_like(delta))[0], aligned(delta)


def _effective_rank(gram: Gram, sample: RetainedFeatures, delta: Tensor) -> tuple[Tensor, Tensor]:
    """The trace of S log S without a row, from λ log λ = ∫ (λ/(1+s) - λ/(λ+s)) ds and Sherman & Morrison for each s."""
    along = coordinates(gram, lambda: decomposed(gram, centered=True, leading=gram.widths["features"]).vectors)
    values = eigenvalues(gram, centered=True)
    largest = float(values[0])
    values, scale = values / largest, sample.unit * largest**0.5
    squares = (along.double() / scale).square_()
    lengths = sample.lengths / scale**2
    resolvents = 1 / (values.unsqueeze(1) + _SHIFTS.to(values))
    room = 1 - delta.unsqueeze(1) * (squares @ resolvents)
    moved = _SHIFTS.to(values) * delta.unsqueeze(1) * (squares @ resolvents.square())
    moved = torch.where(room > 0, moved / room, 1.0).clamp_max(1.0)  # of rank one, so between 0 and 1
    fixed = (delta * lengths).unsqueeze(1) / (1 + _SHIFTS.to(values))
    trace, entropy = values.sum(), -torch.special.entr(values).sum()  # of S and of S log S
    left = trace - delta * lengths
    without = entropy + (moved - fixed) @ _SHIFTS.to(values) * _STEP
    return (trace.log() - entropy / trace).exp(), (left.log() - without / left).exp()


def _nc1(gram: Gram, sample: RetainedFeatures, delta: Tensor) -> tuple[Tensor, Tensor]:
    """NC1 = Tr(Σ_W Σ_B⁺)/C without a row x of class c: with y = x - μ_c and δ_c = w/(π_c-w), the sum of Σ_W loses δ_c π_c yyᵀ,
    μ_c moves by -δ_c y, and μ_G by -δ x̃."""
    if not holds_labels(gram):
        raise DataError("neural collapse is defined for one class per sample, and these targets are multi-label or real")
    share, _, centred = class_means(gram)
    within, left, singular, right = scatter_of_classes(gram, share, centred)
    image = within @ left
    inner = left.T @ image
    value = (inner.diagonal() / singular.square()).sum() / len(share)
    # the derivative of Tr(Σ_W Σ_B⁺) in Σ_B, times the class means
    slope = ((image - left @ inner) / singular**3 - left / singular.square() @ inner / singular) @ right
    slope = slope * len(share) ** 0.5
    x, classes = sample.features, sample.rows.blocks["targets"].argmax(1)
    w, of_class = sample.design.w, share[classes]
    y = x - (centred * sample.unit).to(x.dtype)[classes]

    def times(rows: Tensor, matrix: Tensor) -> Tensor:
        return (rows @ matrix.to(x.dtype)).double() / sample.unit

    spread = times(y, left / singular).square().sum(1)
    grows = of_class / (of_class - w)
    own = times(y, slope).gather(1, classes.unsqueeze(1)).squeeze(1)
    along = (1 - w) * grows / of_class * own - times(x, slope.sum(1))
    influence = (grows * spread + 2 / len(share) * along) / len(share) - value
    return value, value - delta * influence
