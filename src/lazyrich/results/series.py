"""A series of evaluations over training: numbers by name and the three curves, kept as they come and read back whole.

In a folder it is ``evaluations.jsonl``, a line for each evaluation, and ``curves/`` and ``influences/``, a file for each that has
some. A line is written at once and last, so whatever cuts the writing off loses the evaluation under way and no other.
"""

from __future__ import annotations

import json
import os
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from .._support.files import write_text, write_whole
from .._support.stored import parsed
from ..errors import DataError, DegenerateError, NonFiniteError, RankWarning
from ..functional.influence import Influence
from .catalogue import entry, ordered
from .comparison import Difference, difference_of
from .export import Records, Tabular
from .names import renamed
from .stored_influences import packed, unpacked
from .text import one_below_the_other

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What was found at one moment of training.

    Attributes:
        step: optimizer steps that were done.
        values: numbers by name; ``low_rank`` is D_LR.
        curves: the three curves and the contributions, by name; empty where they were not asked for.
        note: why there are no values, where there are none.
        influences: measure -> how far each retained row moves it, for errors of differences; empty where there are no errors.
    """

    step: int
    values: dict[str, float]
    curves: dict[str, np.ndarray] = field(default_factory=dict)
    note: str | None = None
    influences: dict[str, Influence] = field(default_factory=dict, repr=False)


Measured = tuple[dict[str, float], dict[str, np.ndarray], dict[str, Influence]]


def evaluate(
    step: int,
    measured: Callable[[], Measured],
    noted: tuple[type[DataError], ...] = (DegenerateError, NonFiniteError),
) -> Evaluation:
    """The evaluation with numbers, curves and influences from ``measured``; of the errors in ``noted`` only a note remains.

    A network that is dead for a while thus leaves a gap in its series and does not end it.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RankWarning)  # the band is among the numbers
        try:
            values, curves, influences = measured()
            return Evaluation(step, values, curves, None, {name: of.stored() for name, of in influences.items()})
        except noted as error:
            return Evaluation(step, {}, note=str(error))


class Series(Tabular):
    """Evaluations in the order of their steps.

    Attributes:
        steps: (evaluations,) when it was looked at.
        notes: step -> why nothing could be measured there.
        evaluations: as they were given; those of a folder without curves and influences, which are read when asked for.

    Example:
        >>> series = Series([Evaluation(0, {"low_rank": 0.75}), Evaluation(10, {"low_rank": 0.25})])
        >>> series.last("low_rank"), series.steps.tolist(), series.first("low_rank", 0.5)
        (0.25, [0, 10], 0)
    """

    def __init__(self, evaluations: Sequence[Evaluation], folder: Path | None = None) -> None:
        self.steps = np.array([e.step for e in evaluations], dtype=np.int64)
        self.notes = {e.step: e.note for e in evaluations if e.note}
        self.evaluations = list(evaluations)
        self._folder = folder
        names = dict.fromkeys(name for e in evaluations for name in e.values)
        self._values = {name: np.array([e.values.get(name, np.nan) for e in evaluations], float) for name in names}

    def __len__(self) -> int:
        return len(self.steps)

    def __str__(self) -> str:
        return one_below_the_other("step", self._rows(), [f"! step {step:,}: {note}" for step, note in self.notes.items()])

    def _rows(self) -> list[tuple[str, dict[str, str]]]:
        columns = [name for name in ordered(self.measures) if entry(name).in_series_table]
        return [
            (f"{step:,}", {name: entry(name).formatted(self[name][place]) for name in columns})
            for place, step in enumerate(self.steps.tolist())
        ]

    def _records(self) -> Records:
        names = ordered(self.measures)
        return [
            {"step": step, **{name: float(self[name][place]) for name in names}} for place, step in enumerate(self.steps.tolist())
        ]

    def _table(self) -> list[list[str]]:
        rows = self._rows()
        names = list(rows[0][1]) if rows else []
        return [["step", *(entry(name).symbol for name in names)], *([step, *cells.values()] for step, cells in rows)]

    @property
    def measures(self) -> list[str]:
        """Names of what was measured."""
        return list(self._values)

    def __contains__(self, measure: object) -> bool:
        """Whether a measure was taken at some step."""
        return measure in self._values

    def __getitem__(self, measure: str) -> np.ndarray:
        """(evaluations,) one measure over training; NaN where it could not be taken."""
        return self._values.get(measure, np.full(len(self.steps), np.nan))

    def last(self, measure: str) -> float:
        """One measure at the last evaluation."""
        return float(self[measure][-1])

    def first(self, measure: str, least: float) -> int:
        """Place of the first evaluation at which a measure has reached ``least``; -1, the last, if it never does."""
        reached = np.flatnonzero(self[measure] >= least)
        return int(reached[0]) if len(reached) else -1

    def curves(self, place: int) -> dict[str, np.ndarray]:
        """The curves of one evaluation; empty where they could not be taken.

        Raises:
            DataError: their file is damaged.
        """
        return self.evaluations[place].curves or self._read("curves", place, dict)

    def influences(self, place: int) -> dict[str, Influence]:
        """Measure -> how far each retained row moves it, at one evaluation; empty where there are no errors.

        Raises:
            DataError: their file is damaged.
        """
        return self.evaluations[place].influences or self._read("influences", place, unpacked)

    def _read(self, part: str, place: int, made: Callable[[Mapping[str, np.ndarray]], dict[str, Any]]) -> dict[str, Any]:
        """What ``made`` returns of the arrays that the folder has of an evaluation; empty where it has none."""
        path = None if self._folder is None else _part_path(self._folder, part, int(self.steps[place]))
        if path is None or not path.is_file():
            return {}
        try:
            with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
                return made({name: file[name] for name in file.files})
        except Exception as error:  # zipfile, zlib and numpy each raise their own
            raise DataError(f"{path} is damaged ({type(error).__name__}): delete it to continue without these {part}") from error

    def difference(self, first: int, second: int, measure: str = "low_rank") -> Difference:
        """The difference of a measure between two steps, first less second: is the change larger than its error?

        The error is paired where both evaluations saw the same rows, as those of a monitor with a probe set and of ``trace`` do.
        Most of the two errors is then common to both, and cancels. Otherwise it is that of two independent measurements, and
        ``note`` says so.

        Args:
            first, second: steps at which the network was measured.
            measure: "low_rank", "balanced" or "laziness"; any other measure of the series has a difference without an error.

        Raises:
            KeyError: nothing was measured at one of the steps, or not this.
            DataError: a file of the series is damaged.

        Example:
            >>> import torch, lazyrich
            >>> _ = torch.manual_seed(0)
            >>> model = torch.nn.Sequential(torch.nn.Linear(4, 32), torch.nn.Tanh(), torch.nn.Linear(32, 2))
            >>> with lazyrich.Monitor(model, torch.randn(300, 4), every=10) as monitor:
            ...     with torch.no_grad():
            ...         _ = model[0].weight[8:].mul_(0.1)  # a stand-in for training: most features fade
            ...     _ = monitor.step(10)
            >>> monitor.series.difference(10, 0).decided
            True
        """
        places = [self._place(step, measure) for step in (first, second)]
        return difference_of(measure, *[(self.evaluations[place].values, self.influences(place)) for place in places])

    def _place(self, step: int, measure: str) -> int:
        if step not in self.steps:
            raise KeyError(f"step {step} was not measured; the steps are {', '.join(map(str, self.steps.tolist()))}")
        place = int(np.flatnonzero(self.steps == step)[-1])
        if measure not in self.evaluations[place].values:
            note = self.notes.get(step)
            raise KeyError(f"step {step} has no {measure!r}{f': {note}' if note else ''}")
        return place

    def plot(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        moments: int = 6,
        ax: Axes | None = None,
        measure: str = "low_rank",
        style: Any = None,
    ) -> Figure:
        """One figure: D_LR with its error, the rank and the accuracy over steps, and the curves at several moments.

        With ``ax``, only ``measure`` is drawn, in these axes. Needs ``lazyrich[plot]``; see
        :func:`lazyrich.results.series_figures.plot_series`, also for ``moments`` and ``style``.
        """
        from .series_figures import plot_series

        return plot_series(
            self.steps, self._values, self.curves, self.notes, path, moments=moments, ax=ax, measure=measure, style=style
        )


