"""Runs an experiment: every condition and seed, then the table, the claims and the pictures."""

from __future__ import annotations

import csv
import io
import json
import os
import platform
import warnings
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from .._support.extras import needs
from .._support.files import folder_name, write_text
from .._support.progress import progress_bar
from .._support.resume import check_free
from .._support.text import ruled
from ..results.catalogue import entry
from .experiment import Experiment, Preset, Results
from .ingredients.images import data_folder
from .runs import RunFolder, holds_runs
from .setup import Setup
from .training import train

COLUMNS = (  # of every experiment's table, before its own
    "train_accuracy", "test_accuracy", "low_rank", "low_rank_corrected", "balanced", "output_alignment", "output_rank",
)  # fmt: skip


@dataclass(frozen=True)
class Machine:
    """How it runs: Lightning Fabric's accelerator, processes and precision."""

    accelerator: str = "auto"
    processes: int = 1
    precision: str = "32-true"


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
    """Runs all conditions with seeds 0 … ``seeds`` - 1 and returns the final table.

    ``out`` then holds ``table.txt``, ``results.csv`` (tidy: condition, seed, step, measure, value), ``run.json`` (versions,
    duration, command), the figures, and below ``runs/`` a folder for each run.

    Args:
        resume: go on with what ``out`` holds; runs that are whole are not run again.
        data: the data folder; by default what ``LAZYRICH_DATA`` names, else the user's cache.

    Raises:
        DataError: data that are missing or damaged; ``out`` holds other runs, or runs and no ``resume``.
        MissingExtraError: ``lazyrich[experiments]`` is not installed.
    """
    machine = machine or Machine()
    if seeds < 1:
        raise ValueError(f"seeds must be at least 1, got {seeds}")
    needs("matplotlib", "experiments")
    check_free(out, holds_runs(out), resume, "runs")
    setups = experiment.setups(preset)
    root = data_folder(data)
    fabric = fabric_on(machine)
    # a partial, for Fabric does not pass frozen dataclasses on to the processes that it starts
    fabric.launch(partial(_all_runs, name=experiment.name, setups=setups, seeds=seeds, out=out, root=root, progress=progress))
    results = Results({name: [_folder(out, name, seed).read() for seed in range(seeds)] for name in setups})
    text = _report(experiment, preset, results, seeds)
    write_text(out / "table.txt", text + "\n")
    write_text(out / "results.csv", _tidy(results))
    seconds = sum(run.seconds for runs in results.runs.values() for run in runs)
    write_text(
        out / "run.json",
        json.dumps(about(_command(experiment, preset, seeds, machine), seeds, machine, seconds), indent=1) + "\n",
    )
    experiment.figures(results, out)
    return text


def fabric_on(machine: Machine) -> Any:
    """Lightning Fabric, not yet launched."""
    needs("lightning", "experiments")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the import itself is not always clean
        from lightning.fabric import Fabric
    return Fabric(
        accelerator=machine.accelerator,
        devices=machine.processes if machine.processes > 1 else 1,
        strategy="ddp_spawn" if machine.processes > 1 else "auto",
        precision=machine.precision,  # pyright: ignore[reportArgumentType]
    )


def _all_runs(fabric: Any, name: str, setups: dict[str, Setup], seeds: int, out: Path, root: Path, progress: bool) -> None:
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


def _report(experiment: Experiment, preset: Preset, results: Results, seeds: int) -> str:
    """The table, and each claim with its verdict."""
    columns = (*COLUMNS, *experiment.columns)
    rows = experiment.table_rows(results)
    published = {measure for row in rows.values() for measure in row.published}
    cells = [["", *(part for measure in columns for part in [entry(measure).symbol, *["published"] * (measure in published)])]]
    for label, row in rows.items():
        line = [label]
        for measure in columns:
            line.append(entry(measure).over_seeds(results.values(row, measure)))
            if measure in published:
                line.append(entry(measure).published(row.published[measure]) if measure in row.published else "")
        cells.append(line)
    lines = [f"{experiment.name} ({preset}), {seeds} seeds: {experiment.question}", "", *ruled(cells)]
    lines += ["", *experiment.remarks(results)] if experiment.remarks(results) else []
    for title, beyond in (("Claims", False), ("Beyond the paper", True)):
        claims = [claim for claim in experiment.claims if claim.beyond == beyond]
        lines += ["", f"{title}:"] if claims else []
        for claim in claims:
            verdict, count = claim.verdict(results.by_seed)
            lines.append(f"{verdict.upper():>9}  {claim.text} ({count} of {seeds} seeds; rule: {claim.rule})")
    return "\n".join(lines)


def _tidy(results: Results) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["condition", "seed", "step", "measure", "value"])
    for condition, runs in results.runs.items():
        for seed, run in enumerate(runs):
            for measure in run.measures:
                for step, value in zip(run.steps.tolist(), run[measure].tolist(), strict=True):
                    if value == value:
                        writer.writerow([condition, seed, step, measure, f"{value:.7g}"])
    return text.getvalue()


def _command(experiment: Experiment, preset: Preset, seeds: int, machine: Machine) -> str:
    """The command that gives these results again."""
    default = Machine()
    words = ["lazyrich", "run", experiment.name, "--preset", preset, "--seeds", str(seeds)]
    for name in ("accelerator", "processes", "precision"):
        if getattr(machine, name) != getattr(default, name):
            words += [f"--{name}", str(getattr(machine, name))]
    return " ".join(words)


def about(command: str, seeds: int, machine: Machine, seconds: float) -> dict[str, Any]:
    """What a reader of the results must know: command, machine, versions."""
    from importlib.metadata import version

    import torch

    device = torch.cuda.get_device_name() if torch.cuda.is_available() and machine.accelerator != "cpu" else "CPU"
    return {
        "command": command,
        "seeds": seeds,
        "seconds": round(seconds, 1),
        "device": device,
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "processes": machine.processes,
        "precision": machine.precision,
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("lazyrich", "torch", "numpy", "lightning")},
        },
    }
