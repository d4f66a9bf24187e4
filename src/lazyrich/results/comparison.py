"""Differences between networks, with errors: of two on the same rows, and of two groups of runs."""

from __future__ import annotations

import json
import math
import os
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .._support.files import write_text
from .._support.text import plain, ruled
from ..errors import DataError
from ..functional.influence import Influence, interval
from .catalogue import CATALOGUE, ordered
from .export import Records, Tabular

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLUMNS = (  # of the printed table
    "low_rank", "low_rank_corrected", "low_rank_stderr", "balanced", "laziness", "laziness_corrected", "laziness_stderr",
)  # fmt: skip


@dataclass(frozen=True)
class Difference:
    """A difference of one measure between two networks, or between two steps of a training.

    Attributes:
        value: of the first less the second; of the corrected values where both have one.
        stderr: standard error; None where there is none.
        interval: 95 % interval; None where there is no error.
        note: what a reader of the error must know; else None.
    """

    value: float
    stderr: float | None
    interval: tuple[float, float] | None
    note: str | None = None

    @property
    def decided(self) -> bool:
        """Whether the interval lies on one side of 0."""
        return self.interval is not None and (self.interval[0] > 0 or self.interval[1] < 0)

    def __str__(self) -> str:
        if self.stderr is None or self.interval is None:
            return f"{self.value:+.4f} (no error)"
        low, high = self.interval
        note = f"; {self.note}" if self.note else ""
        return f"{self.value:+.4f} ± {self.stderr:.4f} (95 % interval {low:+.4f} to {high:+.4f}{note})"


