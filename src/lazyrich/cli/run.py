"""``lazyrich run``: one experiment."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import arg

from . import options
from .experiments import named
from .outputs import check_folder


def run(
    name: options.Experiment,
    *,
    preset: options.Preset = "quick",
    seeds: options.Seeds = "3",
    conditions: options.Conditions = (),
    out: Annotated[
        Path,
        arg(help="Results are written to DIR/PRESET/NAME: table, numbers, figures, and a folder for each run.", metavar="DIR"),
    ] = Path("lazyrich-results"),
    resume: Annotated[bool, arg(help="Resume the experiment in DIR.")] = False,
    data: options.DataFolder = None,
    accelerator: Annotated[Literal["auto", "cpu", "gpu", "mps"], arg(help="Hardware to train on.")] = "auto",
    processes: Annotated[int, arg(help="Number of processes that share every batch, one for each device.", metavar="N")] = 1,
    precision: options.Precision = "32-true",
    progress: options.Progress = True,
) -> None:
    """Run an experiment and compare its numbers with the published ones."""
    from ..experiments import Machine, run_experiment

    experiment, folder = named(name), out / preset / name
    check_folder(folder)
    text = run_experiment(
        experiment, preset, folder, seeds=seeds, conditions=conditions, resume=resume,
        data=data, machine=Machine(accelerator, processes, precision), progress=progress,
    )  # fmt: skip
    print(f"{text}\n\nTable, numbers and figures: {folder}")
