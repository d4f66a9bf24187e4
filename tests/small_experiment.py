"""A small experiment on digits, for the tests; as a program: runs it in the folder it is given, with what else is asked for."""

import sys
from pathlib import Path

import killed

from lazyrich.experiments import Claim, Digits, Experiment, Loss, Machine, Mlp, Optimizer, Setup, run_experiment, training
from lazyrich.experiments.setup import regular_steps


def setups(preset):
    return {
        name: Setup(
            Digits(),
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


if __name__ == "__main__":
    out, *asked = sys.argv[1:]
    if "small-disk" in asked:
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
    if "often" in asked:
        training.CHECKPOINT_SECONDS = 0.0
    if "children" in asked:
        import lightning.fabric  # noqa: F401 - once, before the children are forked

        training.CHECKPOINT_SECONDS = 0.0
        killed.main(lambda folder: run(folder, resume=True))
    else:
        print(run(out, resume=True, machine=Machine("cpu", 2) if "two" in asked else CPU))
