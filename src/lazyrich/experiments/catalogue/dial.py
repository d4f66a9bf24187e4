"""The dial: the scale γ₀ makes training provably lazy (γ₀ → 0) or rich. Which measures follow it?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np

from ...results.catalogue import entry
from ..experiment import Claim, Experiment, Preset, Results
from ..figures import over_factor, over_time
from ..fit import at_equal_loss, rank_correlation
from ..ingredients.data import Images
from ..ingredients.models import Mlp
from ..run_folder import Run
from ..setup import Loss, Optimizer, Setup, log_spaced_steps

SQUARED, ENTROPY = "squared loss", "cross-entropy"
SCALES = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
LAYERS = 3
RATE = {SQUARED: 0.05, ENTROPY: 0.1}  # at γ₀ = 1
MEASURES = (
    "low_rank", "laziness", "balanced", "output_alignment", "s_init", "parameter_distance", "parameter_norm", "nc1",
    "target_alignment", "participation_ratio", "effective_rank", "rankme", "stable_rank", "alpha_req", "test_accuracy",
)  # fmt: skip


def name(loss: str, scale: float) -> str:
    """Name of a condition."""
    return f"{loss}, γ₀ = {scale:g}"


LINES = {loss: {name(loss, scale): scale for scale in SCALES} for loss in (SQUARED, ENTROPY)}


def setups(preset: Preset) -> dict[str, Setup]:
    """An antisymmetric MLP whose outputs are divided by γ₀, so that it starts at zero, under two losses.

    The learning rate is γ₀² times that of γ₀ = 1, so that the outputs of lazy networks move equally fast; beyond γ₀ = 1 it grows
    with γ₀ to the power of 2 over the number of layers, the largest rate at which rich networks are stable.
    """
    quick = preset == "quick"
    steps = 8_000 if quick else 40_000

    def setup(loss: str, scale: float) -> Setup:
        return Setup(
            data=Images("mnist", train=1_000 if quick else 10_000, test=2_000 if quick else 10_000),
            model=Mlp(width=128 if quick else 512, depth=LAYERS, antisymmetric=True, output_scale=1 / scale),
            loss=Loss("squared", weight=10.0) if loss == SQUARED else Loss("cross-entropy"),
            optimizer=Optimizer("sgd", RATE[loss] * scale ** (2 if scale <= 1 else 2 / LAYERS), momentum=0.0),
            steps=steps,
            evaluate=log_spaced_steps(steps, 24),
            measured=1_000 if quick else 10_000,
        )

    return {name(loss, scale): setup(loss, scale) for loss in LINES for scale in SCALES}


def falls(values: Sequence[float]) -> bool:
    """Whether each value is below the one before it."""
    return all(a > b for a, b in pairwise(values))


def at_the_end(s: Mapping[str, Run], loss: str, measure: str) -> bool:
    """Whether a measure is lower for each larger γ₀, at the end."""
    return falls([s[condition].last(measure) for condition in LINES[loss]])


def at_one_loss(s: Mapping[str, Run], loss: str, measure: str) -> bool:
    """Whether a measure is lower for each larger γ₀, where all runs have the training loss that the worst of them reaches."""
    return falls(at_equal_loss([s[condition] for condition in LINES[loss]], measure))


def d_lr_squared(s: Mapping[str, Run]) -> bool:
    """Whether D_LR falls with γ₀ at the end (squared loss)."""
    return at_the_end(s, SQUARED, "low_rank")


def d_lr_entropy(s: Mapping[str, Run]) -> bool:
    """Whether D_LR falls with γ₀ at the end (cross-entropy)."""
    return at_the_end(s, ENTROPY, "low_rank")


def d_lr_squared_at_one_loss(s: Mapping[str, Run]) -> bool:
    """Whether D_LR falls with γ₀ at equal training loss (squared loss)."""
    return at_one_loss(s, SQUARED, "low_rank")


def d_lr_entropy_at_one_loss(s: Mapping[str, Run]) -> bool:
    """Whether D_LR falls with γ₀ at equal training loss (cross-entropy)."""
    return at_one_loss(s, ENTROPY, "low_rank")


def laziness_squared(s: Mapping[str, Run]) -> bool:
    """Whether λ falls with γ₀ at the end (squared loss)."""
    return at_the_end(s, SQUARED, "laziness")


def laziness_entropy(s: Mapping[str, Run]) -> bool:
    """Whether λ falls with γ₀ at the end (cross-entropy)."""
    return at_the_end(s, ENTROPY, "laziness")


def laziness_squared_at_one_loss(s: Mapping[str, Run]) -> bool:
    """Whether λ falls with γ₀ at equal training loss (squared loss)."""
    return at_one_loss(s, SQUARED, "laziness")


def laziness_entropy_at_one_loss(s: Mapping[str, Run]) -> bool:
    """Whether λ falls with γ₀ at equal training loss (cross-entropy)."""
    return at_one_loss(s, ENTROPY, "laziness")


RULES = {
    ("D_LR", SQUARED): (d_lr_squared, d_lr_squared_at_one_loss),
    ("D_LR", ENTROPY): (d_lr_entropy, d_lr_entropy_at_one_loss),
    ("λ", SQUARED): (laziness_squared, laziness_squared_at_one_loss),
    ("λ", ENTROPY): (laziness_entropy, laziness_entropy_at_one_loss),
}


def remarks(results: Results) -> list[str]:
    """The rank correlation of each measure with γ₀, at the end and at equal training loss: its mean over seeds, for each loss."""
    lines = []
    for loss, line in LINES.items():
        for measure in MEASURES:
            ends, equal = [], []
            for s in results.by_seed:
                runs = [s[condition] for condition in line]
                ends.append(rank_correlation([run.last(measure) for run in runs], SCALES))
                equal.append(rank_correlation(at_equal_loss(runs, measure), SCALES))
            cells = [f"{np.mean(values):.2f}" for values in (ends, equal)]
            lines.append(
                f"{loss}, rank correlation with γ₀ of {entry(measure).symbol}: {cells[0]} at the end, {cells[1]} at equal loss"
            )
    return lines


def figures(results: Results, folder: Path) -> None:
    """The measures over γ₀ at the end, and the runs under the squared loss over time."""
    over_factor(results, folder / "over-scale.png", LINES, "γ₀", MEASURES)
    over_time(results, folder / "over-time.png", list(LINES[SQUARED]), measures=("low_rank", "s_init"))


EXPERIMENT = Experiment(
    name="dial",
    question="which measures follow a scale that makes training provably lazy or rich?",
    varied="γ₀, by which the outputs of an antisymmetric network are divided, and the loss",
    setups=setups,
    columns=("s_init", "parameter_distance", "nc1", "target_alignment", "train_loss"),
    remarks=remarks,
    claims=tuple(
        Claim(
            f"{symbol} falls as γ₀ grows, {where} ({loss})",
            f"{symbol} is lower for each larger γ₀ {how}",
            rule,
            beyond=True,
            conditions=tuple(LINES[loss]),
        )
        for (symbol, loss), rules in RULES.items()
        for rule, where, how in zip(
            rules,
            ("at the end", "at equal training loss"),
            ("at the last evaluation", "where each run first has the highest of their last training losses, by interpolation"),
            strict=True,
        )
    ),
    figures=figures,
)
