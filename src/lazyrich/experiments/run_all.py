"""Run an experiment: train every condition with every seed, then write the table, the numbers and the figures."""

from __future__ import annotations

import json
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from .._support.extras import needs
from .._support.files import folder_name, write_text
from .._support.progress import progress_bar
from .._support.resume import check_free
from .experiment import Experiment, Preset, Results
from .ingredients.images import data_folder
from .machine import Machine, create_fabric
from .record import command_line, facts, tidy_csv
from .run_folder import RunFolder, holds_runs
from .setup import Setup
from .table import table_text
from .training import train


def run_experiment(
    experiment: Experiment,
    preset: Preset,
    out: Path,
    *,
    seeds: int = 3,
    resume: bool = False,
    data: Path | None = None,
    machine: Machine | None = None,
    progress: bool = False,
) -> str:
    """Run all conditions with the seeds 0 to ``seeds`` - 1, and return the final table.

    ``out`` then holds ``table.txt``, ``results.csv`` (condition, seed, step, measure, value: one number in each row),
    ``run.json`` (command, duration, versions), the figures, and in ``runs/`` a folder for each run.

    Args:
        out: folder for the results.
        resume: continue the runs in ``out``: complete runs are not run again.
        data: folder of the data sets; by default ``LAZYRICH_DATA``, else the user's cache.
        machine: where to run; by default Lightning's choice of accelerator, one process.
        progress: show a progress bar.

    Raises:
        DataError: data that are missing or damaged; ``out`` holds runs and ``resume`` is False, or runs with another setup.
        MissingExtraError: ``lazyrich[experiments]`` is not installed.
    """
    machine = machine or Machine()
    if seeds < 1:
        raise ValueError(f"seeds must be at least 1, got {seeds}")
    needs("matplotlib", "experiments")
    check_free(out, holds_runs(out), resume, "runs")
    setups = experiment.setups(preset)
    root = data_folder(data)
    # a partial, because Fabric does not pass frozen dataclasses to the processes that it starts
    work = partial(_run_all, name=experiment.name, setups=setups, seeds=seeds, out=out, root=root, progress=progress)
    create_fabric(machine).launch(work)
    results = Results({name: [_folder(out, name, seed).read() for seed in range(seeds)] for name in setups})
    table = table_text(experiment, preset, results, seeds)
    _write(experiment, preset, results, out, table, seeds, machine)
    return table


def _write(experiment: Experiment, preset: Preset, results: Results, out: Path, table: str, seeds: int, machine: Machine) -> None:
    runs = [((name, seed), run) for name, of_seeds in results.runs.items() for seed, run in enumerate(of_seeds)]
    defaults = asdict(Machine())
    options = {name: (value, defaults[name]) for name, value in asdict(machine).items()}
    command = command_line("run", experiment.name, {"preset": (preset, None), "seeds": (seeds, None), **options})
    about = facts(command, seeds, machine, sum(run.seconds for _, run in runs))
    write_text(out / "table.txt", table + "\n")
    write_text(out / "results.csv", tidy_csv(("condition", "seed"), runs))
    write_text(out / "run.json", json.dumps(about, indent=1) + "\n")
    experiment.figures(results, out)


def _run_all(fabric: Any, name: str, setups: dict[str, Setup], seeds: int, out: Path, root: Path, progress: bool) -> None:
    total = sum(setup.steps for setup in setups.values()) * seeds
    with progress_bar(progress and fabric.is_global_zero, total=total, text=name, unit=" steps") as bar:
        for seed in range(seeds):
            for condition, setup in setups.items():
                folder = _folder(out, condition, seed)
                if fabric.is_global_zero:
                    folder.claim(setup, seed)
                fabric.barrier()
                if folder.done:
                    bar.update(setup.steps)
                    continue
                bar.text(f"{name}: {condition}, seed {seed}")
                train(setup, setup.data.load(seed, root), seed, folder, fabric, bar)


def _folder(out: Path, condition: str, seed: int) -> RunFolder:
    return RunFolder(out / "runs" / folder_name(condition) / f"seed-{seed}", f"{condition}, seed {seed}")
