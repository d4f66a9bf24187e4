"""How features grow: the three curves at log-spaced steps of training."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ..experiment import Claim, Experiment, Preset, Results
from ..figures import curves_at_moments, over_time
from ..fit import first_index
from ..ingredients.data import Images
from ..ingredients.models import Mlp, ResNet18
from ..run_folder import Run
from ..setup import Loss, Optimizer, Setup, log_spaced_steps

MNIST, CIFAR, RESNET = "MLP, MNIST", "MLP, CIFAR-10", "ResNet18, CIFAR-10"


def setups(preset: Preset) -> dict[str, Setup]:
    """Two data sets for the MLP, and a convolutional network.

    In the quick preset the MLP cannot memorise all images of CIFAR-10 in its steps; those of MNIST it can.
    """
    quick = preset == "quick"
    test = 2_000 if quick else 10_000

    def mlp(data: str) -> Setup:
        steps = 1_500 if quick else 20_000
        images = (5_000 if data == "mnist" else 20_000) if quick else 50_000
        return Setup(
            data=Images(data, train=images, test=test),
            model=Mlp(width=512, depth=4),
            loss=Loss("squared"),
            optimizer=Optimizer("adam", 1e-3 if data == "mnist" else 3e-4),
            steps=steps,
            evaluate=log_spaced_steps(steps, 20),
            measured=5_000 if quick else 10_000,
            held_out=True,
        )

    epochs, count, batch = (40, 1_000, 50) if quick else (200, 50_000, 128)
    steps = count // batch * epochs
    resnet = Setup(
        data=Images("cifar10", train=count, test=test, augmented=not quick),
        model=ResNet18(width=8 if quick else 64),
        loss=Loss("squared"),
        optimizer=Optimizer("sgd", 0.1, weight_decay=5e-4, milestones=(steps // 2, 3 * steps // 4), warmup=count // batch),
        steps=steps,
        batch_size=batch,
        evaluate=log_spaced_steps(steps, 14),
        measured=1_000 if quick else 10_000,
        held_out=True,
    )
    return {MNIST: mlp("mnist"), CIFAR: mlp("cifar10"), RESNET: resnet}


def half_way(run: Run, last: int, before: int) -> float:
    """Index, by interpolation, at which the features from ``before`` + 1 to ``last`` hold half of their last quality."""
    quality = run[f"quality_of_the_first_{last}"] - (run[f"quality_of_the_first_{before}"] if before else 0)
    return first_index(quality, quality[-1] / 2)


def strong_first(s: Mapping[str, Run]) -> bool:
    """Whether the five strongest features gain quality before the next five, in every network."""
    return all(half_way(run, 5, 0) < half_way(run, 10, 5) for run in s.values())


def quality_grows(s: Mapping[str, Run]) -> bool:
    """Whether the quality of the ten strongest features ends above that at the start, in every network."""
    return all(run.last("quality_of_the_first_10") > run["quality_of_the_first_10"][0] for run in s.values())


def minimal(s: Mapping[str, Run]) -> bool:
    """Whether the MLP on MNIST and the ResNet18 end with about as many features in use as there are classes."""
    return all(s[name].last("features_for_outputs") <= 15 for name in (MNIST, RESNET))


def extended(s: Mapping[str, Run]) -> bool:
    """Whether the MLP on CIFAR-10 ends with at least twice as many features in use as that on MNIST."""
    return s[CIFAR].last("features_for_outputs") >= 2 * s[MNIST].last("features_for_outputs")


def in_use(run: Run) -> int:
    """How many features hold 95 % of the space of the outputs, at the end."""
    curve = run.curves(-1)["utilization"]
    return int((curve < 0.95 * curve[-1]).sum()) + 1


def strong_at_the_end(s: Mapping[str, Run]) -> bool:
    """Whether, at the end, the ten strongest features hold more of the targets than the next ten, in every network."""
    curves = [run.curves(-1)["quality"] for run in s.values()]
    return all(float(quality[9]) > float(quality[19] - quality[9]) for quality in curves)


def minimal_by_the_curves(s: Mapping[str, Run]) -> bool:
    """Whether the MLP on MNIST and the ResNet18 end with at most 15 features in use."""
    return in_use(s[MNIST]) <= 15 and in_use(s[RESNET]) <= 15


def extended_by_the_curves(s: Mapping[str, Run]) -> bool:
    """Whether the MLP on CIFAR-10 ends with at least twice as many features in use as that on MNIST."""
    return in_use(s[CIFAR]) >= 2 * in_use(s[MNIST])


def figures(results: Results, folder: Path) -> None:
    """The curves at log-spaced steps, and the measures over time."""
    curves_at_moments(results, folder / "curves.png")
    over_time(results, folder / "over-time.png")


EXPERIMENT = Experiment(
    name="feature-growth",
    question="in which order do features gain strength and quality, and how many come into use?",
    varied="time, for three networks",
    setups=setups,
    columns=("quality_of_the_first_5", "quality_of_the_first_10", "utilization_of_the_first_10", "features_for_outputs"),
    claims=(
        Claim(
            "stronger features gain quality first",
            "by interpolation between evaluations, the five strongest features hold half of their last quality before the next "
            "five hold half of theirs, in every network",
            strong_first,
        ),
        Claim(
            "the quality of the ten strongest features grows in training",
            "at the end it is above that at the start, in every network",
            quality_grows,
        ),
        Claim(
            "minimal: most networks end with about as many features in use as there are classes",
            "MLP on MNIST and ResNet18: 95 % of the space of the outputs in at most 15 features",
            minimal,
            conditions=(MNIST, RESNET),
        ),
        Claim(
            "extended: an MLP on CIFAR-10 uses more",
            "it needs at least twice as many features for 95 % of the space of the outputs as the MLP on MNIST",
            extended,
            conditions=(MNIST, CIFAR),
        ),
    ),
    former=(
        Claim(
            "stronger features gain quality first",
            "at the end the ten strongest features hold more of the target space than the next ten, in every network",
            strong_at_the_end,
            curves=True,
        ),
        Claim(
            "minimal: most networks end with about as many features in use as there are classes",
            "MLP on MNIST and ResNet18: 95 % of the learned functions in at most 15 features",
            minimal_by_the_curves,
            curves=True,
        ),
        Claim(
            "extended: an MLP on CIFAR-10 uses more",
            "it needs at least twice as many features as the MLP on MNIST",
            extended_by_the_curves,
            curves=True,
        ),
    ),
    figures=figures,
)
