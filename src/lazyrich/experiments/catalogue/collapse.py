"""Neural collapse: after zero training error, NC1, NC2, NC3 and D_LR fall together."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..experiment import Claim, Experiment, Preset, Results
from ..figures import curves_at_moments, over_time
from ..ingredients.data import Images
from ..ingredients.models import Mlp, ResNet18
from ..run_folder import Run
from ..setup import Loss, Optimizer, Setup, log_spaced_steps

MNIST, FASHION, CIFAR = "MLP, MNIST", "MLP, Fashion-MNIST", "ResNet18, CIFAR-10"
COLLAPSE = ("nc1", "nc2_equinorm", "nc2_equiangular", "nc3")


def setups(preset: Preset) -> dict[str, Setup]:
    """Three data sets, squared loss with weight decay, and many more steps than the fit takes."""
    quick = preset == "quick"

    def mlp(data: str) -> Setup:
        steps = 3_000 if quick else 40_000
        return Setup(
            data=Images(data, train=2_000 if quick else 60_000, test=2_000 if quick else 10_000),
            model=Mlp(width=512, depth=4),
            loss=Loss("squared"),
            optimizer=Optimizer("adam", 1e-3, weight_decay=1e-5, milestones=(steps // 2, 3 * steps // 4)),
            steps=steps,
            evaluate=log_spaced_steps(steps, 12),
            measured=2_000 if quick else 10_000,
        )

    count, batch, epochs = (1_000, 50, 40) if quick else (50_000, 128, 350)
    steps = count // batch * epochs
    resnet = Setup(
        data=Images("cifar10", train=count, test=1_000 if quick else 10_000),
        model=ResNet18(width=8 if quick else 64),
        loss=Loss("squared"),
        optimizer=Optimizer("sgd", 0.1, weight_decay=5e-4, milestones=(steps // 2, 3 * steps // 4), warmup=count // batch),
        steps=steps,
        batch_size=batch,
        evaluate=log_spaced_steps(steps, 10),
        measured=1_000 if quick else 10_000,
    )
    return {MNIST: mlp("mnist"), FASHION: mlp("fashion-mnist"), CIFAR: resnet}


def together(run: Run, measure: str) -> float:
    """Rank correlation of a measure of collapse with D_LR over the evaluations after the start."""
    ranks = [np.argsort(np.argsort(run[m][1:])) for m in (measure, "low_rank")]
    return float(np.corrcoef(ranks[0], ranks[1])[0, 1])


def figures(results: Results, folder: Path) -> None:
    """D_LR and the measures of collapse over time, and the curves."""
    over_time(results, folder / "over-time.png", measures=("low_rank", *COLLAPSE), log_measures=True)
    curves_at_moments(results, folder / "curves.png")


EXPERIMENT = Experiment(
    name="collapse",
    question="does D_LR see neural collapse come?",
    varied="time, past zero training error",
    setups=setups,
    columns=COLLAPSE,
    claims=(
        Claim(
            "the training set is fitted and D_LR ends low",
            "training accuracy 99.5 % and more, last D_LR less than a third of the first, in every network",
            lambda s: all(r.last("train_accuracy") >= 0.995 and r.last("low_rank") < r["low_rank"][0] / 3 for r in s.values()),
        ),
        Claim(
            "NC1, NC2 and D_LR fall together",
            "rank correlation with D_LR over the evaluations after the start is above 0.5 for NC1 and both NC2, in every network",
            lambda s: all(together(run, m) > 0.5 for run in s.values() for m in COLLAPSE[:3]),
        ),
        Claim(
            "and NC3",
            "rank correlation of NC3 with D_LR is above 0.5 in every network",
            lambda s: all(together(run, "nc3") > 0.5 for run in s.values()),
        ),
    ),
    figures=figures,
)
