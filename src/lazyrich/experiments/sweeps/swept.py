"""The runs of a sweep and what came of them: a table, the failures, and all numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..._support.text import ruled
from ...results.catalogue import entry
from ..experiment import Experiment, Preset
from ..record import tidy_csv
from ..run_folder import Run, RunFolder
from ..setup import Setup
from ..table import COLUMNS
from .grid import Point
from .on_ray import Outcome

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
    """The result of a sweep.

    Attributes:
        table: a row for each point and condition, and the failures; ``str`` returns it.
        runs: number of runs.
        failed: run -> its error.
        lost: run -> how often its process or machine was lost; it was restarted from its last checkpoint.
    """

    table: str
    runs: int
    failed: Mapping[str, str]
    lost: Mapping[str, int]

    def __str__(self) -> str:
        return self.table


def sweep_text(
    experiment: Experiment, preset: Preset, planned: Mapping[str, Planned], complete: Mapping[str, Run], outcome: Outcome
) -> str:
    """A row for each point and condition, with mean and standard deviation over its complete seeds; then losses and failures.

    A field with the same value at all points is listed above the table.
    """
    rows: dict[tuple[Point, str], list[Run]] = {}
    for name, run in planned.items():
        rows.setdefault((run.point, run.condition), []).extend([complete[name]] if name in complete else [])
    points = [point.cells for point, _ in rows]
    varied = [name for name, value in points[0].items() if any(point[name] != value for point in points)]
    fixed = ", ".join(f"{name}={value}" for name, value in points[0].items() if name not in varied)
    columns = (*COLUMNS, *experiment.columns)
    cells = [[*varied, "condition", "seeds", *(entry(measure).symbol for measure in columns)]]
    for (point, condition), runs in rows.items():
        values = [entry(measure).over_seeds([run.last(measure) for run in runs]) for measure in columns]
        cells.append([*(point.cells[name] for name in varied), condition, str(len(runs)), *values])
    restarted = [name for name in outcome.lost if name not in outcome.failed]
    failed = [f"{name}: {error.removeprefix(name + ': ')}" for name, error in outcome.failed.items()]
    return "\n".join(
        [
            f"{experiment.name} ({preset}), {len(planned)} runs: {experiment.question}",
            *([f"in all runs {fixed}"] if fixed else []),
            "",
            *ruled(cells),
            *_listed("Restarted from their last checkpoint, because their process or machine was lost:", restarted),
            *_listed(f"Failed, {len(failed)} of {len(planned)} runs:", failed),
        ]
    )


def _listed(heading: str, items: Sequence[str]) -> list[str]:
    if not items:
        return []
    more = [f"  and {len(items) - SHOWN} more, which sweep.json lists"] if len(items) > SHOWN else []
    return ["", heading, *(f"  {item}" for item in items[:SHOWN]), *more]


def sweep_csv(planned: Mapping[str, Planned], complete: Mapping[str, Run]) -> str:
    """All numbers as CSV, one in each row."""
    names = [*next(iter(planned.values())).point.cells, "condition", "seed"]
    runs = [(planned[name], run) for name, run in complete.items()]
    return tidy_csv(names, (([*plan.point.cells.values(), plan.condition, plan.seed], run) for plan, run in runs))
