"""``lazyrich sweep``: one experiment over a grid of settings."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from tyro.conf import arg

from ..errors import DataError
from . import options
from .experiments import named
from .outputs import check_folder


def sweep(
    name: options.Experiment,
    *,
    grid: Annotated[
        tuple[str, ...],
        arg(
            help="Fields of the experiment's setup, each with its values: optimizer.rate=0.01,0.1 model.width=64,128 gives four "
            "points. The error for an unknown field lists the known ones. NAME comes before this option.",
            metavar="FIELD=VALUE,VALUE…",
            help_behavior_hint="(default: one point, nothing changed)",
        ),
    ] = (),
    conditions: options.Conditions = (),
    preset: options.Preset = "quick",
    seeds: options.Seeds = "3",
    out: Annotated[
        Path,
        arg(
            help="Results are written to DIR/PRESET/NAME: table, numbers, and a folder for each run. On a cluster, DIR must be "
            "on a disk that all machines share.",
            metavar="DIR",
        ),
    ] = Path("lazyrich-sweeps"),
    resume: Annotated[
        bool, arg(help="Resume the sweep in DIR: complete runs are kept; failed and interrupted runs are tried again.")
    ] = False,
    data: options.DataFolder = None,
    address: Annotated[
        str | None,
        arg(
            help="Address of a running Ray cluster: HOST:6379, or auto on one of its machines.",
            metavar="HOST:PORT",
            help_behavior_hint="(default: start Ray on all cores of this machine, and stop it at the end)",
        ),
    ] = None,
    cpus_per_run: Annotated[int, arg(help="CPU cores for each run, which is also its number of threads.", metavar="N")] = 1,
    gpus_per_run: Annotated[
        float,
        arg(help="GPUs for each run: 1, or a fraction such as 0.5 for two runs on one GPU; 0 trains on the CPU.", metavar="N"),
    ] = 0.0,
    retries: Annotated[
        int,
        arg(help="How often a run whose process or machine was lost is resumed from its last checkpoint.", metavar="N"),
    ] = 3,
    precision: options.Precision = "32-true",
    progress: options.Progress = True,
) -> None:
    """Run an experiment at every point of a grid, on this machine or a Ray cluster."""
    from ..experiments import Cluster, sweep_experiment

    experiment, folder = named(name), out / preset / name
    check_folder(folder)
    swept = sweep_experiment(
        experiment, preset, folder, grid=grid, conditions=conditions, seeds=seeds, resume=resume, data=data,
        cluster=Cluster(address, cpus_per_run, gpus_per_run, retries), precision=precision, progress=progress,
    )  # fmt: skip
    print(f"{swept}\n\nTable and numbers: {folder}")
    if swept.failed:
        raise DataError(f"{len(swept.failed)} of {swept.runs} runs failed; try them again with resume=True")
