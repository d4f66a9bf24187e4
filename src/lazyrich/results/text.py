"""Results as aligned text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from .._support.text import plain, ruled
from .catalogue import GROUPS, entry, ordered

EXPLAINED = {  # words of a table, and what they mean
    "rtol": "at rtol t: output directions whose singular value is at most t × the largest are left out",
    "never (": "never (s): all features together hold the share s of it, which is less than 95 %",
}


def side_by_side(results: Mapping[str, Mapping[str, str]], notes: Mapping[str, Sequence[str]]) -> str:
    """Results as columns, and a row for each entry of the catalogue that one of them has.

    Args:
        results: name of the result -> name in the catalogue -> text.
        notes: name of the result -> what a reader of its numbers must know.
    """
    names = ordered({name for cells in results.values() for name, cell in cells.items() if cell})
    rows = [["", *results]] if any(results) else []
    for name in names:
        label = f"{'  ' if entry(name).part_of else ''}{entry(name).label}"
        rows.append([label, *(cells.get(name, "") for cells in results.values())])
    lines = ruled(rows, headings=len(rows) - len(names))
    about = {note: [name for name in results if note in notes[name]] for of_one in notes.values() for note in of_one}
    for note, where in about.items():
        lines.append(plain(f"! {', '.join(filter(None, where))}{': ' if any(where) else ''}{note}"))
    return "\n".join(lines)


def in_groups(cells: Mapping[str, str], notes: Sequence[str]) -> str:
    """One result: below each question of the catalogue the numbers that answer it; notes and explanations below.

    Args:
        cells: name in the catalogue -> text.
        notes: what a reader of the numbers must know.
    """
    names = ordered(name for name, cell in cells.items() if cell)
    labels = {name: f"{'    ' if entry(name).part_of else '  '}{entry(name).label}" for name in names}
    width = max(map(len, labels.values()))
    lines: list[str] = []
    for group, question in GROUPS.items():
        of_group = [f"{labels[name]:<{width}}  {plain(cells[name])}" for name in names if entry(name).group == group]
        lines += ["", question, *of_group] if of_group else []
    explained = [text for word, text in EXPLAINED.items() if any(word in line for line in lines)]
    return "\n".join([*lines[1:], *([""] if explained or notes else []), *explained, *(plain(f"! {note}") for note in notes)])


def one_below_the_other(kind: str, rows: Sequence[tuple[str, Mapping[str, str]]], notes: Sequence[str]) -> str:
    """Layers or evaluations as rows, and a column for each entry of the catalogue that one of them has.

    Args:
        kind: what a row is, the heading of the first column.
        rows: (name of the row, name in the catalogue -> text); the columns are in the order in which they come.
        notes: lines below the table.
    """
    names = list(dict.fromkeys(name for _, cells in rows for name in cells))
    headings = [kind, *(entry(name).symbol for name in names)]
    lines = ruled([headings, *([row, *(cells.get(name, "-") for name in names)] for row, cells in rows)])
    return "\n".join([*lines, *map(plain, notes)])
