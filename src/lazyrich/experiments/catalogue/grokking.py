"""Grokking: D_LR, which uses no labels, falls when a transformer changes from memorising modular addition to computing it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ..experiment import Claim, Experiment, Preset, Results, Row
from ..figures import curves_at_moments, over_time
from ..ingredients.data import ModularArithmetic
from ..ingredients.models import Transformer
from ..run_folder import Run
from ..setup import Loss, Optimizer, Setup, regular_steps

SQUARED, ENTROPY = "squared loss", "cross-entropy"


def setups(preset: Preset) -> dict[str, Setup]:
    """Arithmetic modulo a prime, with two losses.

    The quick preset subtracts, because a quarter of the sums can be answered from a memorised pair in the other order. The
    learning rate falls at the end, because training leaves its solution from time to time.
    """
    quick = preset == "quick"
    data = ModularArithmetic(53, 0.6, "subtraction") if quick else ModularArithmetic(97, 0.5, "addition")
    steps = 2_600 if quick else 6_000

    def setup(loss: Loss) -> Setup:
        return Setup(
            data=data,
            model=Transformer(tokens=data.prime + 2, width=128, depth=2, heads=4),
            loss=loss,
            optimizer=Optimizer(
                "adamw", 1e-3, weight_decay=1.0, betas=(0.9, 0.98), warmup=10, milestones=(2_200 if quick else 5_500,)
            ),
            steps=steps,
            batch_size=256 if quick else 512,
            evaluate=regular_steps(100 if quick else 250, steps, also=(1, 10, 50, *range(150, 1_000, 50))),
            measured=10_000,
        )

    return {SQUARED: setup(Loss("squared", weight=float(data.prime))), ENTROPY: setup(Loss("cross-entropy"))}


def memorised(run: Run) -> int:
    """The evaluation with the highest D_LR while the training accuracy goes from 50 % to 99 %."""
    half, fitted = run.first("train_accuracy", 0.5), run.first("train_accuracy", 0.99)
    first, last = max(half, 0), (len(run.steps) if fitted < 0 else fitted + 1)
    return first + int(np.nanargmax(run["low_rank"][first:last]))


def begins_to_fall(run: Run) -> int:
    """Step at which D_LR has fallen by a tenth of the distance from its highest value while memorising to its last value."""
    values, top = run["low_rank"], memorised(run)
    level = values[top] - 0.1 * (values[top] - values[-1])
    return int(run.steps[top + int((values[top:] <= level).argmax())])


def begins_to_rise(run: Run) -> int:
    """Step at which the test accuracy has reached a tenth of its last value."""
    return int(run.steps[run.first("test_accuracy", 0.1 * run.last("test_accuracy"))])


def fitted(run: Run) -> int:
    """The first evaluation with a training accuracy of 99.9 %; -1, the last, if there is none."""
    return run.first("train_accuracy", 0.999)


def one_before(run: Run) -> int:
    """The evaluation before that with the highest D_LR while memorising."""
    return max(memorised(run) - 1, 0)


def one_after(run: Run) -> int:
    """The evaluation after that with the highest D_LR while memorising."""
    return min(memorised(run) + 1, len(run) - 1)


def fitted_long_before(s: Mapping[str, Run]) -> bool:
    """Whether the training set is fitted in at most half of the steps that the test set takes (squared loss)."""
    run = s[SQUARED]
    both = min(run.last("train_accuracy"), run.last("test_accuracy")) >= 0.99
    return both and run.steps[run.first("train_accuracy", 0.99)] <= 0.5 * run.steps[run.first("test_accuracy", 0.99)]


def fitting_halves(s: Mapping[str, Run]) -> bool:
    """Whether D_LR falls by more than half between its peak and the fit, while test accuracy stays below 20 % (squared loss)."""
    run = s[SQUARED]
    values, index = run["low_rank"], fitted(run)
    return index >= 0 and run["test_accuracy"][index] < 0.2 and values[index] < 0.5 * values[memorised(run)]


def generalising_halves(run: Run, measure: str) -> bool:
    """Whether a measure falls by more than half from the fit to the end, while test accuracy rises from below 60 % to 99 %."""
    index = fitted(run)
    rises = run["test_accuracy"][index] < 0.6 and run.last("test_accuracy") >= 0.99
    return index >= 0 and rises and run.last(measure) < 0.5 * run[measure][index]


def squared_generalising(s: Mapping[str, Run]) -> bool:
    """Whether D_LR falls by more than half after the fit (squared loss)."""
    return generalising_halves(s[SQUARED], "low_rank")


def entropy_generalising(s: Mapping[str, Run]) -> bool:
    """Whether D_LR falls by more than half after the fit (cross-entropy)."""
    return generalising_halves(s[ENTROPY], "low_rank")


def entropy_balanced_generalising(s: Mapping[str, Run]) -> bool:
    """Whether the balanced value falls by more than half after the fit (cross-entropy)."""
    return generalising_halves(s[ENTROPY], "balanced")


def falls_before_test_rises(s: Mapping[str, Run]) -> bool:
    """Whether D_LR begins to fall before test accuracy begins to rise (squared loss)."""
    return begins_to_fall(s[SQUARED]) < begins_to_rise(s[SQUARED])


def squared_from_the_peak(s: Mapping[str, Run]) -> bool:
    """Whether D_LR ends below half of its highest value while memorising (squared loss)."""
    return s[SQUARED].last("low_rank") < 0.5 * s[SQUARED]["low_rank"][memorised(s[SQUARED])]


def entropy_from_the_peak(s: Mapping[str, Run]) -> bool:
    """Whether D_LR ends below half of its highest value while memorising (cross-entropy)."""
    return s[ENTROPY].last("low_rank") < 0.5 * s[ENTROPY]["low_rank"][memorised(s[ENTROPY])]


def entropy_balanced_from_the_peak(s: Mapping[str, Run]) -> bool:
    """Whether the balanced value ends below half of that where D_LR is highest while memorising (cross-entropy)."""
    return s[ENTROPY].last("balanced") < 0.5 * s[ENTROPY]["balanced"][memorised(s[ENTROPY])]


def rows(results: Results) -> dict[str, Row]:
    """Each loss where D_LR is highest while memorising and one evaluation around it, at the fit, at four steps, at the end."""
    before, after = {"test_accuracy": 0.052, "low_rank": 0.51}, {"test_accuracy": 0.998, "low_rank": 0.11}
    table: dict[str, Row] = {
        f"{SQUARED}, memorised": Row(SQUARED, before, memorised),
        f"{SQUARED}, at the end": Row(SQUARED, after),
        f"{ENTROPY}, memorised": Row(ENTROPY, {}, memorised),
        f"{ENTROPY}, at the end": Row(ENTROPY),
    }
    for condition in (SQUARED, ENTROPY):
        moments = {"one before": one_before, "one after": one_after, "first fitted": fitted}
        table |= {f"{condition}, {moment}": Row(condition, {}, when) for moment, when in moments.items()}
    steps = results.runs[SQUARED][0].steps
    for condition in (SQUARED, ENTROPY):
        for share in (0.1, 0.25, 0.5, 0.75):
            index = int(np.abs(steps - share * steps[-1]).argmin())
            table[f"{condition}, step {steps[index]:,}"] = Row(condition, {}, lambda run, index=index: index)
    return table


def remarks(results: Results) -> list[str]:
    """When D_LR begins to fall and when test accuracy begins to rise, for each loss and seed."""
    lines = []
    for condition, runs in results.runs.items():
        fall = ", ".join(f"{begins_to_fall(run):,}" for run in runs)
        rise = ", ".join(f"{begins_to_rise(run):,}" for run in runs)
        lines.append(
            f"{condition}: D_LR begins to fall at step {fall}; test accuracy begins to rise at step {rise} (seed by seed)"
        )
    return lines


def figures(results: Results, folder: Path) -> None:
    """The references over time with both losses, and the curves at several steps."""
    over_time(results, folder / "over-time.png", measures=("low_rank", "balanced", "output_alignment"))
    curves_at_moments(results, folder / "curves.png")


EXPERIMENT = Experiment(
    name="grokking",
    question="does the step from memorising to computing show in D_LR, and when?",
    varied="time, and the loss",
    setups=setups,
    rows=rows,
    remarks=remarks,
    columns=("output_condition", "low_rank_at_0.1"),
    claims=(
        Claim(
            "squared loss: the training set is fitted long before the test set",
            "training accuracy reaches 99 % in at most half of the steps in which test accuracy does, and both do",
            fitted_long_before,
            conditions=(SQUARED,),
        ),
        Claim(
            "squared loss: D_LR falls by more than half while the training set is fitted, before test accuracy rises",
            "D_LR < half of the highest while memorising at the first evaluation with training accuracy 99.9 %, and test "
            "accuracy < 20 % there",
            fitting_halves,
            beyond=True,
            conditions=(SQUARED,),
        ),
        Claim(
            "squared loss: after the fit D_LR falls by more than half again, as test accuracy rises",
            "last D_LR < half of that at the first evaluation with training accuracy 99.9 %; test accuracy < 60 % there and "
            ">= 99 % at the end",
            squared_generalising,
            conditions=(SQUARED,),
        ),
        Claim(
            "squared loss: D_LR begins to fall before test accuracy begins to rise",
            "D_LR has gone a tenth of its way down at an earlier step than test accuracy a tenth of its way up",
            falls_before_test_rises,
            conditions=(SQUARED,),
        ),
        Claim(
            "cross-entropy: after the fit D_LR falls by more than half, as test accuracy rises",
            "last D_LR < half of that at the first evaluation with training accuracy 99.9 %; test accuracy < 60 % there and "
            ">= 99 % at the end",
            entropy_generalising,
            beyond=True,
            conditions=(ENTROPY,),
        ),
        Claim(
            "cross-entropy: so does the balanced value",
            "last balanced value < half of that at the first evaluation with training accuracy 99.9 %; test accuracy < 60 % "
            "there and >= 99 % at the end",
            entropy_balanced_generalising,
            beyond=True,
            conditions=(ENTROPY,),
        ),
    ),
    former=(
        Claim(
            "squared loss: D_LR falls by more than half as test accuracy rises",
            "last D_LR < half of the highest while memorising",
            squared_from_the_peak,
        ),
        Claim(
            "cross-entropy: D_LR falls as it does under squared loss",
            "last D_LR < half of the highest while memorising",
            entropy_from_the_peak,
            beyond=True,
        ),
        Claim(
            "cross-entropy: the fall does not hang on the reference",
            "the last balanced value, too, < half of that while memorising",
            entropy_balanced_from_the_peak,
            beyond=True,
        ),
    ),
    figures=figures,
)
