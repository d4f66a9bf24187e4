"""The size of the training set: how D_LR and the three curves change with it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from ..experiment import Claim, Experiment, Preset, Results, at_the_end
from ..figures import over_factor, side_by_side
from ..fit import at_equal_accuracy, rank_correlation
from ..ingredients.data import Images
from ..ingredients.models import ResNet18, Vgg16
from ..run_folder import Run
from ..setup import Loss, Optimizer, Setup

NETWORKS = ("VGG16", "ResNet18")
DATA = {"CIFAR-10": "cifar10", "CIFAR-100": "cifar100"}
QUICK_SIZES, PAPER_SIZES = (250, 750, 2_000), (1_000, 5_000, 20_000, 50_000)


def setups(preset: Preset) -> dict[str, Setup]:
    """Two networks, two data sets, several sizes; the same number of steps for all sizes.

    The narrow VGG16 of the quick preset has a smaller rate, more steps and no dropout, because otherwise it does not train.
    """
    quick = preset == "quick"

    def setup(network: str, data: str, size: int) -> Setup:
        resnet = network == "ResNet18"
        steps = (240 if resnet else 720) if quick else 40_000
        return Setup(
            data=Images(DATA[data], train=size, test=2_000 if quick else 10_000, augmented=not quick),
            model=ResNet18(width=16 if quick else 64) if resnet else Vgg16(8 if quick else 64, dropout=0.0 if quick else 0.5),
            loss=Loss("cross-entropy"),
            optimizer=Optimizer(
                "sgd",
                0.05 if resnet or not quick else 0.03,
                weight_decay=5e-4,
                warmup=steps // 10,
                milestones=tuple(round(share * steps) for share in ((0.6, 0.85) if quick else (0.5, 0.75, 0.9))),
            ),
            steps=steps,
            batch_size=32 if quick else 128,
            evaluate=tuple(steps * k // 4 for k in range(4)),
            measured=2_000 if quick else 10_000,
            held_out=True,
        )

    sizes = QUICK_SIZES if quick else PAPER_SIZES
    return {name(n, d, size): setup(n, d, size) for n in NETWORKS for d in DATA for size in sizes}


def name(network: str, data: str, size: int) -> str:
    """Name of a condition."""
    return f"{network}, {data}, {size:,} images"


def lines(conditions: Iterable[str]) -> dict[str, dict[str, float]]:
    """Network and data -> {condition: size}."""
    sizes = sorted({int(c.rsplit(", ", 1)[1].split()[0].replace(",", "")) for c in conditions})
    return {f"{n}, {d}": {name(n, d, size): float(size) for size in sizes} for n in NETWORKS for d in DATA}


def figures(results: Results, folder: Path) -> None:
    """The measures over the size, and the curves of each network at the smallest and the largest."""
    measures = ("test_accuracy", "low_rank", "balanced", "train_accuracy")
    over_factor(results, folder / "over-size.png", lines(results.runs), "training images", measures)
    for network in NETWORKS:
        ends = [c for d in DATA for c in list(lines(results.runs)[f"{network}, {d}"])]
        ends = [ends[0], ends[len(ends) // 2 - 1], ends[len(ends) // 2], ends[-1]]
        side_by_side(results, folder / f"curves-{network.lower()}.png", {c: (c, at_the_end) for c in ends})


def rises(s: Mapping[str, Run], measure: str) -> bool:
    """Whether a measure is larger with the most images than with the fewest, for each network and data set."""
    ends = [(min(sizes, key=sizes.__getitem__), max(sizes, key=sizes.__getitem__)) for sizes in lines(s).values()]
    return all(s[most].last(measure) > s[fewest].last(measure) for fewest, most in ends)


def accuracy_rises(s: Mapping[str, Run]) -> bool:
    """Whether test accuracy is higher with the most images than with the fewest."""
    return rises(s, "test_accuracy")


def d_lr_rises(s: Mapping[str, Run]) -> bool:
    """Whether D_LR is higher with the most images than with the fewest."""
    return rises(s, "low_rank")


def d_lr_follows_the_fit(s: Mapping[str, Run]) -> bool:
    """Whether D_LR and the training loss rank the sizes alike, for each network and data set."""
    for sizes in lines(s).values():
        d_lr, loss = ([s[name].last(measure) for name in sizes] for measure in ("low_rank", "train_loss"))
        if not rank_correlation(d_lr, loss) > 0.5:
            return False
    return True


def smaller_at_equal_accuracy(s: Mapping[str, Run]) -> bool:
    """Whether the difference between sizes is less than half as large at equal training accuracy, for each line."""
    for sizes in lines(s).values():
        runs = [s[name] for name in sorted(sizes, key=sizes.__getitem__)]
        equal = at_equal_accuracy(runs, "low_rank")
        if not abs(equal[-1] - equal[0]) < 0.5 * (runs[-1].last("low_rank") - runs[0].last("low_rank")):
            return False
    return True


EXPERIMENT = Experiment(
    name="train-size",
    question="how do D_LR and the three curves move with the number of training images?",
    varied="training images, network and data set",
    setups=setups,
    columns=("held_out_quality_of_the_first_10",),
    claims=(
        Claim(
            "more images, better test accuracy",
            "for each network and data set, test accuracy at the largest size is above that at the smallest",
            accuracy_rises,
        ),
        Claim(
            "more images at the same number of steps, higher D_LR",
            "for each network and data set, the last D_LR at the largest size is above that at the smallest",
            d_lr_rises,
            beyond=True,
        ),
        Claim(
            "D_LR follows the training loss over the sizes",
            "for each network and data set, the rank correlation of the last D_LR with the last training loss is above 0.5",
            d_lr_follows_the_fit,
            beyond=True,
        ),
        Claim(
            "at equal training accuracy the difference between sizes is less than half of that at the end",
            "for each network and data set, between the largest and the smallest size, where each first has the lowest of "
            "their last training accuracies",
            smaller_at_equal_accuracy,
            beyond=True,
        ),
    ),
    figures=figures,
)
