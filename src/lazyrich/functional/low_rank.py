"""The low-rank measure D_LR: how far the feature kernel is from the least one that could compute the outputs."""

from __future__ import annotations

import math
import warnings
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from ..errors import DegenerateError, RankWarning
from ..gram import RETAINED_ROWS, Gram
from .inputs import as_gram
from .jackknife import jackknifed
from .sketch import unprojected_low_rank
from .span import Span, directions_of, span_of, varies

Reference = Literal["projection", "balanced", "outputs"]
_POWER: dict[str, float] = {"projection": 1.0, "balanced": 0.5, "outputs": 0.0}  # γ of B^{-γ}
BAND = (1e-3, 1e-2, 1e-1)
BAND_TOLERANCE = 0.02


@dataclass(frozen=True)
class LowRankEstimate:
    """D_LR with what is needed to judge it.

    Attributes:
        value: plug-in D_LR, as the paper defines it, in [0, 1].
        corrected: the value with its sampling bias removed (may be a little under 0); None without retained rows.
        stderr: standard error of ``corrected``.
        interval: 95 % confidence interval around ``corrected``, a little wider than ± 1.96 stderr where few samples decide.
        rank: dimension of the span of the outputs that was used.
        band: {rtol: D_LR with output directions under rtol × the largest left out}.
        isotropic: D_LR of structureless features (covariance ∝ identity) of this width with the same output span.
        singular_values: of the outputs over √n, descending.
        num_samples: rows used.
        warning: a sentence where the band disagrees by more than 0.02, else None.
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

    def __str__(self) -> str:
        error = "" if self.stderr is None else f" (corrected {self.corrected:.4f} ± {self.stderr:.4f})"
        isotropic = "" if self.isotropic is None else f", isotropic {self.isotropic:.3f}"
        return f"D_LR {self.value:.4f}{error}, rank {self.rank}{isotropic}, n = {self.num_samples:,}"

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return asdict(self) | {"band": {str(rtol): value for rtol, value in self.band.items()}}


def low_rank_measure(
    features: Tensor | Gram,
    outputs: Tensor | None = None,
    *,
    weights: Tensor | None = None,
    rtol: float | None = None,
    ridge: bool = False,
    reference: Reference = "projection",
) -> Tensor:
    r"""The low-rank measure D_LR = 1 - CKA(T, T_MP): 0 is as rich as can be, larger is lazier.

    T = Σ_k|Φ_k⟩⟨Φ_k| is the feature kernel, T_MP the projection on the span Ĥ of the outputs. With
    S_c, A_c the covariances of the features and of features with outputs, and B, B_c the uncentred and centred second
    moments of the outputs:

        D_LR = 1 - Tr(B⁺ A_cᵀ A_c) / (‖S_c‖_F · sqrt(Tr((B⁺ B_c)²)))

    Labels, accuracy and the initial network play no part.

    Args:
        features: (n, p) input of the last linear layer; or a :class:`~lazyrich.Gram` that holds features and outputs.
        outputs: (n, C) or (n,) outputs of the last linear layer.
        weights: (n,) not negative, any scale; None weighs all samples alike.
        rtol: output directions with a singular value of at most ``rtol`` × the largest are left out. By default those
            that are rounding of the activations: at most max(50·eps·rms, 1e-7·largest), 4·eps·rms for half types.
        ridge: replace B⁺ by (B + λI)⁻¹ with λ = (rtol · largest singular value)², a smooth cut; needs ``rtol``.
        reference: "projection" (the paper), "balanced" (the minimum-norm kernel of these outputs, B^{-1/2} for B⁺)
            or "outputs" (plain CKA of features with outputs).

    Returns:
        0-d float64 tensor in [0, 1].

    Raises:
        DataError: shapes that do not match, fewer than two samples, bad weights.
        NonFiniteError: NaN or infinity.
        DegenerateError: constant features or constant outputs.

    Reference:
        Nam et al., arXiv 2410.04264, section 3.

    Example:
        Features that are the outputs, turned and shifted, give 0; isotropic features give 1 - sqrt(r/p):

        >>> import torch
        >>> x = torch.tensor([[1., 1, 1, 1], [1, -1, 1, -1], [1, 1, -1, -1], [1, -1, -1, 1]], dtype=torch.float64)
        >>> outputs = x[:, 1:3]
        >>> rotation = torch.tensor([[0.6, 0.8], [-0.8, 0.6]], dtype=torch.float64)
        >>> abs(round(low_rank_measure(outputs @ rotation + 7, outputs).item(), 12))
        0.0
        >>> low_rank_measure(x[:, 1:], outputs)  # 1 - sqrt(2/3)
        tensor(0.1835, dtype=torch.float64)
    """
    power = power_of(reference)
    gram = as_gram(features, outputs, weights=weights, needs=("outputs",))
    if not ridge:
        return _measure(_held(gram), span_of(gram, "outputs", rtol), power)
    if not rtol:
        raise ValueError("ridge=True needs rtol, which sets its strength: λ = (rtol · largest singular value)²")
    span = span_of(gram, "outputs")
    return _measure(_held(gram), span, power, damping=(rtol * float(span.singular_values[0])) ** 2)


def low_rank_estimate(
    features: Tensor | Gram,
    outputs: Tensor | None = None,
    *,
    weights: Tensor | None = None,
    rtol: float | None = None,
    reference: Reference = "projection",
    retain: int = RETAINED_ROWS,
) -> LowRankEstimate:
    """D_LR with its bias-corrected value, standard error, rank, band over ``rtol`` and isotropic reference.

    The plug-in value is biased upward unless n ≫ p. The corrected value replaces ‖S_c‖_F² by the unbiased estimate of
    tr(Σ²) with unknown mean (Himeno & Yamada 2014), then removes the rest by the delete-one jackknife in closed form,
    evaluated on at most ``retain`` rows; the standard error is the jackknife's, less what it counts twice (Efron & Stein
    1981). ``corrected``, ``stderr`` and ``interval`` are None with fewer than 8 samples or without retained rows.

    Args:
        features, outputs, weights, rtol, reference: as for :func:`low_rank_measure`.
        retain: rows on which the jackknife is evaluated (ignored for a Gram, which has its own).

    Raises:
        As :func:`low_rank_measure`.

    Example:
        >>> import torch
        >>> x = torch.randn(4096, 64, generator=torch.Generator().manual_seed(0))
        >>> estimate = low_rank_estimate(x, x[:, :4])  # isotropic: 1 - sqrt(4/64) = 0.75
        >>> abs(estimate.corrected - 0.75) < 3 * estimate.stderr < 0.01
        True
    """
    power = power_of(reference)
    gram = as_gram(features, outputs, weights=weights, retain=retain, needs=("outputs",))
    directions, held = directions_of(gram, "outputs"), _held(gram)
    span = directions.span(rtol)
    value = float(_measure(held, span, power))
    jackknife = jackknifed(gram, span, power)
    band = {cut: float(_measure(held, directions.span(cut), power)) for cut in BAND}
    return LowRankEstimate(
        value=value,
        corrected=None if jackknife is None else jackknife.corrected,
        stderr=None if jackknife is None else jackknife.stderr,
        interval=None if jackknife is None else jackknife.interval,
        rank=span.rank,
        band=band,
        isotropic=isotropic_reference(span, gram.widths["features"], power),
        singular_values=tuple(span.singular_values.tolist()),
        num_samples=gram.count,
        warning=_band_warning(value, band),
    )


def power_of(reference: str) -> float:
    """The power γ of a reference B^{-γ}."""
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
    """QT'Q of T' = Σ|f⟩B^{-γ}⟨f| in an orthogonal basis of Ĥ."""
    strength = _strength(span, power, damping)
    return strength.unsqueeze(1) * span.basis_covariance * strength


def _strength(span: Span, power: float, damping: float) -> Tensor:
    d = span.singular_values[: span.rank]
    return d * (d.square() + damping) ** (-power / 2)


def sketched_low_rank(gram: Gram, reference: Reference = "projection") -> tuple[float, float]:
    """D_LR of features that a :class:`~lazyrich.narrow.Sketch` projected, without what the projection adds to it.

    Returns:
        D_LR and its standard error from the projection alone.
    """
    power = power_of(reference)
    _must_vary(gram)
    span = span_of(gram, "outputs")
    norm = torch.linalg.matrix_norm(_centred_reference(span, power))
    return unprojected_low_rank(gram, span, _strength(span, power, 0.0), norm)


def _must_vary(gram: Gram) -> None:
    if not varies(gram, "features"):  # first, for then the outputs are constant too
        raise DegenerateError(
            "features are constant over the samples (dead): D_LR is undefined; "
            "look for saturated or dead units before the last layer"
        )
    if not varies(gram, "outputs"):
        raise DegenerateError("outputs are constant over the samples: D_LR is undefined; the network computes one value")


@dataclass(frozen=True)
class _Held:
    """What D_LR reads of a Gram's features, whatever the reference and the cut: one look at the p × p block."""

    covariance: Tensor  # (p, C) A_c
    norm: Tensor  # ‖S_c‖_F
    slack: float  # how far rounding may take the value out of [0, 1]


