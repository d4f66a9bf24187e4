"""The learning rate: is the network richest where it performs best?"""

from __future__ import annotations

from pathlib import Path

from .data import Images
from .experiment import Claim, Experiment, Preset, Results
from .figures import over_factor, over_time
from .models import ResNet18
from .setup import Loss, Optimizer, Setup, every

RATES = {"rate 0.005": 0.005, "rate 0.05": 0.05, "rate 0.2": 0.2}


def setups(preset: Preset) -> dict[str, Setup]:
    """The learning rate of SGD, all else as it is usual for CIFAR-100."""
    quick = preset == "quick"
    images, width, batch, epochs = (2_000, 16, 100, 10) if quick else (50_000, 64, 128, 200)
    steps = images // batch * epochs
    milestones = tuple(round(share * steps) for share in ((0.6, 0.85) if quick else (0.3, 0.6, 0.8)))

    def setup(rate: float) -> Setup:
        return Setup(
            data=Images("cifar100", train=images, test=2_000 if quick else 10_000, augmented=not quick),
            model=ResNet18(width=width),
            loss=Loss("cross-entropy"),
            optimizer=Optimizer("sgd", rate, weight_decay=5e-4, milestones=milestones, warmup=images // batch),
            steps=steps,
            batch_size=batch,
            evaluate=every(steps // 4, steps),
            measured=2_000 if quick else 10_000,
        )

    return {name: setup(rate) for name, rate in RATES.items()}


def figures(results: Results, folder: Path) -> None:
    """The measures over the rate, and each run over time."""
    over_factor(
        results, folder / "over-rate.png", {"": RATES}, "learning rate", ("test_accuracy", "low_rank", "balanced", "s_init")
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
    claims=(
        Claim(
            "D_LR is smallest at the rate with the best test accuracy",
            "the same condition has the smallest D_LR and the highest test accuracy",
            lambda s: min(s, key=lambda c: s[c].last("low_rank")) == max(s, key=lambda c: s[c].last("test_accuracy")),
        ),
    ),
    figures=figures,
)