class SeriesFolder:
    """A series that grows in a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def _lines_path(self) -> Path:
        return self.path / "evaluations.jsonl"

    def add(self, evaluation: Evaluation) -> None:
        """Writes one more evaluation.

        Raises:
            OSError: it cannot be written; names the file.
        """
        curves = {name: np.asarray(curve, np.float32) for name, curve in evaluation.curves.items()}
        for part, arrays in (("curves", curves), ("influences", packed(evaluation.influences))):
            path = _part_path(self.path, part, evaluation.step)
            if arrays:
                write_whole(path, partial(_write, arrays))
            elif path.exists():
                path.unlink()  # of an evaluation that was dropped because training was resumed before it
        values = {name: value for name, value in evaluation.values.items() if np.isfinite(value)}
        line: dict[str, Any] = {"step": evaluation.step, "values": values}
        line |= {"note": evaluation.note} if evaluation.note else {}
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            with self._lines_path.open("ab") as file:
                file.write(json.dumps(line, allow_nan=False).encode() + b"\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise OSError(error.errno, f"cannot write {self._lines_path}: {error.strerror}") from error

    def rewind(self, step: int) -> None:
        """Drops what was found after ``step``, and a line that was cut off."""
        if self._lines_path.is_file():
            kept = [line for line in self._lines() if self._parsed(line).step <= step]
            write_text(self._lines_path, "".join(line + "\n" for line in kept))

    def repair(self) -> None:
        """Drops a line that was cut off, so that the next one is whole."""
        self.rewind(sys.maxsize)

    def read(self) -> Series:
        """The evaluations that are there, by step.

        Raises:
            DataError: a line is damaged; names the file.
        """
        return Series(sorted((self._parsed(line) for line in self._lines()), key=lambda e: e.step), self.path)

    def _lines(self) -> list[str]:
        """The whole lines; what was cut off is left out."""
        if not self._lines_path.is_file():
            return []
        try:
            *lines, _ = self._lines_path.read_text(encoding="utf-8").split("\n")
        except UnicodeDecodeError as error:
            raise DataError(f"{self._lines_path} is damaged ({error}): delete {self.path} to start over") from error
        return lines

    def _parsed(self, line: str) -> Evaluation:
        try:
            row = parsed(line)
            values = {name: float(value) for name, value in renamed(row["values"]).items()}
            step = int(row["step"])
            if not 0 <= step < 2**63:
                raise ValueError(f"step {step} is no number of steps")
            return Evaluation(step, values, note=None if row.get("note") is None else str(row["note"]))
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError, OverflowError) as error:
            raise DataError(f"{self._lines_path} is damaged ({error}): delete {self.path} to start over") from error


def _part_path(folder: Path, part: str, step: int) -> Path:
    return folder / part / f"step-{step:08d}.npz"


def _write(arrays: Mapping[str, Any], file: IO[bytes]) -> None:
    np.savez_compressed(file, **arrays)
