"""Check the published record: ``python -m lazyrich.experiments.check results/``.

Every cell of every table and every verdict is computed again from ``results.csv``; every verdict must be in the register; every
decimal in the page of an experiment must be a number of the record or of the set-up.

A page lists its decimals at its end, in a comment ``<!-- record … -->`` with a line for each:
``0.332 = quick | batch norm, cross-entropy | low_rank``. On the right are preset, row and measure; the row is one of the table,
``condition @ step``, ``condition at equal loss`` or ``condition at equal accuracy``. The value is the mean over seeds, or after
one more ``|`` their ``sd``, ``min`` or ``max``, or one of them: ``seed 0``. ``published`` in place of the preset is the published
figure of the row. A page about several experiments names them before the preset:
``0.604 = encoded-mnist quick | last layer only @ 0 | low_rank``. The rank correlation of D_LR with the training loss has the row
``rank correlation`` and in place of the measure network, data set and loss.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np

from .._support.spread import mean_and_sd
from ..results.catalogue import entry
from . import EXPERIMENTS
from .experiment import Experiment, Preset, Results, Row
from .fit import correlations
from .recorded import FORMER_SYMBOLS, Block, Table, read_results, read_table
from .register import Register, read_register
from .table import AT_EQUAL_FIT, COLUMNS, SECOND_HAND, TITLES, all_remarks, fits

DECIMAL = re.compile(r"(?<![\w.,])\d[\d,]*\.\d+(?![\w.]*\w)")
NOT_PROSE = re.compile(r"```.*?```|<!--.*?-->|--8<--.*?$|\]\([^)]*\)|`[^`\n]*`", re.DOTALL | re.MULTILINE)
RECORD = re.compile(r"<!-- record\n(.*?)-->", re.DOTALL)


@dataclass
class Found:
    """What was checked, and what is wrong."""

    cells: int = 0
    verdicts: int = 0
    decimals: int = 0
    not_judged: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def check(results: Path, pages: Path | None = None, register: Register | None = None) -> Found:
    """Check all results below a folder, ``PRESET/NAME/table.txt``, and the pages ``NAME.md`` in another."""
    found = Found()
    register = register or read_register()
    records: dict[str, dict[str, Results]] = {}  # experiment -> preset -> runs
    for path in sorted(results.glob("*/*/table.txt")):
        name, preset = path.parent.name, path.parent.parent.name
        if name not in EXPERIMENTS or preset not in EXPERIMENTS[name].presets:
            continue
        experiment, table = EXPERIMENTS[name], read_table(path)
        runs = read_results(path.parent, list(experiment.setups(preset)))
        records.setdefault(name, {})[preset] = runs
        problems = (
            *_cells(experiment, table.block, runs, found),
            *_fits(experiment, preset, table, runs, found),
            *_claims(experiment, preset, table, runs, register, found),
        )
        for problem in problems:
            found.problems.append(f"{path}: {problem}")
    for page in sorted(pages.glob("*.md")) if pages else ():
        if page.stem in records or (page.stem not in EXPERIMENTS and RECORD.search(page.read_text(encoding="utf-8"))):
            found.problems += [f"{page}: {problem}" for problem in _decimals(page, records, found)]
    return found


def _cells(experiment: Experiment, block: Block, results: Results, found: Found) -> Iterator[str]:
    rows = experiment.table_rows(results)
    symbols = {entry(measure).symbol: measure for measure in (*COLUMNS, *experiment.columns)}
    symbols = {**{symbol: measure for symbol, measure in FORMER_SYMBOLS.items() if symbol not in symbols}, **symbols}
    for label, cells in block.rows.items():
        if label not in rows:
            yield f"the experiment has no row {label!r}"
            continue
        measure = ""
        for column, cell in zip(block.columns, cells, strict=True):
            found.cells += 1
            if column == "published":
                figure = rows[label].published.get(measure)
                again = "" if figure is None else entry(measure).published(figure)
                same = cell == again
            elif column not in symbols:
                yield f"no measure has the heading {column!r}"
                continue
            else:
                measure = symbols[column]
                values = results.values(rows[label], measure)
                again = entry(measure).over_seeds(values)
                same = _is_mean_of(cell, measure, values)
            if not same:
                yield f"{label}, {column}: the table has {cell or 'nothing'}, and results.csv gives {again or 'nothing'}"


def _fits(experiment: Experiment, preset: Preset, table: Table, results: Results, found: Found) -> Iterator[str]:
    again = fits(experiment, preset, results)
    symbols = {entry(measure).symbol: measure for measure in AT_EQUAL_FIT}
    if table.fits and list(again) != [block.title for block in table.fits]:  # tables of before have none
        yield f"the tables at equal fit are {list(again)}, and the file has {[block.title for block in table.fits]}"
        return
    for block in table.fits:
        values = again[block.title]
        if list(values) != list(block.rows):
            yield f"{block.title}: the rows are {list(values)}, and the file has {list(block.rows)}"
            continue
        for label, cells in block.rows.items():
            for column, cell in zip(block.columns, cells, strict=True):
                found.cells += 1
                measure = symbols.get(column)
                if measure is None or not _is_mean_of(cell, measure, values[label][measure]):
                    yield f"{block.title}: {label}, {column}: results.csv does not give {cell or 'nothing'}"


def _is_mean_of(cell: str, measure: str, values: np.ndarray) -> bool:
    """Whether a cell is the rounded mean and standard deviation, up to the seven digits of results.csv."""
    again = entry(measure).over_seeds(values)
    if cell == again:
        return True
    scale = 100 if "%" in entry(measure).format else 1
    numbers = [re.findall(r"-?\d+\.?\d*", text) for text in (cell, again)]
    if "-" in (cell, again) or len(numbers[0]) != len(numbers[1]):
        return False
    mean_sd = [float(value) for value in mean_and_sd(values)]
    return all(_rounds_to(text, scale * value) for text, value in zip(numbers[0], mean_sd, strict=False))


def _rounds_to(text: str, value: float) -> bool:
    digits = len(text.partition(".")[2])
    return abs(float(text.replace(",", "")) - value) <= 0.5 * 10.0**-digits + 1e-6 * abs(value) + 1e-12


def _claims(
    experiment: Experiment, preset: Preset, table: Table, results: Results, register: Register, found: Found
) -> Iterator[str]:
    for remark in table.remarks:
        if remark not in (SECOND_HAND, *all_remarks(experiment, preset, results)):
            yield f"the experiment does not give the remark {remark!r}"
    listed: set[str] = set()
    for line in table.claims:
        claim = next((c for c in (*experiment.claims, *experiment.former) if (c.text, c.rule) == (line.text, line.rule)), None)
        if claim is None:
            yield f"the experiment has no claim {line.text!r} with the rule {line.rule!r}"
            continue
        found.verdicts += 1
        if claim.curves:
            found.not_judged.append(f"{experiment.name} ({preset}): {claim.text}")
        else:
            verdict, count = claim.verdict(results.by_seed)
            if (count, len(results.seeds)) != (line.holds, line.of) or line.verdict not in ("exploratory", verdict):
                yield f"{line.text!r} is {line.verdict} ({line.holds} of {line.of}), and results.csv gives {verdict} ({count})"
        judged = register.judged(experiment.name, preset, claim, results.seeds)
        listed |= {verdict.claim for verdict in judged}
        if line.verdict != "exploratory" and not judged:
            yield f"the verdict on {line.text!r} is not in the register"
        for last in judged[-1:]:
            if (last.holds, last.of) != (line.holds, line.of) or line.verdict not in ("exploratory", last.verdict):
                there = f"{last.verdict} ({last.holds} of {last.of})"
                yield f"{line.text!r} is {line.verdict} ({line.holds} of {line.of}) in the table, and {there} in the register"
    of_this = {e.id: e for e in register.claims if (e.experiment, e.preset) == (experiment.name, preset)}
    verdicts = [verdict for e in of_this.values() for verdict in register.verdicts(e)]
    latest = verdicts and max(verdicts, key=register.entries.index).commit
    for verdict in verdicts:
        if verdict.commit == latest and verdict.claim not in listed:
            yield f"the table does not list {of_this[verdict.claim].text!r}, on which the register has a verdict"


def _decimals(page: Path, records: Mapping[str, Mapping[str, Results]], found: Found) -> Iterator[str]:
    text = page.read_text(encoding="utf-8")
    sources: dict[str, list[str]] = {}
    for line in (line for block in RECORD.findall(text) for line in block.splitlines() if line.strip()):
        decimal, _, source = line.partition(" = ")
        sources.setdefault(decimal.strip(), []).append(source.strip())
    for decimal, of_decimal in sources.items():
        for source in of_decimal:
            try:
                value = _value(source if page.stem not in EXPERIMENTS else f"{page.stem} {source}", records)
            except (KeyError, ValueError, IndexError) as error:
                yield f"no number of the record is {source!r}: {error}"
                continue
            if not _rounds_to(decimal, value):
                yield f"{decimal} is given as {source}, which is {value:.5g}"
    known = set(sources) | (_of_the_setup(EXPERIMENTS[page.stem]) if page.stem in EXPERIMENTS else set())
    for decimal in DECIMAL.findall(NOT_PROSE.sub(" ", text)):
        found.decimals += 1
        if decimal not in known:
            yield f"{decimal} is not in the list at the end of the page"


def _value(source: str, records: Mapping[str, Mapping[str, Results]]) -> float:
    where, label, measure, *statistic = (part.strip() for part in source.split("|"))
    name, which = where.split()
    of_presets, experiment = records[name], EXPERIMENTS[name]
    preset = cast(Preset, which if which in of_presets else next(iter(of_presets)))
    results = of_presets[preset]
    if label == "rank correlation":
        return correlations(results, experiment.setups(preset))[measure]
    factor = 100 if "%" in entry(measure).format else 1
    condition, _, step = label.partition(" @ ")
    equal, _, fit = label.partition(" at equal ")
    if fit:
        values = factor * fits(experiment, preset, results)[TITLES[f"train_{fit}"]][equal][measure]
    else:
        row = (
            Row(condition, {}, lambda run: run.steps.tolist().index(int(step))) if step else experiment.table_rows(results)[label]
        )
        if which == "published":
            return row.published[measure] * factor
        values = factor * results.values(row, measure)
    kind, _, seed = (statistic[0] if statistic else "mean").partition(" ")
    if kind == "seed":
        return float(values[results.seeds.index(int(seed))])
    mean, sd = mean_and_sd(values)
    return float({"mean": mean, "sd": sd, "min": values.min(), "max": values.max()}[kind])


def _of_the_setup(experiment: Experiment) -> set[str]:
    """The decimals of the set-ups, of the rules and of the published figures, as they would be typed."""
    parts = [setup.to_dict() for preset in experiment.presets for setup in experiment.setups(preset).values()]
    numbers = {text for value in _numbers(parts) for text in (f"{value:g}", str(value))}
    words = " ".join(f"{claim.text} {claim.rule}" for claim in (*experiment.claims, *experiment.former))
    return numbers | set(DECIMAL.findall(words))


def _numbers(part: Any) -> Iterator[float]:
    if isinstance(part, Mapping):
        part = list(part.values())
    if isinstance(part, (list, tuple)):
        for item in part:
            yield from _numbers(item)
    elif isinstance(part, float):
        yield part


def main(results: str = "results") -> int:
    """Print what was checked and what is wrong; 1 if anything is."""
    root = Path(results)
    found = check(root, root.parent / "docs" / "experiments")
    for problem in found.problems:
        print(problem)  # noqa: T201
    print(f"{found.cells:,} cells, {found.verdicts} verdicts, {found.decimals} decimals; {len(found.problems)} problems")  # noqa: T201
    for claim in found.not_judged:
        print(f"not judged again, because results.csv does not hold the curves that its rule reads: {claim}")  # noqa: T201
    return int(bool(found.problems))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:2]))
