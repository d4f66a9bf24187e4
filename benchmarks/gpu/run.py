"""Experiments at the paper's size on one GPU, within a budget of seconds.

All conditions of an experiment run side by side, a process each. First each of them trains 200 steps, which shows how many epochs
fit into the experiment's share of the budget. Then they train that long. When the time is up, they are stopped, the table of what
is complete is written, and the next experiment begins. Runs that were stopped are resumed by the same command.

    python benchmarks/gpu/run.py results/paper --seconds 420 --experiments batch-norm learning-rate label-shuffle train-size

``--tiny`` tries it without a GPU: networks of width 2, a few steps.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import torch

from lazyrich._support.files import folder_name
from lazyrich.experiments import EXPERIMENTS, Experiment, Machine, Setup, run_experiment
from lazyrich.experiments.ingredients.seeds import seed_numbers

ORDER = ("batch-norm", "learning-rate", "label-shuffle", "train-size")
TRIED = 200  # steps that are timed
USED = 0.8  # of the budget is planned; loading, evaluations and the table take the rest


def shortened(setup: Setup, epochs: int, *, tiny: bool, steps: int | None = None) -> Setup:
    """The setup with so many epochs, or steps; the rate falls at the same shares of training."""
    if tiny:
        small = {"train": 256, "test": 64}
        setup = replace(
            setup, data=replace(setup.data, **small), model=replace(setup.model, width=2), batch_size=64, measured=128
        )
    per_epoch = max((getattr(setup.data, "train", None) or 50_000) // setup.batch_size, 1)
    total = epochs * per_epoch if steps is None else steps
    old = setup.optimizer
    falls = tuple(max(round(milestone / setup.steps * total), 1) for milestone in old.milestones)
    course = replace(old, warmup=min(old.warmup, total // 10), milestones=falls)
    when = tuple(sorted({0, total // 4, total // 2})) if steps is None else ()
    return replace(setup, steps=total, optimizer=course, evaluate=when)


def planned(name: str, epochs: int, *, tiny: bool, steps: int | None = None) -> Experiment:
    """An experiment with shortened setups; its claims are those of other setups, so that its table says exploratory."""
    whole = EXPERIMENTS[name]

    def setups(preset: str) -> dict[str, Setup]:
        return {n: shortened(s, epochs, tiny=tiny, steps=steps) for n, s in whole.setups("paper").items()}

    return replace(whole, setups=setups)


def machine(tiny: bool) -> Machine:
    return Machine("cpu") if tiny else Machine("gpu", precision="bf16-mixed")


def train(options: argparse.Namespace) -> None:
    """What one process does: one condition, all seeds."""
    torch.backends.cuda.matmul.allow_tf32 = True
    experiment = planned(options.worker, options.epochs, tiny=options.tiny, steps=options.steps)
    run_experiment(
        experiment, "paper", Path(options.out), seeds=options.seeds, conditions=(options.condition,), resume=True,
        machine=machine(options.tiny),
    )  # fmt: skip


def started(
    name: str, condition: str, out: Path, seeds: str, epochs: int, steps: int | None, tiny: bool
) -> subprocess.Popen[bytes]:
    command = [sys.executable, __file__, str(out), "--worker", name, "--condition", condition, "--seeds", seeds]
    command += ["--epochs", str(epochs), *(["--steps", str(steps)] if steps else []), *(["--tiny"] if tiny else [])]
    return subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "2"})  # noqa: S603


def together(
    name: str, conditions: list[str], out: Path, seeds: str, epochs: int, steps: int | None, tiny: bool, until: float
) -> None:
    """Run all conditions side by side until they end or the time is up."""
    jobs = [started(name, condition, out, seeds, epochs, steps, tiny) for condition in conditions]
    while any(job.poll() is None for job in jobs) and time.monotonic() < until:
        time.sleep(0.5)
    for job in jobs:
        job.terminate()
    for job in jobs:
        job.wait()


def seconds_of_a_step(name: str, conditions: list[str], out: Path, tiny: bool, until: float) -> float:
    """Of the slowest condition, while all run side by side."""
    together(name, conditions, out, "1", 1, TRIED if not tiny else 4, tiny, until)
    found = [json.loads(file.read_text(encoding="utf-8")) for file in out.glob("runs/*/seed-0/done.json")]
    if len(found) < len(conditions):
        raise SystemExit(
            f"{name}: {len(conditions) - len(found)} conditions did not finish {TRIED} steps; see the messages above"
        )
    return max(float(about["seconds"]) for about in found) / (TRIED if not tiny else 4)


def table(experiment: Experiment, out: Path, seeds: tuple[int, ...], tiny: bool) -> str:
    """The table of the conditions whose runs are complete."""
    done = {
        condition: {seed for seed in seeds if (out / "runs" / folder_name(condition) / f"seed-{seed}" / "done.json").exists()}
        for condition in experiment.setups("paper")
    }
    complete = [condition for condition, own in done.items() if own]
    shared = sorted(set.intersection(*(done[condition] for condition in complete))) if complete else []
    if not shared:
        return "no condition is complete: run the same command again to resume"
    chosen = () if len(complete) == len(done) else tuple(complete)
    return run_experiment(experiment, "paper", out, seeds=shared, conditions=chosen, resume=True, machine=machine(tiny))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out")
    parser.add_argument("--seconds", type=float, default=420.0, help="budget of all experiments together")
    parser.add_argument("--experiments", nargs="+", default=list(ORDER), choices=list(EXPERIMENTS))
    parser.add_argument("--seeds", default="200-202")
    parser.add_argument("--epochs", type=int, default=0, help="default: as many as fit into the budget")
    parser.add_argument("--tiny", action="store_true")
    for hidden, kind in (("--worker", str), ("--condition", str), ("--steps", int)):
        parser.add_argument(hidden, type=kind, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        train(options)
        return
    began, seeds = time.monotonic(), seed_numbers(options.seeds)
    for place, name in enumerate(options.experiments):
        left = options.seconds - (time.monotonic() - began)
        share = left / (len(options.experiments) - place)
        until = time.monotonic() + share
        out = Path(options.out) / name
        conditions = list(EXPERIMENTS[name].setups("paper"))
        epochs, plan = options.epochs, out / "plan.json"
        if not epochs and plan.exists():  # a run that is resumed keeps its length
            epochs = int(json.loads(plan.read_text(encoding="utf-8"))["epochs"])
        if not epochs:
            step = seconds_of_a_step(name, conditions, out / "timing", options.tiny, until)
            setup = max(
                (shortened(s, 1, tiny=options.tiny) for s in EXPERIMENTS[name].setups("paper").values()), key=lambda s: s.steps
            )
            epochs = max(1, int(USED * (until - time.monotonic()) / (step * setup.steps * len(seeds))))
            epochs = min(epochs, 2) if options.tiny else epochs
            out.mkdir(parents=True, exist_ok=True)
            plan.write_text(json.dumps({"epochs": epochs, "seconds_of_a_step": round(step, 5)}) + "\n", encoding="utf-8")
        print(f"{name}: {len(conditions)} conditions, {len(seeds)} seeds, {epochs} epochs", flush=True)
        together(name, conditions, out, options.seeds, epochs, None, options.tiny, until)
        print(table(planned(name, epochs, tiny=options.tiny), out, seeds, options.tiny), flush=True)


if __name__ == "__main__":
    main()
