"""The answer to the question, as at most fourteen lines of 80 columns: verdict, scales, evidence, caveats."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .._support.text import plain
from .verdict import LAZY, RICH

if TYPE_CHECKING:
    from .richness import Richness

COLUMNS, LINES = 80, 14
_CELLS = 31  # from 0 to 1
_INDENT = 10


@dataclass(frozen=True)
class Mark:
    """A value on a scale that a measured one is compared with."""

    value: float
    name: str
    sign: str


@dataclass(frozen=True)
class Scale:
    """A measured value on a line from 0 to 1.

    Attributes:
        error: standard error, or None.
    """

    symbol: str
    value: float
    error: float | None
    marks: tuple[Mark, ...]

    @property
    def number(self) -> str:
        """The value and its error."""
        return f"{self.value:.3f}" + ("" if self.error is None else f" ± {self.error:.3f}")

    def drawn(self) -> str:
        """The scale as a line of text."""
        cells = ["─"] * _CELLS
        if self.error is not None:
            for cell in range(_cell(self.value - 2 * self.error), _cell(self.value + 2 * self.error) + 1):
                cells[cell] = "━"
        for mark in self.marks:
            cells[_cell(mark.value)] = mark.sign
        cells[_cell(self.value)] = "●"
        named = ", ".join(mark.name if mark.sign == "┊" else f"{mark.sign} {mark.name}" for mark in self.marks)
        return f"{self.symbol:<5}{self.number:<15}0{''.join(cells)}1  {named}".rstrip()


def answer(r: Richness, table: str = "print(r.table())") -> str:
    """Verdict, λ and D_LR on their scales, evidence and caveats.

    Args:
        table: what gives all numbers.
    """
    verdict, more = r.verdict, f"all numbers: {table}"
    lines = textwrap.wrap(plain(f"{verdict.regime.upper()}. {verdict.sentence}"), COLUMNS)
    lines += ["", *(scale.drawn() for scale in scales(r)), "", *_block("evidence", verdict.evidence)]
    caveats = _block("caveats", verdict.caveats)
    room = LINES - len(lines) - 1
    if len(caveats) > room:
        caveats, more = caveats[:room], f"more caveats and {more}"
    return "\n".join([*lines, *caveats, more])


def scales(r: Richness) -> list[Scale]:
    """λ, where it is known, and D_LR; corrected values where they are known."""
    found = []
    of_start = r.laziness_source == "start"
    if r.laziness is not None:
        value = r.laziness if r.laziness_corrected is None else r.laziness_corrected
        marks = (Mark(RICH, f"< {RICH:g} rich", "┊"), Mark(LAZY, f"> {LAZY:g} lazy", "┊")) if of_start else ()
        found.append(Scale("λ", value, r.laziness_stderr, marks))
    marks = ()
    if r.laziness:
        marks += (Mark(r.low_rank / r.laziness, "start" if of_start else "redrawn", "s" if of_start else "r"),)
    if r.isotropic is not None:
        marks += (Mark(r.isotropic, "isotropic", "i"),)
    value = r.low_rank if r.low_rank_corrected is None else r.low_rank_corrected
    return [*found, Scale("D_LR", value, r.low_rank_stderr, marks)]


def _block(heading: str, texts: Sequence[str]) -> list[str]:
    """Texts below one another, with the heading in front of the first."""
    lines = [line for text in texts for line in textwrap.wrap(plain(text), COLUMNS - _INDENT)]
    return [f"{heading if k == 0 else '':<{_INDENT}}{line}" for k, line in enumerate(lines)]


def _cell(value: float) -> int:
    return round(min(max(value, 0.0), 1.0) * (_CELLS - 1))
