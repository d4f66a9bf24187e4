"""Rich is not better: one pixel of each training image encodes its label, and is random in the test images."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

from ..experiment import Claim, Experiment, Preset, Results, at_the_end
from ..figures import over_time, side_by_side
from ..ingredients.data import Images
from ..ingredients.models import Mlp
from ..run_folder import Run
from ..setup import Loss, Optimizer, Setup, log_spaced_steps

FULL, LAST = "full training", "last layer only"
HEIGHT = 1.5  # of the pixel; the others are in [0, 1]
EPOCHS, BATCH = 20, 128


def setups(preset: Preset) -> dict[str, Setup]:
    """The same network, data and steps; the conditions differ in the parameters that are trained."""
    quick = preset == "quick"
    images = 10_000 if quick else 60_000
    steps = EPOCHS * (images // BATCH)
    model = Mlp(width=512, depth=4) if quick else Mlp(width=512, depth=5, init_scale=math.sqrt(2))  # PyTorch's start; He's

    def setup(trained: str) -> Setup:
        return Setup(
            data=Images("mnist", train=images, test=10_000, encoded=HEIGHT),
            model=model,
            loss=Loss("squared"),
            optimizer=Optimizer("adam", 1e-3, milestones=() if quick else (steps // 2, 3 * steps // 4)),
            steps=steps,
            batch_size=BATCH,
            evaluate=log_spaced_steps(steps, 10),
            trained="all" if trained == FULL else "last layer",
            measured=10_000,
        )

    return {name: setup(name) for name in (FULL, LAST)}


def figures(results: Results, folder: Path) -> None:
    """Both networks over time, and their curves next to each other."""
    over_time(results, folder / "over-time.png", measures=("low_rank", "laziness"))
    side_by_side(results, folder / "curves.png", {name: (name, at_the_end) for name in (FULL, LAST)})


def rich_at_chance(s: Mapping[str, Run]) -> bool:
    """Whether full training ends rich and at chance."""
    return 0.08 <= s[FULL].last("test_accuracy") <= 0.12 and s[FULL].last("low_rank") < 0.05


def lazy_and_better(s: Mapping[str, Run]) -> bool:
    """Whether training of the last layer alone ends lazy and far above chance."""
    return s[LAST].last("test_accuracy") > 0.6 and s[LAST].last("low_rank") > 0.4


EXPERIMENT = Experiment(
    name="encoded-mnist",
    question="can a network train richly and learn nothing of use?",
    varied="which parameters are trained: all, or the last layer alone",
    setups=setups,
    published={
        FULL: {"test_accuracy": 0.100, "low_rank": 0.0087},
        LAST: {"test_accuracy": 0.744, "low_rank": 0.63},
    },
    claims=(
        Claim(
            "trained in full the network is rich and at chance",
            "full training: test accuracy 8-12 %, D_LR < 0.05",
            rich_at_chance,
            conditions=(FULL,),
        ),
        Claim(
            "with the last layer alone it is lazy and far better",
            "last layer only: test accuracy > 60 %, D_LR > 0.4",
            lazy_and_better,
            conditions=(LAST,),
        ),
    ),
    figures=figures,
)
