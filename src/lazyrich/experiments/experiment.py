"""What an experiment is: conditions, published figures, claims with their rules, plots."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from .._support.text import did_you_mean
from ..errors import DataError
from .run_folder import Run
from .setup import Setup

Preset = Literal["quick", "medium", "paper"]
Verdict = Literal["shown", "not shown", "undecided"]
When = Callable[[Run], int]  # the index of an evaluation of a run


def at_the_end(run: Run) -> int:
    """The last evaluation."""
    return -1


@dataclass(frozen=True)
class Row:
    """A row of the final table: a condition at one evaluation, with the published figures if there are any.

    Attributes:
        published: measure -> the figure that the paper reports with its own setup.
        when: the evaluation.
    """

    condition: str
    published: Mapping[str, float] = field(default_factory=dict)
    when: When = at_the_end


@dataclass(frozen=True)
class Claim:
    """A sentence that the runs support or not.

    Attributes:
        text: the claim.
        rule: when one seed supports it, in words; written before the run.
        holds: the rule as a function of the runs of one seed, condition -> run.
        beyond: whether the paper does not make this claim. It is judged in the same way and listed separately.
        conditions: those that the rule reads; empty for all.
        curves: whether the rule reads curves, so that the numbers in ``results.csv`` do not suffice to judge it again.
    """

    text: str
    rule: str
    holds: Callable[[Mapping[str, Run]], bool]
    beyond: bool = False
    conditions: tuple[str, ...] = ()
    curves: bool = False

    def verdict(self, seeds: list[Mapping[str, Run]]) -> tuple[Verdict, int]:
        """*shown* if every seed supports it, *not shown* if fewer than half do, else *undecided*; and how many do."""
        read = [{name: runs[name] for name in self.conditions or runs} for runs in seeds]
        count = sum(bool(self.holds(runs)) for runs in read)
        if count == len(seeds):
            return "shown", count
        return ("not shown" if 2 * count < len(seeds) else "undecided"), count


@dataclass(frozen=True, eq=False)
class Results:
    """The runs of an experiment.

    Attributes:
        runs: condition -> one run for each seed.
        seeds: the seeds, in the order of the runs.
        complete: whether all conditions of the experiment were run.
    """

    runs: Mapping[str, list[Run]]
    seeds: tuple[int, ...]
    complete: bool = True

    @property
    def by_seed(self) -> list[Mapping[str, Run]]:
        """One mapping condition -> run for each seed."""
        return [{name: runs[k] for name, runs in self.runs.items()} for k in range(len(self.seeds))]

    def values(self, row: Row, measure: str) -> np.ndarray:
        """(seeds,) one measure in one row of the table."""
        return np.array([run[measure][row.when(run)] for run in self.runs[row.condition]])


Figures = Callable[[Results, Path], None]


@dataclass(frozen=True)
class Experiment:
    """One experiment.

    Attributes:
        name: as on the command line.
        question: what it asks, in one sentence.
        varied: what differs between the conditions.
        setups: preset -> condition -> setup.
        presets: those that the experiment has.
        rows: label -> row of the table; None: every condition at its last evaluation.
        published: condition -> measure -> published figure, if ``rows`` is None.
        published_for: presets with the data of the published figures; only their tables show these.
        columns: names of the measures that the table shows after those of every experiment.
        claims: what the experiment should show.
        former: claims that ``claims`` replaces, as long as published results list them; they are judged for these only.
        figures: draws the figures into a folder.
        remarks: lines below the table.
    """

    name: str
    question: str
    varied: str
    setups: Callable[[Preset], dict[str, Setup]]
    claims: tuple[Claim, ...]
    figures: Figures
    rows: Callable[[Results], dict[str, Row]] | None = None
    published: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    presets: tuple[Preset, ...] = ("quick", "paper")
    published_for: tuple[Preset, ...] = ("quick", "medium", "paper")
    columns: tuple[str, ...] = ()
    former: tuple[Claim, ...] = ()
    remarks: Callable[[Results], list[str]] = lambda results: []

    def table_rows(self, results: Results) -> dict[str, Row]:
        """The rows of the table, by their labels; if not all conditions were run, each of them at its last evaluation."""
        if self.rows is not None and results.complete:
            return self.rows(results)
        return {name: Row(name, self.published.get(name, {})) for name in results.runs}


def chosen(setups: Mapping[str, Setup], conditions: Sequence[str]) -> dict[str, Setup]:
    """The setups of some conditions, in the order of the experiment; of all if none is named.

    Raises:
        DataError: there is no such condition; the message lists them.
    """
    for name in conditions:
        if name not in setups:
            hint = did_you_mean(name, setups)
            raise DataError(f"conditions: no condition {name!r}{hint} There are: {', '.join(map(repr, setups))}")
    return {name: setup for name, setup in setups.items() if name in conditions or not conditions}
