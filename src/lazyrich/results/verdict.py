"""The verdict: rich or lazy, in one word and one sentence, with what it is based on and what a reader must know.

The rule (docs/concepts/verdict.md) is based on λ, the laziness ratio, with its 95 % interval:

- with the start: *rich* where the interval lies below ``RICH``, *lazy* where it lies above ``LAZY``, else *intermediate*;
- with redraws in place of the start: *rich* where λ is below ``RICH_BY_REDRAWS``, else undecided. Outputs that were fitted on one
  draw of features lie in its span and not in that of another draw, so that lazy networks have values below 1, too;
- with neither: *rich* where D_LR is under ``FAR_BELOW`` of its isotropic baseline, and under ``SMALL``; else undecided.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from .richness import Richness

Regime = Literal["rich", "intermediate", "lazy", "mixed", "no room", "untrained", "undecided"]

RICH, LAZY = 0.5, 0.8  # λ, with the start
RICH_BY_REDRAWS = 0.3
FAR_BELOW, SMALL = 0.1, 0.05  # D_LR over its isotropic baseline, and D_LR, with neither
UNMOVED = 0.8  # S_init, the alignment of the feature kernel with that of the start, of a lazy network
_MARGIN = 0.1  # of λ, where its error is not known
_UNEVEN = 2  # σ₁/σ_r of the outputs, from which a caveat is due
_SPREADS = 2  # standard deviations over redraws
_NOT_ENOUGH = "no error, because"  # how a note begins where the samples do not suffice


@dataclass(frozen=True)
class Verdict:
    """Whether a network was trained richly or lazily, as far as the measurement shows it.

    Attributes:
        regime: "rich", "intermediate" or "lazy"; "mixed" where the projection and the balanced reference disagree, or features
            have changed without coming closer to the learned functions; "no room" where the features of the start are nearly as
            rich as can be; "untrained" where no parameter has changed; "undecided" where the evidence does not suffice.
        sentence: the same as a sentence, with the number that decides.
        evidence: what it is based on.
        caveats: what a reader must know, and where the verdict is open what would decide it.
    """

    regime: Regime
    sentence: str
    evidence: tuple[str, ...] = ()
    caveats: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.regime}: {self.sentence}"


def verdict_of(r: Richness) -> Verdict:
    """The verdict on a result, from its numbers alone."""
    regime, sentence, caveats = _judged(r)
    return Verdict(regime, sentence, tuple(_evidence(r)), (*caveats, *r.notes))


def _judged(r: Richness) -> tuple[Regime, str, list[str]]:
    moved = None if r.comparison is None else r.comparison.parameter_distance
    if moved == 0:
        return "untrained", "No parameter differs from the start.", []
    if r.laziness_source is None:
        return _without_start(r)
    if r.laziness is None:
        return "no room", "The features of the start leave no room between rich and lazy for these outputs.", []
    if r.laziness_source == "redraws":
        return _by_redraws(r)
    return _by_start(r, r.laziness)


def _by_start(r: Richness, ratio: float) -> tuple[Regime, str, list[str]]:
    known = r.laziness_interval is not None
    low, high = r.laziness_interval or (ratio - _MARGIN, ratio + _MARGIN)
    number = f"λ = {r.laziness_corrected:.3f} ± {r.laziness_stderr:.3f}" if known else f"λ = {ratio:.3f}"
    caveats = [] if known else [f"λ has no error here, so its value must be {_MARGIN:g} from a threshold"]
    regime = _regime(low, high)
    if regime == "undecided":
        return regime, f"{number} is too uncertain to say: measure more samples.", caveats
    if not known and any(note.startswith(_NOT_ENOUGH) for note in r.notes):
        return "undecided", f"{number}, from too few samples to say: measure more.", caveats
    if r.laziness_balanced is not None and _apart(regime, r.laziness_balanced):
        uneven = r.numbers()["output_condition"]
        if uneven > _UNEVEN:
            caveats.append(f"the outputs are uneven, σ₁/σ_r = {uneven:.3g}, which the projection counts as laziness")
        return (
            "mixed",
            f"The references disagree: {number} by the projection, {r.laziness_balanced:.3f} by the balanced one.",
            caveats,
        )
    aligned = None if r.comparison is None else r.comparison.s_init
    if regime == "lazy" and aligned is not None and aligned < UNMOVED:
        return (
            "mixed",
            f"The features have changed (S_init = {aligned:.2f}), but not towards the learned functions: {number}.",
            caveats,
        )
    sentences = {
        "rich": f"The features have moved to hold the learned functions and little else: {number}.",
        "intermediate": f"The features have moved part of the way: {number}.",
        "lazy": f"The features are nearly those of the start: {number}.",
    }
    return regime, sentences[regime], caveats


def _regime(low: float, high: float) -> Regime:
    if high < RICH:
        return "rich"
    if low > LAZY:
        return "lazy"
    return "undecided" if low < RICH and high > LAZY else "intermediate"


def _apart(regime: Regime, balanced: float) -> bool:
    """Whether the balanced ratio contradicts a regime: it is on the other side of a threshold by more than the margin."""
    return (regime != "rich" and balanced < RICH - _MARGIN) or (regime == "rich" and balanced > RICH + _MARGIN)


def _by_redraws(r: Richness) -> tuple[Regime, str, list[str]]:
    ratio = r.laziness or 0.0
    spread = r.laziness_stderr or 0.0
    number = f"λ = {ratio:.3f}{f' ± {spread:.3f}' if spread else ''} over redraws"
    of_balanced = r.laziness_balanced is None or r.laziness_balanced < RICH + _MARGIN
    if ratio + _SPREADS * spread < RICH_BY_REDRAWS and of_balanced:
        return "rich", f"The features hold the learned functions far better than untrained ones: {number}.", []
    return (
        "undecided",
        f"{number}: redraws can show that a network is rich, not that it is lazy.",
        ["pass start=, the network or its weights at the start of training, to decide"],
    )


def _without_start(r: Richness) -> tuple[Regime, str, list[str]]:
    value = r.low_rank if r.low_rank_interval is None else r.low_rank_interval[1]
    mark = r.isotropic or 0.0
    if value < min(SMALL, FAR_BELOW * mark) and r.balanced < SMALL:
        return (
            "rich",
            f"D_LR = {r.low_rank:.3f} is far below {mark:.2f}, that of features without structure.",
            ["judged without the features of the start: start= would show what training has changed"],
        )
    of_arrays = r.evidence is not None and "as they were stored" in r.evidence.returned
    return (
        "undecided",
        f"D_LR = {r.low_rank:.3f} alone does not show what training has changed.",
        ["pass start_features=, the features at the start of training, to decide"]
        if of_arrays
        else ["pass start=, the network or its weights at the start, to decide; null=4 can show that it is rich"],
    )


def _evidence(r: Richness) -> list[str]:
    lines = [] if r.evidence is None else [str(r.evidence)]
    shape = f"n = {r.num_samples:,}, p = {r.num_features:,}, C = {r.num_outputs:,}; output rank {r.output_rank}"
    others = [f"λ balanced {r.laziness_balanced:.2f}"] if r.laziness_balanced is not None else [f"balanced {r.balanced:.3f}"]
    if r.comparison is not None and r.comparison.s_init is not None:
        others.append(f"S_init {r.comparison.s_init:.2f}")
    return [*lines, "; ".join([shape, *others])]
