"""Batch norm: does it make training rich, and do the statistics of the batch do so?"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ..experiment import Claim, Experiment, Preset, Results, Row
from ..figures import over_time, side_by_side
from ..fit import at_equal_accuracy
from ..ingredients.convnets import NormName
from ..ingredients.data import Images
from ..ingredients.models import Vgg16
from ..run_folder import Run
from ..setup import Loss, Optimizer, Setup, regular_steps

ENTROPY, SQUARED = "cross-entropy", "squared loss"
CONDITIONS: dict[str, tuple[NormName, ...]] = {
    ENTROPY: ("batch", "none", "frozen batch", "layer", "group"),
    SQUARED: ("batch", "none"),
}
RATE, BATCH_NORM_RATE = 0.01, 0.05  # without the statistics of the batch the usual rate is too high


def label(norm: NormName, loss: str) -> str:
    """Name of a condition."""
    return f"{'no' if norm == 'none' else norm} norm, {loss}"


SLOW = f"{label('batch', ENTROPY)}, rate {RATE}"


def setups(preset: Preset) -> dict[str, Setup]:
    """VGG16 with each normalisation and cross-entropy; with and without batch norm also with the squared loss.

    Batch norm has its usual learning rate, and the others a smaller one. One more condition has batch norm with the smaller rate,
    which separates the two effects. The medium preset has cross-entropy, with and without batch norm and at the smaller rate.
    """
    quick, medium = preset == "quick", preset == "medium"
    images, width, batch, epochs = {
        "quick": (5_000, 8, 128, 6),
        "medium": (50_000, 16, 128, 20),
        "paper": (50_000, 64, 128, 200),
    }[preset]
    per_epoch = images // batch
    steps = per_epoch * epochs
    milestones = {"quick": (), "medium": (12, 17), "paper": (60, 120)}[preset]  # epochs
    losses: Mapping[str, tuple[NormName, ...]] = {ENTROPY: ("batch", "none")} if medium else CONDITIONS

    def setup(norm: NormName, loss: str, rate: float) -> Setup:
        return Setup(
            data=Images(
                "cifar100" if preset == "paper" else "cifar10",
                train=images,
                test=2_000 if quick else 10_000,
                augmented=not quick,
            ),
            model=Vgg16(width=width, norm=norm, dropout=0.5 if preset == "paper" else 0.0),
            loss=Loss("cross-entropy") if loss == ENTROPY else Loss("squared", weight=5.0),
            optimizer=Optimizer(
                "sgd", rate, weight_decay=5e-4, warmup=per_epoch, milestones=tuple(per_epoch * epoch for epoch in milestones)
            ),
            steps=steps,
            batch_size=batch,
            evaluate=tuple(steps * k // 4 for k in range(4)) if quick else regular_steps(steps // 10, steps),
            measured=2_000 if quick else 10_000,
        )

    conditions = {
        label(norm, loss): setup(norm, loss, BATCH_NORM_RATE if norm == "batch" else RATE)
        for loss, norms in losses.items()
        for norm in norms
    }
    return conditions | {SLOW: setup("batch", ENTROPY, RATE)}


def rows(results: Results) -> dict[str, Row]:
    """Every condition at its end; with and without batch norm also after a quarter and after half of the steps."""
    published = {
        label("batch", ENTROPY): {"test_accuracy": 0.720, "low_rank": 0.073},
        label("none", ENTROPY): {"test_accuracy": 0.217, "low_rank": 0.66},
    }
    table = {name: Row(name, published.get(name, {})) for name in results.runs}
    pairs = (label(norm, loss) for loss in (ENTROPY, SQUARED) for norm in ("batch", "none"))
    for name in (name for name in pairs if name in results.runs):
        steps = results.runs[name][0].steps
        for share in (0.25, 0.5):
            index = int(np.abs(steps - share * steps[-1]).argmin())
            table[f"{name}, step {steps[index]:,}"] = Row(name, {}, lambda run, index=index: index)
    return table


def figures(results: Results, folder: Path) -> None:
    """Every condition over time with all references, and the curves with and without batch norm."""
    over_time(results, folder / "over-time.png", measures=("low_rank", "balanced", "output_alignment"))
    pair = (label("batch", ENTROPY), label("none", ENTROPY))
    side_by_side(results, folder / "curves.png", {name: (name, lambda run: -1) for name in pair})


BATCH, NONE = label("batch", ENTROPY), label("none", ENTROPY)
BATCH_SQUARED, NONE_SQUARED = label("batch", SQUARED), label("none", SQUARED)
GAP = 0.1


def lower(s: Mapping[str, Run]) -> bool:
    """Whether D_LR with batch norm is lower by the gap."""
    return s[NONE].last("low_rank") - s[BATCH].last("low_rank") >= GAP


def lower_by_the_balanced_reference(s: Mapping[str, Run]) -> bool:
    """Whether the balanced value with batch norm is lower."""
    return s[NONE].last("balanced") > s[BATCH].last("balanced")


def lower_under_squared_loss(s: Mapping[str, Run]) -> bool:
    """Whether D_LR with batch norm is lower by the gap, under squared loss."""
    return s[NONE_SQUARED].last("low_rank") - s[BATCH_SQUARED].last("low_rank") >= GAP


def lower_at_the_same_rate(s: Mapping[str, Run]) -> bool:
    """Whether D_LR with batch norm at the rate of the network without is lower by the gap."""
    return s[NONE].last("low_rank") - s[SLOW].last("low_rank") >= GAP


def lower_at_equal_accuracy(s: Mapping[str, Run]) -> bool:
    """Whether D_LR with batch norm is lower by the gap where both networks have the same training accuracy."""
    without, with_norm = at_equal_accuracy([s[NONE], s[BATCH]], "low_rank")
    return without - with_norm >= GAP


EXPERIMENT = Experiment(
    name="batch-norm",
    question="does batch norm make training rich, and is it its statistics that do?",
    varied="the normalisation of VGG16, and the loss",
    setups=setups,
    presets=("quick", "medium", "paper"),
    rows=rows,
    columns=("output_condition",),
    published_for=("paper",),  # on CIFAR-100
    claims=(
        Claim(
            "with batch norm D_LR is at least 0.1 lower (cross-entropy)",
            "last D_LR without norm minus with batch norm >= 0.1",
            lower,
            conditions=(BATCH, NONE),
        ),
        Claim(
            "with batch norm the balanced value is lower too (cross-entropy)",
            "last balanced value without norm is higher than with batch norm",
            lower_by_the_balanced_reference,
            beyond=True,
            conditions=(BATCH, NONE),
        ),
        Claim(
            "with batch norm D_LR is at least 0.1 lower under squared loss too",
            "last D_LR without norm minus with batch norm >= 0.1",
            lower_under_squared_loss,
            beyond=True,
            conditions=(BATCH_SQUARED, NONE_SQUARED),
        ),
        Claim(
            "with batch norm D_LR is at least 0.1 lower at the same learning rate (cross-entropy)",
            "last D_LR without norm minus with batch norm at the rate of the network without >= 0.1",
            lower_at_the_same_rate,
            beyond=True,
            conditions=(SLOW, NONE),
        ),
        Claim(
            "with batch norm D_LR is at least 0.1 lower at equal training accuracy (cross-entropy)",
            "D_LR without norm minus with batch norm >= 0.1 where each first has the lower of the two last training accuracies",
            lower_at_equal_accuracy,
            beyond=True,
            conditions=(BATCH, NONE),
        ),
    ),
    former=(
        Claim(
            "and so it is by the balanced reference (cross-entropy)",
            "last balanced value without norm is higher than with batch norm",
            lower_by_the_balanced_reference,
            beyond=True,
        ),
        Claim(
            "and so it is under squared loss",
            "last D_LR without norm minus with batch norm >= 0.1",
            lower_under_squared_loss,
            beyond=True,
        ),
    ),
    figures=figures,
)
