"""Richness is independent of performance: with shuffled labels there is nothing to learn, and the network is rich as well."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ..experiment import Claim, Experiment, Preset, Results
from ..figures import over_factor, over_time
from ..ingredients.data import Images
from ..ingredients.models import ResNet18
from ..run_folder import Run
from ..setup import Loss, Optimizer, Setup, regular_steps

SHARES = {"labels as they are": 0.0, "half shuffled": 0.5, "all shuffled": 1.0}


def setups(preset: Preset) -> dict[str, Setup]:
    """Shares of shuffled training labels, with enough steps to fit all of them."""
    quick = preset == "quick"
    images, width, batch, epochs = {
        "quick": (1_000, 8, 50, 40),
        "medium": (10_000, 16, 128, 40),
        "paper": (50_000, 64, 128, 200),
    }[preset]
    steps = images // batch * epochs

    def setup(share: float) -> Setup:
        return Setup(
            data=Images("cifar10", train=images, test=2_000 if quick else 10_000, shuffled=share),
            model=ResNet18(width=width),
            loss=Loss("squared"),
            optimizer=Optimizer("sgd", 0.1, weight_decay=5e-4, milestones=(steps // 2, 3 * steps // 4), warmup=images // batch),
            steps=steps,
            batch_size=batch,
            evaluate=regular_steps(steps // 5, steps),
            measured=1_000 if quick else 10_000,
        )

    return {name: setup(share) for name, share in SHARES.items()}


def figures(results: Results, folder: Path) -> None:
    """The measures over the share of shuffled labels, and each run over time."""
    measures = ("test_accuracy", "train_accuracy", "low_rank", "balanced")
    over_factor(results, folder / "over-share.png", {"": SHARES}, "share of labels shuffled", measures, scale="linear")
    over_time(results, folder / "over-time.png")


TRUE, HALF, ALL = SHARES


def at_chance_though_fitted(s: Mapping[str, Run]) -> bool:
    """Whether shuffled labels are fitted, with test accuracy at chance and far below that with true labels."""
    at_chance = s[ALL].last("test_accuracy") < 0.13 and s[ALL].last("train_accuracy") > 0.95
    return at_chance and s[TRUE].last("test_accuracy") > 0.15 + s[ALL].last("test_accuracy")


def stays_low(s: Mapping[str, Run]) -> bool:
    """Whether shuffled labels are fitted with a D_LR that is low and little above that with true labels."""
    values = [s[name].last("low_rank") for name in (HALF, ALL)]
    fitted = all(run.last("train_accuracy") > 0.95 for run in s.values())
    return fitted and max(values) <= 1.25 * s[TRUE].last("low_rank") and max(values) < 0.25


EXPERIMENT = Experiment(
    name="label-shuffle",
    question="does D_LR measure performance?",
    varied="the share of shuffled training labels",
    setups=setups,
    presets=("quick", "medium", "paper"),
    published={
        "labels as they are": {"test_accuracy": 0.950, "low_rank": 0.031},
        "all shuffled": {"test_accuracy": 0.095, "low_rank": 0.034},
    },
    claims=(
        Claim(
            "accuracy falls to chance as labels are shuffled, though they are fitted",
            "all shuffled: test accuracy < 13 %, training accuracy > 95 %; as they are: test accuracy 15 points above",
            at_chance_though_fitted,
            conditions=(TRUE, ALL),
        ),
        Claim(
            "D_LR stays low as labels are shuffled",
            "half and all shuffled: the last D_LR is at most 1.25 times that with the labels as they are, and below 0.25; "
            "training accuracy > 95 % in every condition",
            stays_low,
        ),
    ),
    figures=figures,
)
