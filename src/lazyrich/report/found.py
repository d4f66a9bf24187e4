"""What is there to report: measurements, series and experiments below a folder, read as runs with names."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from .._support.files import folder_name, natural
from .._support.stored import read_json
from ..errors import DataError
from ..results.names import current_name
from ..results.richness import SCHEMA, Richness, load
from ..results.series import Evaluation, Series, SeriesFolder

DEPTH = 4
COLUMNS = ("condition", "seed", "step", "measure", "value")
LOOKED_FOR = (
    "results (JSON, as Richness.save and `lazyrich measure` write them) and series (evaluations.jsonl), there and up to "
    f"{DEPTH} folders below, and for an experiment's results.csv"
)


@dataclass(frozen=True, eq=False)
class Run:
    """One line of the report.

    Attributes:
        name: as the reader sees it.
        seeds: one series for each seed; a measurement is a series of one evaluation.
        result: the measurement, where the run is one.
    """

    name: str
    seeds: tuple[Series, ...]
    result: Richness | None = None


@dataclass(frozen=True, eq=False)
class Found:
    """Everything that one page shows.

    Attributes:
        title: names it.
        runs: at least one.
        facts: label -> what is known of the whole: the command, versions …
        table: the table that an experiment ended with, or None.
    """

    title: str
    runs: tuple[Run, ...]
    facts: dict[str, str] = field(default_factory=dict)
    table: str | None = None


def measured(name: str, result: Richness) -> Run:
    """A measurement as a run."""
    curves = result.curves()
    curves["relative_eigenvalues"] = curves["relative_eigenvalues"][: result.spectrum.rank]  # what follows is rounding
    return Run(name, (Series([Evaluation(0, result.numbers(), curves)]),), result)


def find(path: Path) -> Found:
    """Reads what ``path``, a folder or one JSON file, holds.

    Raises:
        FileNotFoundError: no such path.
        DataError: nothing to report is there, or a file is damaged; names it.
    """
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist")
    title = path.resolve().name
    if path.is_file():
        return Found(title, (measured(path.stem, load(path)),))
    runs = _measurements(path) + _series(path)
    if not runs and (path / "results.csv").is_file():
        runs = _tidy(path / "results.csv")
    if not runs:
        raise DataError(f"nothing to report in {path}: looked for {LOOKED_FOR}")
    table = path / "table.txt"
    text = table.read_text(encoding="utf-8", errors="replace") if table.is_file() else None
    about = next((path / name for name in ("run.json", "sweep.json") if (path / name).is_file()), None)
    return Found(title, tuple(runs), {} if about is None else _facts(about), text)


def _folders(path: Path) -> Iterator[Path]:
    """The folder and those below it, in the order of their names; hidden ones and links are left out."""
    for here, below, _ in os.walk(path):
        folder = Path(here)
        deep = len(folder.relative_to(path).parts) >= DEPTH
        below[:] = [] if deep else sorted((b for b in below if not b.startswith(".") and b != "curves"), key=natural)
        yield folder


def _measurements(path: Path) -> list[Run]:
    runs = []
    for folder in _folders(path):
        for file in sorted(folder.glob("*.json"), key=lambda f: natural(f.name)):
            if file.name == "richness.json":
                runs.append(measured(_name(path, folder), load(file)))
            elif _is_result(file):
                runs.append(measured("/".join((*folder.relative_to(path).parts, file.stem)), load(file)))
    return runs


def _is_result(file: Path) -> bool:
    """Whether it begins as a result does; other JSON files may lie about."""
    with file.open("rb") as raw:
        return SCHEMA.encode() in raw.read(200)


def _series(path: Path) -> list[Run]:
    groups: dict[str, dict[str, Series]] = {}
    for folder in _folders(path):
        if (folder / "evaluations.jsonl").is_file():
            series = SeriesFolder(folder).read()
            of_seed = re.fullmatch(r"seed-\d+", folder.name)
            name = _name(path, folder.parent if of_seed and folder != path else folder)
            if len(series):
                groups.setdefault(name, {})[folder.name] = series
    csv_path = path / "results.csv"
    titles = {folder_name(name): name for name in _conditions(csv_path)} if csv_path.is_file() else {}
    order = {name: place for place, name in enumerate(titles)}
    runs = []
    for name in sorted(groups, key=lambda n: order.get(folder_name(n), len(order))):
        runs += _together(titles.get(folder_name(name), name), groups[name])
    return runs


def _together(name: str, seeds: dict[str, Series]) -> list[Run]:
    """Seeds as one run where they were looked at at the same steps, as far as each has come; else each for itself."""
    if len(shared_steps(list(seeds.values()))) >= min(2, *(len(s) for s in seeds.values())):
        return [Run(name, tuple(seeds.values()))]
    return [Run(f"{name}, {seed}", (series,)) for seed, series in seeds.items()]


def shared_steps(seeds: list[Series]) -> np.ndarray:
    """The steps at which every seed that came so far was looked at."""
    steps = np.unique(np.concatenate([s.steps for s in seeds]))
    kept = [np.isin(steps, s.steps) | (steps > s.steps[-1]) for s in seeds]
    return steps[np.all(kept, axis=0)]


def _name(path: Path, folder: Path) -> str:
    """What the reader calls a run in ``folder``: the way there, or the name of ``path`` itself."""
    parts = folder.relative_to(path).parts if folder != path.parent else ()
    parts = parts[1:] if parts[:1] == ("runs",) else parts
    return "/".join(parts) or path.resolve().name


def _rows(path: Path) -> list[tuple[str, int, int, str, float]]:
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = csv.DictReader(file)
            return [(_condition(r), int(r["seed"]), int(r["step"]), current_name(r["measure"]), float(r["value"])) for r in rows]
    except (ValueError, KeyError, TypeError, csv.Error) as error:
        raise DataError(
            f"{path} is damaged ({error!r}): the columns are {', '.join(COLUMNS)}, and before them a sweep's"
        ) from error


def _condition(row: dict[str, str]) -> str:
    """The condition, and before it the point of a sweep's grid: the columns that an experiment does not have."""
    point = ", ".join(f"{name}={value}" for name, value in row.items() if name and name not in COLUMNS)
    return ", ".join(filter(None, (point, row["condition"])))


def _conditions(path: Path) -> list[str]:
    return list(dict.fromkeys(row[0] for row in _rows(path)))


def _tidy(path: Path) -> list[Run]:
    """The runs of an experiment from its table of numbers alone: without curves."""
    found: dict[str, dict[int, dict[int, dict[str, float]]]] = {}
    for condition, seed, step, measure, value in _rows(path):
        found.setdefault(condition, {}).setdefault(seed, {}).setdefault(step, {})[measure] = value
    runs = []
    for condition, seeds in found.items():
        series = {f"seed-{seed}": Series([Evaluation(s, v) for s, v in sorted(steps.items())]) for seed, steps in seeds.items()}
        runs += _together(condition, series)
    return runs


def _facts(path: Path) -> dict[str, str]:
    """What an experiment or a sweep says of how it was run."""
    try:
        about = read_json(path)
        given = {"command": about["command"], "device": about.get("device"), "precision": about.get("precision")}
        versions = ", ".join(f"{name} {version}" for name, version in about.get("versions", {}).items())
    except (DataError, KeyError, TypeError, AttributeError):
        return {}  # another program's file of that name
    return {label: str(value) for label, value in (given | {"versions": versions}).items() if value}
