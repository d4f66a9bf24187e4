"""An experiment over a grid of settings, with its runs spread over processes and machines by Ray."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from ..._support.extras import wants
from ..._support.files import folder_name, write_text
from ..._support.progress import Bar, progress_bar
from ..._support.resume import check_free
from ...errors import DataError
from ..experiment import Experiment, Preset, chosen
from ..ingredients.images import data_folder
from ..ingredients.seeds import Seeds, seed_numbers, typed_seeds
from ..machine import Machine, create_fabric
from ..record import command_line, facts
from ..run_folder import Run, RunFolder, holds_runs
from ..setup import Setup
from ..training import train
from .grid import Point, read_grid
from .on_ray import Cluster, Outcome, run_jobs
from .swept import Planned, Swept, sweep_csv, sweep_text


def sweep_experiment(
    experiment: Experiment,
    preset: Preset,
    out: Path,
    *,
    grid: Sequence[str] = (),
    conditions: Sequence[str] = (),
    seeds: Seeds = 3,
    resume: bool = False,
    data: Path | None = None,
    cluster: Cluster | None = None,
    precision: str = "32-true",
    progress: bool = False,
) -> Swept:
    """Run the conditions with every seed at every point of a grid; each run is a task of Ray.

    ``out`` then holds ``table.txt``, ``results.csv`` (fields of the grid, condition, seed, step, measure, value: one number in
    each row), ``sweep.json`` (command, grid, versions, failures), and in ``runs/`` a folder for each run. A run that fails does
    not stop the others.

    Args:
        out: folder for the results, on a disk that all machines share.
        grid: ``field=value,value…`` with dotted names of :class:`Setup`; see
            :func:`~lazyrich.experiments.sweeps.grid.read_grid`.
        conditions: some of the experiment's conditions; by default all.
        seeds: a count N, which means 0 to N - 1, or seed numbers; see
            :func:`~lazyrich.experiments.ingredients.seeds.seed_numbers`.
        resume: continue the runs in ``out``: complete runs are not run again, failed runs are.
        data: folder of the data sets on all machines; by default ``LAZYRICH_DATA``, else the user's cache.
        cluster: where to run; by default this machine, with one core for each run.
        precision: of training, as Lightning Fabric takes it.
        progress: show a progress bar.

    Raises:
        DataError: an unknown field or condition; data that are missing or damaged; ``out`` holds runs and ``resume`` is False,
            or runs with another setup, or another sweep uses it; no cluster answers.
        KeyboardInterrupt: stopped by Ctrl-C or SIGTERM; the message gives the number of complete runs.
        MissingExtraError: ``lazyrich[ray]`` is not installed.
    """
    numbers = seed_numbers(seeds)
    cluster, out, root = cluster or Cluster(), out.resolve(), data_folder(data).resolve()
    machine = Machine("gpu" if cluster.gpus_per_run else "cpu", precision=precision)
    points = read_grid(grid, chosen(experiment.setups(preset), conditions))
    for module in ("ray", "filelock", "lightning"):  # the runs import it
        wants(module, "ray")
    check_free(out, holds_runs(out), resume, "runs")
    planned = {run.folder.name: run for run in _planned(points, numbers, out)}
    with _alone(out):
        _load_once([run.setup for run in planned.values() if not run.folder.done], root)
        for run in planned.values():
            run.folder.claim(run.setup, run.seed)
        outcome = _run(experiment.name, planned, root, machine, cluster, progress)
        complete = _read(planned, outcome)
        outcome.failed = {name: outcome.failed[name] for name in planned if name in outcome.failed}
        table = sweep_text(experiment, preset, planned, complete, outcome)
        options = {"grid": (grid, ()), "conditions": (conditions, ()), "preset": (preset, None)}
        options["seeds"] = (typed_seeds(numbers), None)
        options |= _changed(cluster, "cpus_per_run", "gpus_per_run") | _changed(machine, "precision")
        command = command_line("sweep", experiment.name, options)
        seconds, setups = sum(run.seconds for run in complete.values()), [run.setup for run in planned.values()]
        about = facts(command, numbers, machine, seconds, setups, root)
        about |= {"threads": cluster.cpus_per_run, "versions": about["versions"] | {"ray": outcome.version}}
        about |= {"points": [dict(point.values) for point in points], "runs": len(planned)}
        about |= {"failed": outcome.failed, "lost": outcome.lost}
        write_text(out / "table.txt", table + "\n")
        write_text(out / "results.csv", sweep_csv(planned, complete))
        write_text(out / "sweep.json", json.dumps(about, indent=1) + "\n")
    return Swept(table, len(planned), outcome.failed, outcome.lost)


def _changed(options: Any, *names: str) -> dict[str, tuple[Any, Any]]:
    """Name -> (value, default) of some fields of a dataclass whose fields all have defaults."""
    values, defaults = asdict(options), asdict(type(options)())
    return {name: (values[name], defaults[name]) for name in names}


def _run(name: str, planned: Mapping[str, Planned], root: Path, machine: Machine, cluster: Cluster, progress: bool) -> Outcome:
    """Start the runs that are not complete, and wait for them."""
    jobs = {job: (run, root, machine, cluster.cpus_per_run) for job, run in planned.items() if not run.folder.done}
    if not jobs:
        return Outcome()
    total, done = sum(run.setup.steps for run in planned.values()), sum(map(_steps_done, planned.values()))
    with progress_bar(progress, total=total, text=f"{name}: {len(planned)} runs", unit=" steps", done=done) as bar:
        bar.note("waiting for Ray")
        watch = _Watch(planned, bar, done) if progress else _unwatched
        try:
            return run_jobs(_train, jobs, cluster, watch)
        except KeyboardInterrupt as stop:
            complete = sum(run.folder.done for run in planned.values())
            raise KeyboardInterrupt(f"{complete} of {len(planned)} runs are complete; resume=True continues the others") from stop


def _train(run: Planned, root: Path, machine: Machine, threads: int) -> None:
    """Do one run, from its start or its last checkpoint, in its own process on some machine."""
    if not (run.folder.path / "setup.json").is_file():
        raise DataError(f"a machine of the cluster does not see {run.folder.path}: out= must be on a shared disk")
    from filelock import FileLock

    torch.set_num_threads(threads)
    with FileLock(run.folder.path / "lock"):  # a process that Ray considers lost may still be running
        if run.folder.done:
            return
        fabric = create_fabric(machine)
        fabric.launch()
        with progress_bar(False, total=None, text="", unit="") as bar:
            train(run.setup, run.setup.data.load(run.seed, root), run.seed, run.folder, fabric, bar)


class _Watch:
    """Show the progress of the runs, which it reads from their folders."""

    def __init__(self, planned: Mapping[str, Planned], bar: Bar, shown: int) -> None:
        self.open = dict(planned)
        self.bar, self.complete, self.shown, self.note = bar, 0, shown, ""

    def __call__(self, outcome: Outcome) -> None:
        for name in [name for name, run in self.open.items() if run.folder.done or name in outcome.failed]:
            self.complete += self.open.pop(name).setup.steps
        steps = self.complete + sum(map(_steps_done, self.open.values()))
        self.bar.update(steps - self.shown)
        self.shown = steps
        counts = {"to go": len(self.open), "failed": len(outcome.failed), "restarted": sum(outcome.lost.values())}
        note = ", ".join(f"{count} {what}" for what, count in counts.items() if count)
        if note != self.note:  # every note redraws the bar
            self.bar.note(note)
        self.note = note


def _unwatched(outcome: Outcome) -> None:
    return None


def _steps_done(run: Planned) -> int:
    """The step of the last evaluation."""
    if run.folder.done:
        return run.setup.steps
    with suppress(DataError):  # the run itself reports a damaged file
        series = run.folder.series.read()
        return int(series.steps[-1]) if len(series) else 0
    return 0


def _load_once(setups: Sequence[Setup], root: Path) -> None:
    """Load each data set once, so that a download or an error comes before the runs start, and not in each of them."""
    loaded = []
    for setup in setups:
        if setup.data not in loaded:
            setup.data.load(0, root)
            loaded.append(setup.data)


@contextmanager
def _alone(out: Path) -> Iterator[None]:
    """Lock the folder against other sweeps."""
    from filelock import FileLock, Timeout

    out.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(out / "sweep.lock", timeout=0):
            yield
    except Timeout as error:
        raise DataError(f"another sweep uses {out}: wait until it ends, stop it, or pass another out=") from error


def _planned(points: Mapping[Point, Mapping[str, Setup]], seeds: Sequence[int], out: Path) -> Iterator[Planned]:
    """The runs seed by seed, so that a sweep that is stopped has all points for the first seeds."""
    for seed in seeds:
        for point, setups in points.items():
            for condition, setup in setups.items():
                path = out / "runs" / point.folder / folder_name(condition) / f"seed-{seed}"
                name = ", ".join(part for part in (str(point), condition, f"seed {seed}") if part)
                yield Planned(point, condition, seed, setup, RunFolder(path, name))


def _read(planned: Mapping[str, Planned], outcome: Outcome) -> dict[str, Run]:
    """The complete runs. A run with a damaged file counts as failed."""
    complete = {}
    for name, run in planned.items():
        if name in outcome.failed:
            continue
        try:
            complete[name] = run.folder.read()
        except DataError as error:
            outcome.failed[name] = str(error)
    return complete
