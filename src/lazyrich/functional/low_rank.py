"""The low-rank measure D_LR: the distance of the feature kernel from the smallest kernel that could compute the outputs."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass, field
from typing import Literal, get_args

import torch
from torch import Tensor

from ..errors import DegenerateError, RankWarning
from ..gram import RETAINED_ROWS, Gram
from .influence import Influence
from .inputs import AnyArray, as_gram
from .jackknife import jackknifed
from .sketch import unprojected_low_rank
from .span import Directions, Span, directions_of, mean_note, varies

Reference = Literal["projection", "balanced", "outputs"]
Gauge = Literal["softmax"]
_POWER: dict[str, float] = {"projection": 1.0, "balanced": 0.5, "outputs": 0.0}  # γ of B^{-γ}
BAND = (1e-3, 1e-2, 1e-1)
BAND_TOLERANCE = 0.02


@dataclass(frozen=True)
class LowRankEstimate:
    """D_LR with its error, its rank and its scale.

    Attributes:
        value: plug-in estimate of D_LR, as the paper defines it, in [0, 1].
        corrected: bias-corrected estimate, which may be below 0 by a few standard errors; None without retained rows.
        stderr: standard error of ``corrected``.
        interval: 95 % interval around ``corrected``; slightly wider than ± 1.96 stderr if few samples dominate the error.
        rank: dimension of the span of the outputs.
        band: {rtol: D_LR without the output directions whose singular value is at most rtol × the largest}.
        isotropic: D_LR of structureless features (covariance ∝ identity) of this width with the same output span.
        singular_values: of the outputs, divided by √n, descending.
        num_samples: number of samples.
        warning: a sentence if the values of the band differ from D_LR by more than 0.02, else None.
        effective_rows: number of rows that decide the error; None without retained rows.
        note: why there is no error, or what a reader of it must know; else None.
        influence: of the retained rows, from which errors of differences follow.
        constant_share: share of the constant function that lies in the span of the outputs, in [0, 1].
    """

    value: float
    corrected: float | None
    stderr: float | None
    interval: tuple[float, float] | None
    rank: int
    band: dict[float, float]
    isotropic: float | None
    singular_values: tuple[float, ...]
    num_samples: int
    warning: str | None
    effective_rows: float | None = None
    note: str | None = None
    influence: Influence | None = field(default=None, repr=False, compare=False)
    constant_share: float = 0.0

    def __str__(self) -> str:
        error = "" if self.stderr is None else f" (corrected {self.corrected:.4f} ± {self.stderr:.4f})"
        isotropic = "" if self.isotropic is None else f", isotropic {self.isotropic:.3f}"
        return f"D_LR {self.value:.4f}{error}, rank {self.rank}{isotropic}, n = {self.num_samples:,}"


def low_rank_measure(
    features: AnyArray | Gram,
    outputs: AnyArray | None = None,
    *,
    weights: AnyArray | None = None,
    rtol: float | None = None,
    ridge: bool = False,
    reference: Reference = "projection",
    gauge: Gauge | None = None,
    head_bias: bool = True,
) -> Tensor:
    r"""The low-rank measure D_LR = 1 - CKA(T, T_MP): 0 is the richest possible value, and larger values are lazier.

    T = Σ_k|Φ_k⟩⟨Φ_k| is the feature kernel, and T_MP the projection on the span Ĥ of the outputs. With S_c the covariance of the
    features, A_c the covariance of the features with the outputs, B the second moment of the outputs and B_c their covariance:

        D_LR = 1 - Tr(B⁺ A_cᵀ A_c) / (‖S_c‖_F · sqrt(Tr((B⁺ B_c)²)))

    Labels, accuracy and the initial network do not enter.

    Args:
        features: (n, p) input of the last linear layer; or a :class:`~lazyrich.Gram` that holds features and outputs.
        outputs: (n, C) or (n,) outputs of the last linear layer.
        weights: (n,) not negative, of which only the ratios matter; None gives all samples the same weight.
        rtol: output directions with a singular value of at most ``rtol`` × the largest are left out. By default those are left
            out that are rounding of the activations: at most max(50·eps·rms, 1e-7·largest), with 4·eps·rms for half types.
        ridge: replace B⁺ by (B + λI)⁻¹ with λ = (rtol · largest singular value)², a smooth cut; needs ``rtol``.
        reference: "projection" (the paper), "balanced" (the minimum-norm kernel of these outputs, with B^{-1/2} instead of B⁺)
            or "outputs" (the CKA of features with outputs).
        gauge: "softmax" takes the outputs less their mean over classes. Cross-entropy does not see one function that is added to
            all outputs, and D_LR does.
        head_bias: whether the outputs are linear in the features with a bias that is free. The constant function then costs no
            features, so that the balanced reference takes B_c in place of B; without a bias it takes B. The other references are
            the same for both. A Gram has its own flag.

    Returns:
        0-d float64 tensor in [0, 1].

    Warns:
        RankWarning: the mean of the outputs is so large that a direction is left out, which may be more than rounding.

    Raises:
        DataError: shapes that do not match, fewer than two samples, or weights that are negative or not finite.
        NonFiniteError: NaN or infinity.
        DegenerateError: constant features or constant outputs.
        ValueError: an unknown reference, ``rtol`` outside [0, 1), or ``ridge`` without ``rtol``.

    Reference:
        Nam et al., arXiv 2410.04264, section 3.

    Example:
        Features that are the rotated and shifted outputs give 0; isotropic features give 1 - sqrt(r/p):

        >>> import torch
        >>> x = torch.tensor([[1., 1, 1, 1], [1, -1, 1, -1], [1, 1, -1, -1], [1, -1, -1, 1]], dtype=torch.float64)
        >>> outputs = x[:, 1:3]
        >>> rotation = torch.tensor([[0.6, 0.8], [-0.8, 0.6]], dtype=torch.float64)
        >>> abs(round(low_rank_measure(outputs @ rotation + 7, outputs).item(), 12))
        0.0
        >>> low_rank_measure(x[:, 1:], outputs)  # 1 - sqrt(2/3)
        tensor(0.1835, dtype=torch.float64)
        >>> abs(round(low_rank_measure(outputs, outputs + 7, reference="balanced").item(), 12))  # a head with a bias
        0.0
    """
    power = power_of(reference)
    gram = as_gram(features, outputs, weights=weights, needs=("outputs",), head_bias=head_bias)
    _warn_of_mean(gram, rtol)
    part, directions = _features_of(gram), _directions(gram, power, gauge)
    if not ridge:
        return _measure(part, directions.span(rtol), power)
    if not rtol:
        raise ValueError("ridge=True needs rtol, because λ = (rtol · largest singular value)²")
    span = directions.span()
    return _measure(part, span, power, damping=(rtol * float(span.singular_values[0])) ** 2)


def low_rank_estimate(
    features: AnyArray | Gram,
    outputs: AnyArray | None = None,
    *,
    weights: AnyArray | None = None,
    rtol: float | None = None,
    reference: Reference = "projection",
    gauge: Gauge | None = None,
    head_bias: bool = True,
    retain: int = RETAINED_ROWS,
) -> LowRankEstimate:
    """D_LR with its bias-corrected estimate, standard error, rank, band over ``rtol`` and isotropic baseline.

    The plug-in estimate is biased unless n ≫ p, mostly upward. The bias-corrected estimate replaces ‖S_c‖_F² by the unbiased
    estimate of tr(Σ²) with unknown mean (Himeno & Yamada 2014). The delete-one jackknife in closed form, on at most ``retain``
    rows, removes the remaining bias. The standard error is that of the jackknife without the variance that it counts twice
    (Efron & Stein 1981). ``corrected``, ``stderr`` and ``interval`` are None with fewer than 8 samples or without retained rows.

    Args:
        features, outputs, weights, rtol, reference, gauge, head_bias: as for :func:`low_rank_measure`.
        retain: number of rows on which the jackknife is evaluated; ignored for a Gram, which has its own.

    Warns:
        RankWarning: the values of the band differ from D_LR by more than 0.02, or as for :func:`low_rank_measure`.

    Raises:
        DataError, NonFiniteError, DegenerateError, ValueError: as for :func:`low_rank_measure`.

    Example:
        >>> import torch
        >>> x = torch.randn(4096, 64, generator=torch.Generator().manual_seed(0))
        >>> estimate = low_rank_estimate(x, x[:, :4])  # isotropic: 1 - sqrt(4/64) = 0.75
        >>> abs(estimate.corrected - 0.75) < 3 * estimate.stderr < 0.01
        True
    """
    power = power_of(reference)
    with torch.inference_mode(False):  # the jackknife takes a derivative
        gram = as_gram(features, outputs, weights=weights, retain=retain, needs=("outputs",), head_bias=head_bias)
        part, directions = _features_of(gram), _directions(gram, power, gauge)
        span, outputs_span = directions.span(rtol), _directions(gram, 1.0, gauge).span(rtol)
        value = float(_measure(part, span, power))
        jackknife = jackknifed(gram, span, power)
    _warn_of_mean(gram, rtol)
    band = {cut: float(_measure(part, directions.span(cut), power)) for cut in BAND}
    return LowRankEstimate(
        value=value,
        corrected=jackknife.corrected,
        stderr=jackknife.stderr,
        interval=jackknife.interval,
        rank=outputs_span.rank,
        band=band,
        isotropic=isotropic_reference(span, gram.widths["features"], power),
        singular_values=tuple(outputs_span.singular_values.tolist()),
        num_samples=gram.count,
        warning=_band_warning(value, band),
        effective_rows=jackknife.effective_rows,
        note=jackknife.note,
        influence=jackknife.influence,
        constant_share=min(1.0, float(outputs_span.basis_mean.square().sum())),
    )


def _directions(gram: Gram, power: float, gauge: Gauge | None = None) -> Directions:
    """The directions from which the reference B^{-γ} is made."""
    if gauge not in (None, *get_args(Gauge)):
        raise ValueError(f"gauge must be 'softmax' or None, got {gauge!r}")
    free_constant = power == _POWER["balanced"] and gram.head_bias
    return directions_of(gram, "outputs", less_their_mean=gauge == "softmax", centred=free_constant)


def power_of(reference: str) -> float:
    """The power γ of a reference B^{-γ}.

    Raises:
        ValueError: an unknown reference.
    """
    if reference not in _POWER:
        raise ValueError(f"reference must be one of {', '.join(get_args(Reference))}, got {reference!r}")
    return _POWER[reference]


def isotropic_reference(span: Span, num_features: int, power: float = 1.0) -> float | None:
    """D_LR of features with covariance ∝ I: 1 - Tr(M)/(sqrt(p)‖M‖_F), where M is the centred reference kernel.

    For the projection this is 1 - sqrt(r/p), where r is the centred rank, if the constant function is in the span or orthogonal
    to it; otherwise it is between the values of the two ranks. None if there are fewer features than output directions: then
    no features of this width have the reference's span.
    """
    centred = _centred_reference(span, power)
    strengths = torch.linalg.eigvalsh(centred)
    directions = int((strengths > 1e-9 * strengths.max()).sum())
    if directions > num_features:
        return None
    return max(0.0, float(1 - centred.trace() / (math.sqrt(num_features) * torch.linalg.matrix_norm(centred))))


def _centred_reference(span: Span, power: float, damping: float = 0.0) -> Tensor:
    """The centred reference kernel QT'Q, with T' = Σ|f⟩B^{-γ}⟨f|, in an orthonormal basis of Ĥ."""
    strength = _strength(span, power, damping)
    return strength.unsqueeze(1) * span.basis_covariance * strength


def _strength(span: Span, power: float, damping: float) -> Tensor:
    d = span.singular_values[: span.rank]
    return d * (d.square() + damping) ** (-power / 2)


def sketched_low_rank(gram: Gram, reference: Reference = "projection") -> tuple[float, float]:
    """D_LR of features that a :class:`~lazyrich.functional.sketch.Sketch` projected, without the bias of the projection.

    Returns:
        D_LR, and the standard error that comes from the projection only.
    """
    power = power_of(reference)
    _must_vary(gram)
    span = _directions(gram, power).span()
    norm = torch.linalg.matrix_norm(_centred_reference(span, power))
    return unprojected_low_rank(gram, span, _strength(span, power, 0.0), norm)


def _must_vary(gram: Gram) -> None:
    if not varies(gram, "features"):  # checked first, because then the outputs are constant too
        raise DegenerateError(
            "features are constant over the samples (dead): D_LR is undefined; "
            "look for saturated or dead units before the last layer"
        )
    if not varies(gram, "outputs"):
        raise DegenerateError("outputs are constant over the samples: D_LR is undefined; the network computes one value")


@dataclass(frozen=True)
class _Features:
    """The part of D_LR that is the same for every reference and cut, so that the p × p block is read once."""

    covariance: Tensor  # (p, C) A_c
    norm: Tensor  # ‖S_c‖_F
    slack: float  # how far outside [0, 1] rounding may move the value


def _features_of(gram: Gram) -> _Features:
    _must_vary(gram)
    norm = gram.reading("size of features", lambda: torch.linalg.matrix_norm(gram.block("features", "features", centered=True)))
    slack = max(1e-6, 8 * gram.feature_rounding)  # where values repeat, so does their rounding, and it adds up
    return _Features(gram.block("features", "outputs", centered=True), norm, slack)


def _measure(part: _Features, span: Span, power: float, damping: float = 0.0) -> Tensor:
    numerator = (part.covariance @ span.to_basis * _strength(span, power, damping)).square().sum()
    value = 1 - numerator / (part.norm * torch.linalg.matrix_norm(_centred_reference(span, power, damping)))
    if not -part.slack < float(value) <= 1 + part.slack:  # by Cauchy and Schwarz; any other value is a bug
        raise ArithmeticError(f"D_LR = {float(value)} lies outside [0, 1]; please report this bug with the data")
    return value.clamp(0, 1)


def _warn_of_mean(gram: Gram, rtol: float | None) -> None:
    if rtol is None and (note := mean_note(gram)):
        warnings.warn(note, RankWarning, stacklevel=3)


def _band_warning(value: float, band: dict[float, float]) -> str | None:
    if max(abs(other - value) for other in band.values()) <= BAND_TOLERANCE:
        return None
    listed = ", ".join(f"{other:.3f} at rtol {rtol:g}" for rtol, other in band.items())
    text = (
        f"D_LR = {value:.3f} depends on weak output directions: {listed}. "
        "Report the band, or compare the balanced reference, which does not count directions."
    )
    warnings.warn(text, RankWarning, stacklevel=3)
    return text
