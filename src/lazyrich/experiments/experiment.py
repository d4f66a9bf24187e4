"""What an experiment is: conditions, what the paper reports, claims with their rules, pictures."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from .runs import Run
from .setup import Setup

Preset = Literal["quick", "paper"]
Verdict = Literal["shown", "not shown", "undecided"]
When = Callable[[Run], int]  # which evaluation of a run


def at_the_end(run: Run) -> int:
    """The last evaluation."""
    return -1


@dataclass(frozen=True)
class Row:
    """A line of the final table: a condition at some moment, with the published figures where there are some.

    Attributes:
        published: measure -> figure, of the paper's own setup.
    """

    condition: str
    published: Mapping[str, float] = field(default_factory=dict)
    when: When = at_the_end


@dataclass(frozen=True)
class Claim:
    """A sentence that the runs can bear out or not.

    Attributes:
        text: the claim.
        rule: when one seed bears it out, in words; written before the run.
        holds: the rule, for the runs of one seed by condition.
        beyond: whether it goes beyond what the paper claims: judged alike, listed apart.
    """

    text: str
    rule: str
    holds: Callable[[Mapping[str, Run]], bool]
    beyond: bool = False

    def verdict(self, seeds: list[Mapping[str, Run]]) -> tuple[Verdict, int]:
        """*shown* if every seed bears it out, *not shown* if fewer than half do, else *undecided*; and how many do."""
        count = sum(bool(self.holds(runs)) for runs in seeds)
        if count == len(seeds):
            return "shown", count
        return ("not shown" if 2 * count < len(seeds) else "undecided"), count


@dataclass(frozen=True, eq=False)
class Results:
    """The runs of an experiment: condition -> one run per seed."""

    runs: Mapping[str, list[Run]]

    @property
    def by_seed(self) -> list[Mapping[str, Run]]:
        """One mapping condition -> run for each seed."""
        count = min(len(runs) for runs in self.runs.values())
        return [{name: runs[k] for name, runs in self.runs.items()} for k in range(count)]

    def values(self, row: Row, measure: str) -> np.ndarray:
        """(seeds,) one measure in one line of the table."""
        return np.array([run[measure][row.when(run)] for run in self.runs[row.condition]])


Figures = Callable[[Results, Path], None]


@dataclass(frozen=True)
class Experiment:
    """One experiment.

    Attributes:
        name: as on the command line.
        question: what it asks, a sentence.
        varied: what differs between its conditions.
        setups: preset -> condition -> setup.
        rows: the lines of the table by their label; None: every condition at its end.
        columns: measures that its table shows too, by their names.
        claims: what must be shown.
        figures: draws the pictures into a folder.
        remarks: lines to stand under the table.
    """

    name: str
    question: str
    varied: str
    setups: Callable[[Preset], dict[str, Setup]]
    claims: tuple[Claim, ...]
    figures: Figures
    rows: Callable[[Results], dict[str, Row]] | None = None
    published: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    columns: tuple[str, ...] = ()
    remarks: Callable[[Results], list[str]] = lambda results: []

    def table_rows(self, results: Results) -> dict[str, Row]:
        """The lines of the table."""
        if self.rows is not None:
            return self.rows(results)
        return {name: Row(name, self.published.get(name, {})) for name in results.runs}
