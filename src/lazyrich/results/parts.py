"""The parts of a result: the measures that D_LR is compared with, and the numbers of one layer."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from .catalogue import CATALOGUE, cells


@dataclass(frozen=True)
class Comparison:
    """What else is used to tell rich from lazy, on the same features; `docs/concepts/measures.md` says when each misleads.

    Attributes:
        participation_ratio, effective_rank: of the centred feature covariance: tr(S_c)²/‖S_c‖², and the exponential of the
            entropy of its eigenvalues.
        rankme, stable_rank: of the raw feature matrix.
        alpha_req: α of α-ReQ; None where too few eigenvalues are there to fit.
        alpha_req_first, alpha_req_last, alpha_req_r_squared: the first and the last rank of its fit, and the R² of the fit.
            Effective rank, RankMe and α-ReQ are None where only the leading part of the spectrum was found.
        target_alignment: kernel-target alignment; None without targets, or where they do not vary.
        s_init: S_init, the centred alignment of the feature kernel with that of the start; None without ``start``.
        parameter_norm, parameter_distance: ‖θ‖² and ‖θ - θ₀‖², the latter None without ``start``.
        participation_ratio_stderr, effective_rank_stderr, target_alignment_stderr, s_init_stderr: standard errors; None where
            rows are positions of samples, with fewer than 8 samples, and where one row decides.
    """

    participation_ratio: float
    effective_rank: float | None
    rankme: float | None
    stable_rank: float
    alpha_req: float | None = None
    alpha_req_first: int | None = None
    alpha_req_last: int | None = None
    alpha_req_r_squared: float | None = None
    target_alignment: float | None = None
    s_init: float | None = None
    parameter_norm: float | None = None
    parameter_distance: float | None = None
    participation_ratio_stderr: float | None = None
    effective_rank_stderr: float | None = None
    target_alignment_stderr: float | None = None
    s_init_stderr: float | None = None


@dataclass(frozen=True)
class LayerRichness:
    """The measure of what one layer sees, against the network's outputs.

    Attributes:
        low_rank, low_rank_corrected, low_rank_stderr, isotropic, balanced, output_alignment: as of :class:`Richness`.
        participation_ratio, participation_ratio_stderr: tr(S_c)²/‖S_c‖² of its features, and its standard error.
        num_features, num_rows: width, and the samples (or places) that were counted.
        laziness: λ of this layer's features now and at the start against the network's outputs now; None without the start, or
            where it is undefined.
        laziness_corrected, laziness_stderr: bias removed, and the standard error; None where rows are positions of samples, and
            with a random projection.
        reduction: how a layer too wide to measure as it is was made narrow; None where it was not.
        reduction_stderr: standard error of ``low_rank`` from a random projection; None where there was none.
    """

    low_rank: float
    low_rank_corrected: float | None
    low_rank_stderr: float | None
    isotropic: float | None
    balanced: float
    output_alignment: float
    participation_ratio: float
    num_features: int
    num_rows: int
    reduction: str | None = None
    reduction_stderr: float | None = None
    laziness: float | None = None
    laziness_corrected: float | None = None
    laziness_stderr: float | None = None
    participation_ratio_stderr: float | None = None

    def numbers(self) -> dict[str, float]:
        """Every single number by its name in the catalogue; what was not measured is left out."""
        return numbers_of(self)

    def cells(self) -> dict[str, str]:
        """What the table of the layers shows, by the catalogue's names; a star marks a random projection."""
        shown = cells(self.numbers())
        columns = ("low_rank_corrected", "isotropic", "balanced", "participation_ratio")
        columns += () if self.laziness is None else ("laziness", "laziness_corrected")
        return {
            "num_features": f"{self.num_features:,}{'' if self.reduction_stderr is None else ' *'}",
            "low_rank": CATALOGUE["low_rank"].formatted(self.low_rank, self.reduction_stderr),
            **{name: shown.get(name, "-") for name in columns},
        }


def numbers_of(result: Any) -> dict[str, float]:
    """The fields of a dataclass that hold a number, by name; without those that are None."""
    values = {f.name: getattr(result, f.name) for f in fields(result)}
    return {name: float(value) for name, value in values.items() if isinstance(value, (int, float))}