@dataclass(frozen=True)
class ModelComparison(Tabular):
    """Networks on the same rows.

    Attributes:
        values: name -> measure -> value, by the names of the catalogue; "_corrected" and "_stderr" are among them.
        differences: measure -> (first, second) -> :class:`Difference`, for every pair in the order of the names.
        num_samples: number of rows.
        notes: what a reader of the numbers must know.
    """

    values: dict[str, dict[str, float]]
    differences: dict[str, dict[tuple[str, str], Difference]]
    num_samples: int
    notes: tuple[str, ...] = ()

    def difference(self, first: str, second: str, measure: str = "low_rank") -> Difference:
        """The difference of a measure, first less second.

        Raises:
            KeyError: there is no such pair or measure; names those that there are.
        """
        pairs = self.differences.get(measure)
        if pairs is None:
            raise KeyError(f"no differences of {measure!r}, only of {', '.join(self.differences)}")
        if (first, second) in pairs:
            return pairs[first, second]
        if (second, first) not in pairs:
            raise KeyError(f"no pair {first!r}, {second!r} among {', '.join(self.values)}")
        other = pairs[second, first]
        ends = None if other.interval is None else (-other.interval[1], -other.interval[0])
        return replace(other, value=-other.value, interval=ends)

    def sentence(self, first: str, second: str) -> str:
        """Which of two networks is richer by D_LR, or that the data cannot tell."""
        difference = self.difference(first, second)
        if not difference.decided:
            return f"{first} and {second}: the data cannot tell which is richer; D_LR differs by {difference}"
        richer, lazier = (first, second) if difference.value < 0 else (second, first)
        return f"{richer} is richer than {lazier}: D_LR of {first} less that of {second} is {difference}"

    def __str__(self) -> str:
        sentences = [self.sentence(*pair) for pair in self.differences["low_rank"]]
        sentences += [f"λ of {a} less that of {b} is {one}" for (a, b), one in self.differences.get("laziness", {}).items()]
        return "\n".join([*ruled(self._table()), "", *map(plain, sentences), *(plain(f"! {note}") for note in self.notes)])

    def _records(self) -> Records:
        names = ordered({name for values in self.values.values() for name in values})
        return [{"network": name, **{m: values.get(m, math.nan) for m in names}} for name, values in self.values.items()]

    def _table(self) -> list[list[str]]:
        columns = [m for m in COLUMNS if any(m in values for values in self.values.values())]
        rows = [[name, *(f"{values[m]:.4f}" if m in values else "-" for m in columns)] for name, values in self.values.items()]
        return [["", *(CATALOGUE[m].symbol for m in columns)], *rows]

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes JSON; a crash leaves the old file or the new one, never half of one."""
        write_text(Path(path), json.dumps(self.to_dict(), indent=1, allow_nan=False) + "\n")

    def plot(self, path: str | os.PathLike[str] | None = None) -> Figure:
        """One figure: D_LR of each network, and the differences with their paired intervals; λ below. Needs ``lazyrich[plot]``.

        Raises:
            ValueError: more than six networks.
        """
        from .comparison_figure import plot_comparison

        return plot_comparison(self.values, self.differences, path)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        pairs = {
            measure: [{"first": a, "second": b, **asdict(one)} for (a, b), one in found.items()]
            for measure, found in self.differences.items()
        }
        return {"values": self.values, "differences": pairs, "num_samples": self.num_samples, "notes": list(self.notes)}


def difference_of(
    measure: str,
    first: tuple[Mapping[str, float], Mapping[str, Influence]],
    second: tuple[Mapping[str, float], Mapping[str, Influence]],
) -> Difference:
    """The difference of a measure between two measurements, each with its numbers and its influences.

    The variance is that of the difference of the influences, if these are of the same rows; else the sum of the two variances.
    """
    (values, moves), (other_values, other_moves) = first, second
    corrected = f"{measure}_corrected"
    if corrected not in values or corrected not in other_values or measure not in moves or measure not in other_moves:
        return Difference(values[measure] - other_values[measure], None, None)
    mine, theirs = moves[measure], other_moves[measure]
    value, paired, note = values[corrected] - other_values[corrected], mine.less(theirs), None
    if paired is None:
        paired, note = mine.joined(theirs), "not of the same rows: the error of two independent measurements"
    stderr = paired.variance**0.5
    return Difference(value, stderr, interval(value, stderr, paired.freedom), note)


def compare_runs(runs: Mapping[str, Sequence[Any]], measure: str = "low_rank") -> dict[tuple[str, str], Difference]:
    """Differences between groups of runs over their seeds: the mean of the first less that of the second, by Welch's interval.

    Args:
        runs: name -> results (:class:`lazyrich.Richness`, or numbers), at least two in each group.
        measure: the name of a measure in the catalogue.

    Returns:
        (first, second) -> :class:`Difference`, for every pair in the order of the names.

    Raises:
        DataError: fewer than two groups, or a group with fewer than two results that have the measure.

    Example:
        Two groups with standard deviation 1 and two runs each: the error of the difference is 1.

        >>> (difference,) = compare_runs({"a": [1.0, 1 + 2**0.5], "b": [0.0, 2**0.5]}).values()
        >>> round(difference.value, 6), round(difference.stderr, 6)
        (1.0, 1.0)
    """
    groups = {name: [_number(one, measure) for one in results] for name, results in runs.items()}
    if len(groups) < 2:
        raise DataError(f"at least two groups of runs are needed, got {len(groups)}")
    for name, values in groups.items():
        if len(values) < 2:
            raise DataError(f"at least two runs are needed for an error over seeds, and {name!r} has {len(values)}")
    names = list(groups)
    return {(a, b): _welch(groups[a], groups[b]) for k, a in enumerate(names) for b in names[k + 1 :]}


def _number(result: Any, measure: str) -> float:
    if isinstance(result, (int, float)):
        return float(result)
    numbers = result.numbers()
    if measure not in numbers:
        raise DataError(f"a result has no {measure!r}; it has {', '.join(numbers)}")
    return float(numbers[measure])


def _welch(first: list[float], second: list[float]) -> Difference:
    """Welch (1947, Biometrika 34): unequal variances, degrees of freedom by Satterthwaite."""
    parts = [statistics.variance(values) / len(values) for values in (first, second)]
    value, variance = statistics.fmean(first) - statistics.fmean(second), sum(parts)
    if not variance:
        return Difference(value, 0.0, (value, value))
    freedom = variance**2 / sum(part**2 / (len(values) - 1) for part, values in zip(parts, (first, second), strict=True))
    return Difference(value, math.sqrt(variance), interval(value, math.sqrt(variance), freedom))
