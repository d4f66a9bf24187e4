"""Published results read back: the numbers of ``results.csv`` as runs, and the cells and claims of ``table.txt``."""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .._support.stored import read_object
from ..errors import DataError
from ..results.claim_lines import ClaimLine, claim_line
from ..results.series import Evaluation, Series
from .experiment import Results
from .ingredients.seeds import seed_numbers
from .run_folder import Run

FORMER_SYMBOLS = {"outputs": "output_alignment", "alignment": "target_alignment", "‖θ-θ₀‖²": "parameter_distance"}


@dataclass(frozen=True)
class Block:
    """Rows below their headings.

    Attributes:
        title: the line above the headings, without its colon, or empty.
        columns: headings.
        rows: label -> cell below each heading.
    """

    title: str
    columns: list[str]
    rows: dict[str, list[str]]


@dataclass(frozen=True)
class Table:
    """A table as it was published.

    Attributes:
        title: its first line.
        block: its rows.
        fits: its rows at equal fit.
        remarks: lines between the rows and the claims.
        claims: the claims.
    """

    title: str
    block: Block
    fits: list[Block]
    remarks: list[str]
    claims: list[ClaimLine]


def read_results(folder: Path, conditions: Sequence[str]) -> Results:
    """The runs in ``results.csv``, without their curves.

    Args:
        folder: of one experiment with one preset.
        conditions: all conditions of the experiment.
    """
    about = read_object(folder / "run.json")
    seeds = seed_numbers(about["seeds"])
    values: dict[tuple[str, int], dict[int, dict[str, float]]] = {}
    with (folder / "results.csv").open(encoding="utf-8", newline="") as file:
        for line in csv.DictReader(file):
            of_run = values.setdefault((line["condition"], int(line["seed"])), {})
            of_run.setdefault(int(line["step"]), {})[line["measure"]] = float(line["value"])
    names = list(dict.fromkeys(name for name, _ in values))
    if {(name, seed) for name in names for seed in seeds} != values.keys():
        raise DataError(f"{folder / 'results.csv'} does not hold every condition with every seed of run.json")
    runs = {name: [_run(values[name, seed], folder) for seed in seeds] for name in names}
    return Results(runs, seeds, complete=set(names) == set(conditions))


def _run(values: dict[int, dict[str, float]], folder: Path) -> Run:
    return Run(Series([Evaluation(step, values[step]) for step in sorted(values)]), folder, 0.0)


def read_table(path: Path) -> Table:
    """The parts of ``table.txt``.

    Raises:
        DataError: it has another form.
    """
    title, *paragraphs = path.read_text(encoding="utf-8").rstrip("\n").split("\n\n")
    blocks, claims, remarks = [], [], []
    for lines in (paragraph.splitlines() for paragraph in paragraphs):
        if any(_is_rule(line) for line in lines):
            blocks.append(_block(lines))
            continue
        for line in lines:
            claim = claim_line(line)
            if claim is not None:
                claims.append(claim)
            elif line not in ("Claims:", "Beyond the paper:"):
                remarks.append(line)
    if not blocks or blocks[0].title:
        raise DataError(f"{path} is no table of an experiment")
    return Table(title, blocks[0], blocks[1:], remarks, claims)


def _is_rule(line: str) -> bool:
    return set(line) == {"─"}


def _block(lines: list[str]) -> Block:
    rule = next(k for k, line in enumerate(lines) if _is_rule(line))
    heading = lines[rule - 1] if rule else ""
    starts = [found.start() for found in re.finditer(r"(?<=  )\S|^\S", heading)]

    def parts(line: str, cuts: list[int]) -> list[str]:
        return [line[a:b].strip() for a, b in zip(cuts, [*cuts[1:], None], strict=True)]

    rows = {label: cells for label, *cells in (parts(line, [0, *starts]) for line in lines[rule + 1 :])}
    return Block("".join(lines[: rule - 1]).removesuffix(":"), parts(heading, starts), rows)
