"""An experiment over a grid of settings, its runs spread over processes and machines by Ray."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import torch

from ..._support.extras import wants
from ..._support.files import folder_name, write_text
from ..._support.progress import Bar, progress_bar
from ..._support.resume import check_free
from ..._support.text import did_you_mean
from ...errors import DataError
from ..experiment import Experiment, Preset
from ..ingredients.images import data_folder
from ..run import Machine, about, fabric_on
from ..runs import Run, RunFolder, holds_runs
from ..setup import Setup
from ..training import train
from .grid import Point, read_grid
from .on_ray import Cluster, Outcome, run_jobs
from .swept import Planned, Swept, command_line, table_text, tidy


def sweep_experiment(
    experiment: Experiment,
    preset: Preset,
    out: Path,
    *,
    grid: Sequence[str] = (),
    conditions: Sequence[str] = (),
    seeds: int = 3,
    resume: bool = False,
    data: Path | None = None,
    cluster: Cluster | None = None,
    precision: str = "32-true",
    progress: bool = False,
) -> Swept:
    """Runs the conditions with seeds 0 … ``seeds`` - 1 at every point of a grid, each run a task of Ray.

    ``out`` then holds ``table.txt``, ``results.csv`` (tidy: the fields of the grid, condition, seed, step, measure, value),
    ``sweep.json`` (command, grid, versions, what failed), and below ``runs/`` a folder for each run. A run that fails does not
    stop the others.

    Args:
        out: on a disk that all machines share.
        grid: ``field=value,value…`` with dotted names of :class:`Setup`; see :func:`~lazyrich.experiments.grid.read_grid`.
        conditions: which of the experiment's; none means all.
        resume: go on with what ``out`` holds; runs that are whole are not run again, those that failed are.
        data: the data folder, for all machines; by default what ``LAZYRICH_DATA`` names, else the user's cache.
        cluster: by default this machine, one core a run.

    Raises:
        DataError: a grid or conditions that there are not; data that are missing or damaged; ``out`` holds other runs, or runs
            and no ``resume``, or another sweep is at work there; no cluster answers.
        KeyboardInterrupt: stopped by Ctrl-C, or asked to end (SIGTERM); says how many runs are whole.
        MissingExtraError: ``lazyrich[ray]`` is not installed.
    """
    if seeds < 1:
        raise ValueError(f"seeds must be at least 1, got {seeds}")
    cluster, out, root = cluster or Cluster(), out.resolve(), data_folder(data).resolve()
    machine = Machine("gpu" if cluster.gpus_per_run else "cpu", precision=precision)
    points = read_grid(grid, _chosen(experiment.setups(preset), conditions))
    for module in ("ray", "filelock", "lightning"):  # the runs import it
        wants(module, "ray")
    check_free(out, holds_runs(out), resume, "runs")
    planned = {run.folder.name: run for run in _planned(points, seeds, out)}
    with _alone(out):
        open_runs = {name: run for name, run in planned.items() if not run.folder.done}
        _have_data(open_runs, root)
        for run in planned.values():
            run.folder.claim(run.setup, run.seed)
        outcome = Outcome()
        if open_runs:
            jobs = {name: (run, root, machine, cluster.cpus_per_run) for name, run in open_runs.items()}
            total = sum(run.setup.steps for run in planned.values())
            done, text = sum(map(_steps, planned.values())), f"{experiment.name}: {len(planned)} runs"
            with progress_bar(progress, total=total, text=text, unit=" steps", done=done) as bar:
                bar.note("waiting for Ray")
                watch = _Watch(planned, bar, done) if progress else _unwatched
                try:
                    outcome = run_jobs(_train, jobs, cluster, watch)
                except KeyboardInterrupt as stop:
                    whole = sum(run.folder.done for run in planned.values())
                    raise KeyboardInterrupt(
                        f"{whole} of {len(planned)} runs are complete; resume=True continues the others"
                    ) from stop
        read = _read(planned, outcome)
        outcome.failed = {name: outcome.failed[name] for name in planned if name in outcome.failed}
        table = table_text(experiment, preset, planned, read, outcome)
        write_text(out / "table.txt", table + "\n")
        write_text(out / "results.csv", tidy(planned, read))
        command = command_line(experiment, preset, grid, conditions, seeds, cluster, precision)
        facts = about(command, seeds, machine, sum(run.seconds for run in read.values()))
        facts |= {"threads": cluster.cpus_per_run, "versions": facts["versions"] | {"ray": outcome.version}}
        facts |= {
            "points": [dict(p.values) for p in points],
            "runs": len(planned),
            "failed": outcome.failed,
            "lost": outcome.lost,
        }
        write_text(out / "sweep.json", json.dumps(facts, indent=1) + "\n")
    return Swept(table, len(planned), outcome.failed, outcome.lost)


def _train(run: Planned, root: Path, machine: Machine, threads: int) -> None:
    """One run from its start or its last checkpoint, in a process of its own on some machine."""
    if not (run.folder.path / "setup.json").is_file():
        raise DataError(f"a machine of the cluster does not see {run.folder.path}: out= must be on a shared disk")
    from filelock import FileLock

    torch.set_num_threads(threads)
    with FileLock(run.folder.path / "lock"):  # a process that was given up may be at work still
        if run.folder.done:
            return
        fabric = fabric_on(machine)
        fabric.launch()
        with progress_bar(False, total=None, text="", unit="") as bar:
            train(run.setup, run.setup.data.load(run.seed, root), run.seed, run.folder, fabric, bar)


class _Watch:
    """Shows how far the runs have come, as their folders tell."""

    def __init__(self, planned: Mapping[str, Planned], bar: Bar, shown: int) -> None:
        self.open = dict(planned)
        self.bar, self.whole, self.shown, self.said = bar, 0, shown, ""

    def __call__(self, outcome: Outcome) -> None:
        for name in [name for name, run in self.open.items() if run.folder.done or name in outcome.failed]:
            self.whole += self.open.pop(name).setup.steps
        steps = self.whole + sum(map(_steps, self.open.values()))
        self.bar.update(steps - self.shown)
        self.shown = steps
        counts = {"to go": len(self.open), "failed": len(outcome.failed), "taken up again": sum(outcome.lost.values())}
        said = ", ".join(f"{count} {what}" for what, count in counts.items() if count)
        if said != self.said:  # a bar is drawn anew whenever it is told something
            self.bar.note(said)
        self.said = said


def _unwatched(outcome: Outcome) -> None:
    return None


def _steps(run: Planned) -> int:
    """At which step a run was last looked at."""
    if run.folder.done:
        return run.setup.steps
    with suppress(DataError):  # the run itself says what is wrong
        series = run.folder.series.read()
        return int(series.steps[-1]) if len(series) else 0
    return 0


def _have_data(runs: Mapping[str, Planned], root: Path) -> None:
    """Data that are missing or damaged are said, or had, once and before anything starts, not by every run."""
    seen = []
    for run in runs.values():
        if run.setup.data not in seen:
            run.setup.data.load(0, root)
            seen.append(run.setup.data)


@contextmanager
def _alone(out: Path) -> Iterator[None]:
    from filelock import FileLock, Timeout

    out.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(out / "sweep.lock", timeout=0):
            yield
    except Timeout as error:
        raise DataError(f"another sweep is at work in {out}: wait until it ends, stop it, or choose another out=") from error


def _chosen(setups: dict[str, Setup], conditions: Sequence[str]) -> dict[str, Setup]:
    for name in conditions:
        if name not in setups:
            hint = did_you_mean(name, setups)
            raise DataError(f"conditions: no condition {name!r}{hint} There are: {', '.join(map(repr, setups))}")
    return {name: setup for name, setup in setups.items() if name in conditions or not conditions}


def _planned(points: Mapping[Point, Mapping[str, Setup]], seeds: int, out: Path) -> Iterator[Planned]:
    """Seed by seed, so that a sweep that is stopped has all points for the first seeds."""
    for seed in range(seeds):
        for point, setups in points.items():
            for condition, setup in setups.items():
                path = out / "runs" / point.folder / folder_name(condition) / f"seed-{seed}"
                name = ", ".join(part for part in (str(point), condition, f"seed {seed}") if part)
                yield Planned(point, condition, seed, setup, RunFolder(path, name))


def _read(planned: Mapping[str, Planned], outcome: Outcome) -> dict[str, Run]:
    """The runs that are whole; one that is damaged has failed."""
    read = {}
    for name, run in planned.items():
        if name in outcome.failed:
            continue
        try:
            read[name] = run.folder.read()
        except DataError as error:
            outcome.failed[name] = str(error)
    return read
