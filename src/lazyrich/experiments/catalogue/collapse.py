"""Neural collapse: after zero training error, NC1, NC2, NC3 and D_LR fall together."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ..experiment import Claim, Experiment, Preset, Results
from ..figures import curves_at_moments, over_time
from ..fit import rank_correlation
from ..ingredients.data import Images
from ..ingredients.models import Mlp, ResNet18
from ..run_folder import Run
from ..setup import Loss, Optimizer, Setup, log_spaced_steps, regular_steps

MNIST, FASHION, CIFAR = "MLP, MNIST", "MLP, Fashion-MNIST", "ResNet18, CIFAR-10"
TOGETHER = (
    "rank correlation with D_LR is above 0.5 over the evaluations from the first one with training accuracy 100 % on (at least "
    "five), and the last value is below the first of them, in every network"
)
COLLAPSE = ("nc1", "nc2_equinorm", "nc2_equiangular", "nc3")


def setups(preset: Preset) -> dict[str, Setup]:
    """Three data sets, squared loss with weight decay, and many more steps than the fit takes.

    Evaluations are log-spaced up to the fit, and regular after it.
    """
    quick = preset == "quick"

    def mlp(data: str) -> Setup:
        steps = 3_000 if quick else 40_000
        return Setup(
            data=Images(data, train=2_000 if quick else 60_000, test=2_000 if quick else 10_000),
            model=Mlp(width=512, depth=4),
            loss=Loss("squared"),
            optimizer=Optimizer("adam", 1e-3, weight_decay=1e-5, milestones=(steps // 2, 3 * steps // 4)),
            steps=steps,
            evaluate=regular_steps(steps // 10, steps, also=log_spaced_steps(steps, 12)),
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
        evaluate=regular_steps(steps // 10, steps, also=log_spaced_steps(steps, 10)),
        measured=1_000 if quick else 10_000,
    )
    return {MNIST: mlp("mnist"), FASHION: mlp("fashion-mnist"), CIFAR: resnet}


def together(run: Run, measure: str) -> float:
    """Rank correlation of a measure of collapse with D_LR over the evaluations after the start."""
    return rank_correlation(run[measure][1:], run["low_rank"][1:])


def past_zero_error(run: Run) -> slice:
    """The evaluations from the first one at which every training sample is classified correctly; none if there is no such one."""
    first = run.first("train_accuracy", 1.0)
    return slice(first if first >= 0 else len(run), None)


def falls(run: Run, measure: str) -> bool:
    """Whether a measure ends below its value at the first evaluation with zero training error."""
    values = run[measure][past_zero_error(run)]
    return len(values) > 1 and values[-1] < values[0]


def follows(run: Run, measure: str) -> bool:
    """Whether a measure and D_LR have a rank correlation above 0.5 over at least five evaluations with zero training error on."""
    values, d_lr = run[measure][past_zero_error(run)], run["low_rank"][past_zero_error(run)]
    return len(values) >= 5 and rank_correlation(values, d_lr) > 0.5


def fitted_and_low(s: Mapping[str, Run]) -> bool:
    """Whether every network fits its training set and ends with a low D_LR."""
    return all(run.last("train_accuracy") >= 0.995 and run.last("low_rank") < run["low_rank"][0] / 3 for run in s.values())


def d_lr_falls(s: Mapping[str, Run]) -> bool:
    """Whether D_LR falls past zero training error, in every network."""
    return all(falls(run, "low_rank") for run in s.values())


def nc1_falls_with_it(s: Mapping[str, Run]) -> bool:
    """Whether NC1 falls past zero training error and follows D_LR there, in every network."""
    return all(falls(run, "nc1") and follows(run, "nc1") for run in s.values())


def nc2_falls_with_it(s: Mapping[str, Run]) -> bool:
    """Whether both NC2 fall past zero training error and follow D_LR there, in every network."""
    return all(falls(run, m) and follows(run, m) for run in s.values() for m in ("nc2_equinorm", "nc2_equiangular"))


def nc3_falls_with_it(s: Mapping[str, Run]) -> bool:
    """Whether NC3 falls past zero training error and follows D_LR there, in every network."""
    return all(falls(run, "nc3") and follows(run, "nc3") for run in s.values())


def together_from_the_start(s: Mapping[str, Run]) -> bool:
    """Whether NC1 and both NC2 follow D_LR over training, in every network."""
    return all(together(run, m) > 0.5 for run in s.values() for m in ("nc1", "nc2_equinorm", "nc2_equiangular"))


def nc3_from_the_start(s: Mapping[str, Run]) -> bool:
    """Whether NC3 follows D_LR over training, in every network."""
    return all(together(run, "nc3") > 0.5 for run in s.values())


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
            fitted_and_low,
        ),
        Claim(
            "D_LR falls past zero training error",
            "the last D_LR is below that at the first evaluation with training accuracy 100 %, in every network",
            d_lr_falls,
        ),
        Claim("past zero training error NC1 falls with D_LR", f"NC1: {TOGETHER}", nc1_falls_with_it),
        Claim("past zero training error NC2 falls with D_LR", f"both NC2: {TOGETHER}", nc2_falls_with_it),
        Claim("past zero training error NC3 falls with D_LR", f"NC3: {TOGETHER}", nc3_falls_with_it),
    ),
    former=(
        Claim(
            "NC1, NC2 and D_LR fall together",
            "rank correlation with D_LR over the evaluations after the start is above 0.5 for NC1 and both NC2, in every network",
            together_from_the_start,
        ),
        Claim(
            "and NC3",
            "rank correlation of NC3 with D_LR is above 0.5 in every network",
            nc3_from_the_start,
        ),
    ),
    figures=figures,
)
