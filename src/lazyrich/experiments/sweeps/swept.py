"""What a sweep has planned and what came of it, as a table and as numbers."""

from __future__ import annotations

import csv
import io
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..._support.text import ruled
from ...results.catalogue import entry
from ..experiment import Experiment, Preset
from ..run import COLUMNS
from ..runs import Run, RunFolder
from ..setup import Setup
from .grid import Point
from .on_ray import Cluster, Outcome

SHOWN = 20  # failures in the text; sweep.json has all


@dataclass(frozen=True)
class Planned:
    """One run of a sweep."""

    point: Point
    condition: str
    seed: int
    setup: Setup
    folder: RunFolder


@dataclass(frozen=True)
class Swept:
    """What came of a sweep.

    Attributes:
        table: a line for each point and condition, and what failed; ``str`` gives it.
        runs: how many there are.
        failed: run -> its error.
        lost: run -> how often its process or machine was lost; it was taken up again from its last checkpoint.
    """

    table: str
    runs: int
    failed: Mapping[str, str]
    lost: Mapping[str, int]

    def __str__(self) -> str:
        return self.table


def table_text(
    experiment: Experiment, preset: Preset, planned: Mapping[str, Planned], read: Mapping[str, Run], outcome: Outcome
) -> str:
    """A line for each point and condition, mean and sd over its seeds that are whole; then what was lost and what failed.

    A field that has one value at all points is said above.
    """
    columns = (*COLUMNS, *experiment.columns)
    lines: dict[tuple[Point, str], list[Run]] = {}
    for name, run in planned.items():
        lines.setdefault((run.point, run.condition), []).extend([read[name]] if name in read else [])
    points = [point.cells for point, _ in lines]
    names = [name for name, value in points[0].items() if any(point[name] != value for point in points)]
    same = ", ".join(f"{name}={value}" for name, value in points[0].items() if name not in names)
    cells = [[*names, "condition", "seeds", *(entry(measure).symbol for measure in columns)]]
    for (point, condition), runs in lines.items():
        values = [entry(measure).over_seeds([run.last(measure) for run in runs]) for measure in columns]
        cells.append([*(point.cells[name] for name in names), condition, str(len(runs)), *values])
    text = [
        f"{experiment.name} ({preset}), {len(planned)} runs: {experiment.question}",
        *([f"everywhere {same}"] if same else []),
        "",
        *ruled(cells),
    ]
    again = [name for name in outcome.lost if name not in outcome.failed]
    if again:
        text += ["", "Their process or machine was lost, and they were taken up again:", *(f"  {name}" for name in again[:SHOWN])]
        text += [f"  and {len(again) - SHOWN} more, which sweep.json names"] if len(again) > SHOWN else []
    if outcome.failed:
        text += ["", f"Failed, {len(outcome.failed)} of {len(planned)} runs:"]
        text += [f"  {name}: {error.removeprefix(name + ': ')}" for name, error in list(outcome.failed.items())[:SHOWN]]
        text += [f"  and {len(outcome.failed) - SHOWN} more, which sweep.json names"] if len(outcome.failed) > SHOWN else []
    return "\n".join(text)


def tidy(planned: Mapping[str, Planned], read: Mapping[str, Run]) -> str:
    """All numbers as CSV, one in a row."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = list(next(iter(planned.values())).point.cells)
    writer.writerow([*names, "condition", "seed", "step", "measure", "value"])
    for name, run in read.items():
        where = [*planned[name].point.cells.values(), planned[name].condition, planned[name].seed]
        for measure in run.measures:
            for step, value in zip(run.steps.tolist(), run[measure].tolist(), strict=True):
                if value == value:
                    writer.writerow([*where, step, measure, f"{value:.7g}"])
    return text.getvalue()


def command_line(
    experiment: Experiment,
    preset: Preset,
    grid: Sequence[str],
    conditions: Sequence[str],
    seeds: int,
    cluster: Cluster,
    precision: str,
) -> str:
    """The command that gives these results again."""
    words = ["lazyrich", "sweep", experiment.name]
    for option, values in (("--grid", grid), ("--conditions", conditions)):
        words += [option, *values] if values else []
    words += ["--preset", preset, "--seeds", str(seeds)]
    options: dict[str, tuple[Any, Any]] = {
        "--cpus-per-run": (cluster.cpus_per_run, 1),
        "--gpus-per-run": (cluster.gpus_per_run, 0.0),
        "--precision": (precision, "32-true"),
    }
    for option, (value, default) in options.items():
        words += [option, str(value)] if value != default else []
    return shlex.join(words)