def _held(gram: Gram) -> _Held:
    _must_vary(gram)
    norm = torch.linalg.matrix_norm(gram.block("features", "features", centered=True))
    return _Held(gram.block("features", "outputs", centered=True), norm, max(1e-6, gram.feature_rounding))


def _measure(held: _Held, span: Span, power: float, damping: float = 0.0) -> Tensor:
    numerator = (held.covariance @ span.to_basis * _strength(span, power, damping)).square().sum()
    value = 1 - numerator / (held.norm * torch.linalg.matrix_norm(_centred_reference(span, power, damping)))
    if not -held.slack < float(value) <= 1 + held.slack:  # Cauchy-Schwarz: anything else is a fault here, not a result
        raise ArithmeticError(f"D_LR = {float(value)} lies outside [0, 1]; please report this with the data")
    return value.clamp(0, 1)


def _band_warning(value: float, band: dict[float, float]) -> str | None:
    if max(abs(other - value) for other in band.values()) <= BAND_TOLERANCE:
        return None
    listed = ", ".join(f"{other:.3f} at rtol {rtol:g}" for rtol, other in band.items())
    text = (
        f"D_LR = {value:.3f} hangs on output directions that carry little: {listed}. "
        "Report the band, or compare the balanced reference, which does not count directions."
    )
    warnings.warn(text, RankWarning, stacklevel=3)
    return text
