"""A small experiment that tests run. As a program it runs in the folders that they name, and is killed where they say."""

from dataclasses import dataclass
from pathlib import Path

import killed
import numpy as np
import torch

from lazyrich.experiments import Claim, Digits, Experiment, Loss, Machine, Mlp, Optimizer, Setup, run_experiment, training
from lazyrich.experiments.ingredients.data import Data, Split
from lazyrich.experiments.setup import regular_steps


@dataclass(frozen=True)
class Blobs(Digits):
    """450 noisy images of ten classes, the same for every seed: unlike digits they need no scikit-learn, which imports slowly."""

    def arrays(self, root):
        draws = np.random.default_rng(0)
        labels = np.arange(450) % 10
        return "blobs", (draws.uniform(0, 1, (10, 1, 8, 8))[labels] + draws.normal(0, 0.3, (450, 1, 8, 8)), labels)

    def load(self, seed, root):
        images, labels = map(torch.from_numpy, self.arrays(root)[1])
        samples = Split(images.float(), labels)
        return Data(samples[:360], samples[360:], 10)


def setups(preset):
    return {
        name: Setup(
            Blobs(),
            Mlp(width=24, depth=3),
            Loss("squared"),
            Optimizer("adam", 3e-3),
            steps,
            64,
            regular_steps(steps // 4, steps),
            trained,
        )
        for name, steps, trained in (("full", 120, "all"), ("last", 80, "last layer"))
    }


def nothing(results, folder):
    pass


SMALL = Experiment(
    name="small",
    question="does it run?",
    varied="what is trained",
    setups=setups,
    claims=(
        Claim("it learns", "last test accuracy > 50 %", lambda s: s["full"].last("test_accuracy") > 0.5, conditions=("full",)),
    ),
    figures=nothing,
    published={"full": {"low_rank": 0.25}},
)

CPU = Machine(accelerator="cpu")


def run(out, **options):
    return run_experiment(SMALL, "quick", Path(out), **{"seeds": 2, "machine": CPU, **options})


def in_a_child(folder):
    """One run that a test may kill; where a file next to the folder says so, no file can grow beyond so many bytes."""
    disk = Path(f"{folder}.disk")
    if disk.exists():
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, (int(disk.read_text()),) * 2)
    else:
        training.CHECKPOINT_SECONDS = 0.0
    run(folder, resume=True)


if __name__ == "__main__":
    import lightning.fabric  # noqa: F401 - once, before the children are forked

    killed.main(in_a_child)
