"""One entry of the catalogue: the names of a measure, its meaning, and its value as text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from .._support.spread import mean_and_sd
from ..gram import Gram

_ROUNDING = 1e-7  # of a value, below which an error is rounding


@dataclass(frozen=True)
class Measure:
    """One entry of the catalogue.

    Attributes:
        name: the key in files, series and tables of numbers. An entry whose name ends in ``{}`` describes a family of
            numbers: ``low_rank_at_{}`` is the entry of ``low_rank_at_0.01``.
        symbol: short name, the heading of a column.
        label: full name, the heading of a row.
        group: a key of ``GROUPS``, the question that the number answers.
        range: the values that it can take, or its unit.
        sentence: what it measures, in one plain sentence.
        richer: which values mean richer features; None where neither direction does.
        format: format specification of the value; "" where the entry is not one number and the result writes its text.
        math: the name in figures, as matplotlib's mathtext; "" where figures use the label.
        part_of: symbol of the measure that it belongs to; tables indent its row below that measure.
        error: name of its standard error.
        within: name of the entry in whose row a table shows it; "" where it has a row of its own.
        column: whether the table of a series has a column for it.
        compute: the function of a :class:`~lazyrich.Gram` that ``measure(extra=...)`` calls; None where the library takes the
            number without being asked.
    """

    name: str
    symbol: str
    label: str
    group: str
    range: str
    sentence: str
    richer: Literal["lower", "higher"] | None = None
    format: str = ".4g"
    math: str = ""
    part_of: str = ""
    error: str = ""
    within: str = ""
    column: bool = False
    compute: Callable[[Gram], float] | None = None

    @property
    def full_label(self) -> str:
        """The label where no other row is above it to say what it is part of."""
        return f"{self.part_of}, {self.label}" if self.part_of else self.label

    @property
    def title(self) -> str:
        """The name in a figure, as mathtext; a label is text and no formula."""
        return self.math or self.full_label.replace("$", r"\$")

    @property
    def in_series_table(self) -> bool:
        """Whether the table of a series has a column for it; what a user asked for by its name always has one."""
        return self.column or self.compute is not None

    def formatted(self, value: float, error: float | None = None) -> str:
        """The value as text, with its standard error if there is one.

        >>> Measure("q", "q", "q", "richness", "0 to 1", "", format=".4f").formatted(0.25, 0.01)
        '0.2500 ± 0.0100'
        >>> Measure("q", "q", "q", "features", "1 or more", "").formatted(12.345678, 0.123456)  # an error has two digits
        '12.35 ± 0.12'
        >>> Measure("q", "q", "q", "features", "1 or more", "").formatted(1.0, 1.8e-9)  # rounding
        '1 ± 0'
        """
        if value != value:  # NaN: not measured
            return "-"
        if error is not None and error < _ROUNDING * abs(value):
            error = 0.0
        text = format(value, self.format).replace("%", " %")
        digits = ".2g" if self.format.endswith("g") else self.format
        return text if error is None or error != error else f"{text} ± {format(error, digits)}"

    def published(self, value: float) -> str:
        """A figure of a paper as text, with the digits that the paper gives.

        >>> Measure("q", "q", "q", "richness", "0 to 1", "", format=".4f").published(0.63)
        '0.63'
        """
        return self.formatted(value) if "%" in self.format else f"{value:g}"

    def over_seeds(self, values: Sequence[float] | np.ndarray) -> str:
        """(seeds,) values as text: their mean and standard deviation, "-" where none is known.

        >>> Measure("q", "q", "q", "richness", "0 to 1", "").over_seeds([0.25, 0.5, float("nan")])
        '0.375 ± 0.177'
        """
        mean, sd = (float(value) for value in mean_and_sd(np.asarray(values, float)))
        if mean != mean:
            return "-"
        percent = "%" in self.format
        scale, digits = (100, 1) if percent else (1, 3 if abs(mean) < 10 else 1)
        text = f"{scale * mean:.{digits}f}" + ("" if sd != sd else f" ± {scale * sd:.{digits}f}")
        return f"{text} %" if percent else text
