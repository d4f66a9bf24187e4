"""Target downscaling: training is lazier the larger α is, if f is fitted to y/α. Which measures show it?"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path

from ..experiment import Claim, Experiment, Preset, Results, Row
from ..figures import over_factor, over_time
from ..ingredients.data import Images
from ..ingredients.models import Mlp
from ..run_folder import Run
from ..setup import Loss, Optimizer, Setup, regular_steps

ALPHAS = {"α = 1": 1.0, "α = 2": 2.0, "α = 4": 4.0, "α = 8": 8.0}
TARGET = 30.0  # of the one-hot targets at α = 1


def setups(preset: Preset) -> dict[str, Setup]:
    """The setup on MNIST that is known for grokking: large initial weights, few images, small weight decay.

    In the quick preset the decay is five times as strong, because there are fewer steps.
    """
    quick = preset == "quick"
    steps = 6_000 if quick else 50_000

    def setup(alpha: float) -> Setup:
        return Setup(
            data=Images("mnist", train=1_000, test=2_000 if quick else 10_000),
            model=Mlp(width=256 if quick else 512, depth=4, activation="tanh", init_scale=5.0),
            loss=Loss("squared", target_scale=TARGET / alpha),
            optimizer=Optimizer("adam", 1e-3, weight_decay=5e-4 if quick else 1e-4),
            steps=steps,
            evaluate=regular_steps(500 if quick else 2_000, steps, also=(50, 100, 150, 200, 250, 300, 400)),
            measured=1_000,
        )

    return {name: setup(alpha) for name, alpha in ALPHAS.items()}


def fitted(run: Run) -> int:
    """The first evaluation at which the training set is fitted."""
    return run.first("train_accuracy", 1.0)


def rows(results: Results) -> dict[str, Row]:
    """Each α when the training set is fitted for the first time, and at the end."""
    first = {f"{name}, first fitted": Row(name, {}, fitted) for name in results.runs}
    return first | {f"{name}, at the end": Row(name) for name in results.runs}


def grows(s: Mapping[str, Run], measure: str) -> bool:
    """Whether a measure grows from each α to the next, when the training set is fitted for the first time."""
    values = [s[name][measure][fitted(s[name])] for name in ALPHAS]
    return all(a < b for a, b in pairwise(values))


def d_lr_grows(s: Mapping[str, Run]) -> bool:
    """Whether every training set is fitted, and D_LR grows with α when it first is."""
    return all(run.last("train_accuracy") == 1 for run in s.values()) and grows(s, "low_rank")


def nc1_grows(s: Mapping[str, Run]) -> bool:
    """Whether every training set is fitted, and NC1 grows with α when it first is."""
    return all(run.last("train_accuracy") == 1 for run in s.values()) and grows(s, "nc1")


def richer_later(s: Mapping[str, Run]) -> bool:
    """Whether D_LR ends below its value when the training set is first fitted, for every α."""
    return all(run.last("low_rank") < run["low_rank"][fitted(run)] for run in s.values())


def figures(results: Results, folder: Path) -> None:
    """The measures over α, when the training set is fitted for the first time and at the end, and each run over time."""
    measures = ("low_rank", "balanced", "s_init", "parameter_norm", "nc1", "test_accuracy")
    over_factor(results, folder / "first-fitted.png", {"": ALPHAS}, "α", measures, when=fitted)
    over_factor(results, folder / "at-the-end.png", {"": ALPHAS}, "α", measures)
    over_time(results, folder / "over-time.png", measures=("low_rank", "s_init"))


EXPERIMENT = Experiment(
    name="target-downscale",
    question="does D_LR follow a factor that is known to make training lazy?",
    varied="α in the loss (f - y/α)²",
    setups=setups,
    rows=rows,
    columns=("s_init", "parameter_norm", "nc1"),
    claims=(
        Claim(
            "D_LR grows with α when the training set is first fitted",
            "at the first evaluation with training accuracy 100 %, D_LR is larger for each larger α",
            d_lr_grows,
        ),
        Claim(
            "NC1 grows with α too, against the published direction",
            "at the first evaluation with training accuracy 100 %, NC1 is larger for each larger α",
            nc1_grows,
            beyond=True,
        ),
        Claim(
            "weight decay makes every run richer later",
            "D_LR at the end is below D_LR when first fitted, for every α",
            richer_later,
        ),
    ),
    figures=figures,
)
