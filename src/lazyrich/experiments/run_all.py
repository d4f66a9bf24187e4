"""Run an experiment: train every condition with every seed, then write the table, the numbers and the figures."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from .._support.extras import needs
from .._support.files import folder_name, write_text
from .._support.progress import progress_bar
from .._support.resume import check_free
from ..errors import DataError
from .experiment import Experiment, Preset, Results, chosen
from .figures import over_fit, over_time
from .ingredients.images import data_folder
from .ingredients.seeds import Seeds, seed_numbers, typed_seeds
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
    seeds: Seeds = 3,
    conditions: Sequence[str] = (),
    resume: bool = False,
    data: Path | None = None,
    machine: Machine | None = None,
    progress: bool = False,
) -> str:
    """Run the conditions with every seed, and return the final table.

    ``out`` then holds ``table.txt``, ``results.csv`` (condition, seed, step, measure, value: one number in each row),
    ``run.json`` (command, duration, commit, hashes of the data, versions), the figures, and in ``runs/`` a folder for each run.

    Args:
        out: folder for the results.
        seeds: a count N, which means the seeds 0 to N - 1; or seed numbers, as a sequence or as a text such as ``"100-104"``
            or ``"0,3,7"``; see :func:`~lazyrich.experiments.ingredients.seeds.seed_numbers`.
        conditions: some of the experiment's conditions; by default all. With some of them the table has a row for each, the
            only figure is that over time, and claims about other conditions are not judged.
        resume: continue the runs in ``out``: complete runs are not run again.
        data: folder of the data sets; by default ``LAZYRICH_DATA``, else the user's cache.
        machine: where to run; by default Lightning's choice of accelerator, one process.
        progress: show a progress bar.

    Raises:
        DataError: an unknown condition; a preset that the experiment does not have; data that are missing or damaged; ``out``
            holds runs and ``resume`` is False, or runs with another setup.
        MissingExtraError: ``lazyrich[experiments]`` is not installed.
        ValueError: ``seeds`` has another form.
    """
    machine = machine or Machine()
    numbers = seed_numbers(seeds)
    if preset not in experiment.presets:
        raise DataError(f"preset: {experiment.name} has no preset {preset!r}; it has {' and '.join(experiment.presets)}")
    needs("matplotlib", "experiments")
    check_free(out, holds_runs(out), resume, "runs")
    all_setups = experiment.setups(preset)
    setups = chosen(all_setups, conditions)
    root = data_folder(data)
    # a partial, because Fabric does not pass frozen dataclasses to the processes that it starts
    work = partial(_run_all, name=experiment.name, setups=setups, seeds=numbers, out=out, root=root, progress=progress)
    create_fabric(machine).launch(work)
    runs = {name: [_folder(out, name, seed).read() for seed in numbers] for name in setups}
    results = Results(runs, numbers, complete=len(setups) == len(all_setups))
    table = table_text(experiment, preset, results)
    defaults = asdict(Machine())
    options = {"preset": (preset, None), "seeds": (typed_seeds(numbers), None), "conditions": (conditions, ())}
    options |= {name: (value, defaults[name]) for name, value in asdict(machine).items()}
    seconds = sum(run.seconds for of_condition in runs.values() for run in of_condition)
    about = facts(command_line("run", experiment.name, options), numbers, machine, seconds, setups.values(), root)
    _write(experiment, results, out, table, about, setups)
    return table


def _write(
    experiment: Experiment, results: Results, out: Path, table: str, about: dict[str, Any], setups: dict[str, Setup]
) -> None:
    runs = [
        ((name, seed), run) for name, of_seeds in results.runs.items() for seed, run in zip(results.seeds, of_seeds, strict=True)
    ]
    write_text(out / "table.txt", table + "\n")
    write_text(out / "results.csv", tidy_csv(("condition", "seed"), runs))
    write_text(out / "run.json", json.dumps(about, indent=1) + "\n")
    over_fit(results, out / "over-fit.png", setups)
    if results.complete:
        experiment.figures(results, out)
    else:
        over_time(results, out / "over-time.png")


def _run_all(
    fabric: Any, name: str, setups: dict[str, Setup], seeds: tuple[int, ...], out: Path, root: Path, progress: bool
) -> None:
    total = sum(setup.steps for setup in setups.values()) * len(seeds)
    with progress_bar(progress and fabric.is_global_zero, total=total, text=name, unit=" steps") as bar:
        for seed in seeds:
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
