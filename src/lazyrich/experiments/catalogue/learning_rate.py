"""The learning rate: is the network richest where it performs best?"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ..experiment import Claim, Experiment, Preset, Results
from ..figures import over_factor, over_time
from ..ingredients.data import Images
from ..ingredients.models import ResNet18
from ..run_folder import Run
from ..setup import Loss, Optimizer, Setup, regular_steps

QUICK_RATES, PAPER_RATES = (0.002, 0.01, 0.05, 0.2, 1.0), (0.005, 0.05, 0.2)


def setups(preset: Preset) -> dict[str, Setup]:
    """Learning rates of SGD; everything else is as usual. The quick preset uses CIFAR-10 and a wider range."""
    quick = preset == "quick"
    images, width, batch, epochs = (2_000, 8, 50, 20) if quick else (50_000, 64, 128, 200)
    steps = images // batch * epochs
    milestones = tuple(round(share * steps) for share in ((0.6, 0.85) if quick else (0.3, 0.6, 0.8)))

    def setup(rate: float) -> Setup:
        return Setup(
            data=Images("cifar10" if quick else "cifar100", train=images, test=4_000 if quick else 10_000, augmented=not quick),
            model=ResNet18(width=width),
            loss=Loss("cross-entropy"),
            optimizer=Optimizer("sgd", rate, weight_decay=5e-4, milestones=milestones, warmup=images // batch),
            steps=steps,
            batch_size=batch,
            evaluate=regular_steps(steps // 4, steps),
            measured=4_000 if quick else 10_000,
        )

    return {f"rate {rate}": setup(rate) for rate in (QUICK_RATES if quick else PAPER_RATES)}


def inner_and_near(s: Mapping[str, Run]) -> bool:
    """Whether the richest and the best rate are the same or neighbours, and neither is the lowest or the highest rate."""
    names = sorted(s, key=lambda name: float(name.split()[1]))
    richest = int(np.argmin([s[name].last("low_rank") for name in names]))
    best = int(np.argmax([s[name].last("test_accuracy") for name in names]))
    return abs(richest - best) <= 1 and {richest, best}.isdisjoint({0, len(names) - 1})


def figures(results: Results, folder: Path) -> None:
    """The measures over the rate, and each run over time."""
    rates = {name: float(name.split()[1]) for name in results.runs}
    over_factor(
        results, folder / "over-rate.png", {"": rates}, "learning rate", ("test_accuracy", "low_rank", "balanced", "s_init")
    )
    over_time(results, folder / "over-time.png")


EXPERIMENT = Experiment(
    name="learning-rate",
    question="is the network richest at the learning rate at which it performs best?",
    varied="the learning rate",
    setups=setups,
    published={
        "rate 0.005": {"test_accuracy": 0.663, "low_rank": 0.053},
        "rate 0.05": {"test_accuracy": 0.783, "low_rank": 0.025},
        "rate 0.2": {"test_accuracy": 0.745, "low_rank": 0.039},
    },
    published_for=("paper",),  # on CIFAR-100
    claims=(
        Claim(
            "D_LR is smallest near the rate with the best test accuracy",
            "the two rates are the same or neighbours, and neither is the lowest or the highest",
            inner_and_near,
        ),
    ),
    figures=figures,
)
