"""What there is to report in a folder: measurements, series and experiments, read into runs with names."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from .._support.files import folder_name, natural
from .._support.stored import read_json
from ..errors import DataError
from ..results.claim_lines import ClaimLine, claim_line
from ..results.names import current_name
from ..results.parts import LayerRichness
from ..results.richness import SCHEMA, Richness, load
from ..results.series import Evaluation, Series, SeriesFolder
from .runs import Layer, Run, Seed, shared_steps

DEPTH = 4
COLUMNS = ("condition", "seed", "step", "measure", "value")
LOOKED_FOR = (
    "results (JSON, as Richness.save and `lazyrich measure` write them) and series (evaluations.jsonl), there and up to "
    f"{DEPTH} folders below, and for the results.csv of experiments"
)


@dataclass(frozen=True)
class Outcome:
    """The outcome of an experiment.

    Attributes:
        name: as its runs name it; "" where the page shows one experiment.
        table: its final table, or None.
        facts: label -> how the runs came about: the command, versions …
    """

    name: str
    table: str | None
    facts: dict[str, str] = field(default_factory=dict)

    @property
    def question(self) -> str:
        """What it asks: the first line of its table, after its name, preset and number of seeds."""
        first, *_ = (self.table or "").splitlines() or [""]
        return first.partition(": ")[2]

    @property
    def claims(self) -> list[ClaimLine]:
        """The claims that its table lists."""
        return [claim for claim in map(claim_line, (self.table or "").splitlines()) if claim is not None]


@dataclass(frozen=True, eq=False)
class Found:
    """Everything that one page shows.

    Attributes:
        title: title of the page.
        runs: at least one.
        experiments: those that the runs belong to; with names if there are several.
    """

    title: str
    runs: tuple[Run, ...]
    experiments: tuple[Outcome, ...] = ()


def measured(name: str, result: Richness) -> Run:
    """A measurement as a run."""
    curves = result.curves()
    curves["relative_eigenvalues"] = curves["relative_eigenvalues"][: result.spectrum.rank]  # those after it are rounding errors
    values = {measure: np.array([value]) for measure, value in result.numbers().items()}
    seed = Seed(np.zeros(1, np.int64), values, lambda index: curves)
    layers = {layer: _layer(of) for layer, of in result.layers.items()}
    return Run(name, (seed,), measured=True, head=result.head, notes=result.notes, verdict=result.verdict, layers=layers)


def find(path: Path) -> Found:
    """Read what ``path``, a folder or a JSON file, holds.

    Raises:
        FileNotFoundError: no such path.
        DataError: nothing to report is there, or a file is damaged; names it.
    """
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist")
    title = path.resolve().name
    if path.is_file():
        return Found(title, (measured(path.stem, load(path)),))
    folders = _experiments(path)
    runs = _measurements(path, folders) + _series(path, folders)
    outcomes = [] if path in folders else [_outcome(path, "")]
    for folder in folders:
        name = _name(path, folder) if folder != path else ""
        runs += [
            replace(run, experiment=name) for run in _measurements(folder) + _series(folder) or _tidy(folder / "results.csv")
        ]
        outcomes.append(_outcome(folder, name))
    if not runs:
        raise DataError(f"nothing to report in {path}: looked for {LOOKED_FOR}")
    return Found(title, tuple(runs), tuple(outcome for outcome in outcomes if outcome.name or outcome.table or outcome.facts))


def _experiments(path: Path) -> list[Path]:
    """The folders with the table of numbers of an experiment, without those inside another one."""
    folders: list[Path] = []
    for folder in _folders(path):
        if (folder / "results.csv").is_file() and not any(outer in folder.parents for outer in folders):
            folders.append(folder)
    return folders


def _outcome(folder: Path, name: str) -> Outcome:
    table = folder / "table.txt"
    text = table.read_text(encoding="utf-8", errors="replace") if table.is_file() else None
    about = next((folder / file for file in ("run.json", "sweep.json") if (folder / file).is_file()), None)
    return Outcome(name, text, {} if about is None else _facts(about))


def _layer(of: LayerRichness) -> Layer:
    half_width = 1.96 * (of.low_rank_stderr or of.reduction_stderr or 0.0)
    return Layer(half_width, of.isotropic, of.balanced)


def _folders(path: Path, without: Sequence[Path] = ()) -> Iterator[Path]:
    """The folder and those below it, in the order of their names; no hidden ones, no links, nothing in those ``without``."""
    for here, below, _ in os.walk(path):
        folder = Path(here)
        if folder in without:
            below.clear()
            continue
        deep = len(folder.relative_to(path).parts) >= DEPTH
        below[:] = [] if deep else sorted((b for b in below if not b.startswith(".") and b != "curves"), key=natural)
        yield folder


def _measurements(path: Path, without: Sequence[Path] = ()) -> list[Run]:
    runs = []
    for folder in _folders(path, without):
        for file in sorted(folder.glob("*.json"), key=lambda f: natural(f.name)):
            if file.name == "richness.json":
                runs.append(measured(_name(path, folder), load(file)))
            elif _is_result(file):
                runs.append(measured("/".join((*folder.relative_to(path).parts, file.stem)), load(file)))
    return runs


def _is_result(file: Path) -> bool:
    """Whether it begins as a result does; the folder may hold other JSON files."""
    with file.open("rb") as raw:
        return SCHEMA.encode() in raw.read(200)


def _series(path: Path, without: Sequence[Path] = ()) -> list[Run]:
    groups: dict[str, dict[str, Series]] = {}
    for folder in _folders(path, without):
        if (folder / "evaluations.jsonl").is_file():
            series = SeriesFolder(folder).read()
            of_seed = re.fullmatch(r"seed-\d+", folder.name)
            name = _name(path, folder.parent if of_seed and folder != path else folder)
            if len(series):
                groups.setdefault(name, {})[folder.name] = series
    csv_path = path / "results.csv"
    titles = {folder_name(name): name for name in _conditions(csv_path)} if csv_path.is_file() else {}
    order = {name: position for position, name in enumerate(titles)}
    runs = []
    for name in sorted(groups, key=lambda n: order.get(folder_name(n), len(order))):
        runs += _together(titles.get(folder_name(name), name), groups[name])
    return runs


def _together(name: str, seeds: dict[str, Series]) -> list[Run]:
    """One run of all seeds if they were measured at the same steps, as far as each has got; otherwise one run for each."""
    shared = shared_steps([series.steps for series in seeds.values()])
    if len(shared) >= min(2, *(len(series) for series in seeds.values())):
        return [Run(name, tuple(map(_seed, seeds.values())))]
    return [Run(f"{name}, {seed}", (_seed(series),)) for seed, series in seeds.items()]


def _seed(series: Series) -> Seed:
    return Seed(series.steps, {name: series[name] for name in series.measures}, series.curves, series.notes)


def _name(path: Path, folder: Path) -> str:
    """The name of a run in ``folder``: the path from ``path`` to there, or the name of ``path`` itself."""
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
            f"{path} is damaged ({error!r}): its columns must be {', '.join(COLUMNS)}, after those of a sweep's grid"
        ) from error


def _condition(row: dict[str, str]) -> str:
    """The condition, and before it the point of a sweep's grid: the columns that an experiment does not have."""
    point = ", ".join(f"{name}={value}" for name, value in row.items() if name and name not in COLUMNS)
    return ", ".join(filter(None, (point, row["condition"])))


def _conditions(path: Path) -> list[str]:
    return list(dict.fromkeys(row[0] for row in _rows(path)))


def _tidy(path: Path) -> list[Run]:
    """The runs of an experiment from its table of numbers alone: without curves."""
    conditions: dict[str, dict[int, dict[int, dict[str, float]]]] = {}
    for condition, seed, step, measure, value in _rows(path):
        conditions.setdefault(condition, {}).setdefault(seed, {}).setdefault(step, {})[measure] = value
    runs = []
    for condition, seeds in conditions.items():
        series = {f"seed-{seed}": Series([Evaluation(s, v) for s, v in sorted(steps.items())]) for seed, steps in seeds.items()}
        runs += _together(condition, series)
    return runs


def _facts(path: Path) -> dict[str, str]:
    """How an experiment or a sweep was run, from its own file."""
    try:
        about = read_json(path)
        facts = {"command": about["command"], "device": about.get("device"), "precision": about.get("precision")}
        facts["versions"] = ", ".join(f"{name} {version}" for name, version in about.get("versions", {}).items())
    except (DataError, KeyError, TypeError, AttributeError):
        return {}  # a file of that name from another program
    return {label: str(value) for label, value in facts.items() if value}
