"""Text on a terminal: foreign names are shown, never obeyed; tables are aligned."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def plain(text: str, keep: str = "") -> str:
    r"""Text in which control characters, and whatever else does not print, are written out.

    An escape sequence in the name of a layer could otherwise recolour, overwrite or retitle the terminal, and a
    right-to-left override turn one name into another.

    >>> plain("layer\x1b[31m.1\n"), plain("a\nb", keep="\n"), plain("σ₁ ≤ 2 · π")
    ('layer\\x1b[31m.1\\n', 'a\nb', 'σ₁ ≤ 2 · π')
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in keep else c.encode("unicode_escape").decode() for c in text)


def ruled(rows: list[list[str]], headings: int = 1) -> list[str]:
    """Rows of cells as lines, every column as wide as its widest cell, with a rule below the headings.

    >>> print(*ruled([["run", "D_LR"], ["first", "0.5"]]), sep="\\n")
    run    D_LR
    ───────────
    first  0.5
    """
    rows = [[plain(cell) for cell in row] for row in rows]
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return [*lines[:headings], "─" * max(map(len, lines)), *lines[headings:]]


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """What follows on a name that there is not: the nearest that there is, or a full stop.

    >>> did_you_mean("groking", ["grokking", "collapse"]), did_you_mean("x", ["grokking"])
    ('; did you mean grokking?', '.')
    """
    near = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {near[0]}?" if near else "."
