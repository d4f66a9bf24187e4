"""Numbers for other programs: a data frame of pandas, CSV, a table in LaTeX."""

from __future__ import annotations

import csv
import io
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .._support.extras import needs
from .._support.files import write_text
from .catalogue import cells, entry, ordered
from .notebook import html_table

if TYPE_CHECKING:
    from pandas import DataFrame

Records = Sequence[Mapping[str, Any]]
_LATEX = {
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "D_LR": r"$D_\mathrm{LR}$",
    **{character: f"\\{character}" for character in "&%$#_{}"}, "±": r"$\pm$", "λ": r"$\lambda$", "α": r"$\alpha$",
    "≤": r"$\leq$", "≥": r"$\geq$", "·": r"$\cdot$", "₀": "$_0$", "₁": "$_1$", "‖": r"$\Vert$", "²": "$^2$", "√": r"$\surd$",
}  # fmt: skip


class Tabular(ABC):
    """What a result and a series have in common: records that other programs can read."""

    @abstractmethod
    def _records(self) -> Records:
        """One mapping for each row, all with the same keys, the first of which is the index."""

    @abstractmethod
    def _table(self) -> list[list[str]]:
        """The headings, and the rows of cells that a reader sees."""

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        return html_table(self._table())

    def to_frame(self) -> DataFrame:
        """The numbers as a data frame of pandas: a result has a row for each number, a series one for each evaluation.

        The columns of a result are ``value``, ``stderr``, ``label`` and ``group``; those of a series are the measures.

        Raises:
            MissingExtraError: pandas is not installed.
        """
        records = self._records()
        frame = needs("pandas", "pandas").DataFrame(list(records))
        return frame.set_index(next(iter(frame.columns))) if len(records) else frame

    def to_csv(self, path: str | os.PathLike[str] | None = None) -> str:
        """The rows of :meth:`to_frame` as CSV with full precision; written to ``path`` as well if it is passed."""
        records, text = self._records(), io.StringIO()
        if records:
            writer = csv.DictWriter(text, list(records[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows({name: "" if value != value else value for name, value in row.items()} for row in records)
        if path is not None:
            write_text(Path(path), text.getvalue())
        return text.getvalue()

    def to_latex(self) -> str:
        """The printed table as a LaTeX ``tabular`` with the rules of the package ``booktabs``."""
        headings, *rows = self._table()
        lines = [" & ".join(map(_escaped, row)) + r" \\" for row in (headings, *rows)]
        columns = "l" + "r" * (len(headings) - 1)
        return "\n".join(
            [rf"\begin{{tabular}}{{{columns}}}", r"\toprule", lines[0], r"\midrule", *lines[1:], r"\bottomrule", r"\end{tabular}"]
        )


def records_of(numbers: Mapping[str, float]) -> Records:
    """A record for each number, in the order of the catalogue.

    >>> records_of({"low_rank_corrected": 0.25, "low_rank_stderr": 0.5})[0]["stderr"]
    0.5
    """
    entries = {name: entry(name) for name in ordered(numbers)}
    return [
        {
            "measure": name,
            "value": numbers[name],
            "stderr": numbers.get(of.error, float("nan")),
            "label": of.full_label,
            "group": of.group,
        }
        for name, of in entries.items()
    ]


def table_of(numbers: Mapping[str, float]) -> list[list[str]]:
    """Labels and formatted values, with their standard errors.

    >>> table_of({"low_rank": 0.25})
    [['measure', 'value'], ['D_LR (0 = rich)', '0.2500']]
    """
    shown = cells(numbers)
    return [["measure", "value"], *([entry(name).full_label, shown[name]] for name in ordered(shown))]


def _escaped(text: str) -> str:
    return re.sub("|".join(map(re.escape, sorted(_LATEX, key=len, reverse=True))), lambda found: _LATEX[found[0]], text)
