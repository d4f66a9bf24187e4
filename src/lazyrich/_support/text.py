"""Text on a terminal: names from outside cannot control it, and tables are aligned."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def plain(text: str) -> str:
    r"""Replace control characters, and other characters that do not print, by their escape sequences.

    Otherwise an escape sequence in the name of a layer could change the colour, the content or the title of the terminal, and a
    right-to-left override could make one name look like another.

    >>> plain("layer\x1b[31m.1\n"), plain("σ₁ ≤ 2 · π")
    ('layer\\x1b[31m.1\\n', 'σ₁ ≤ 2 · π')
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def ruled(rows: list[list[str]], headings: int = 1) -> list[str]:
    """Rows of cells as lines: each column is as wide as its widest cell, and a rule follows the headings.

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
    """The end of a message about an unknown name: the most similar known name, or a full stop.

    >>> did_you_mean("groking", ["grokking", "collapse"]), did_you_mean("x", ["grokking"])
    ('; did you mean grokking?', '.')
    """
    near = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {near[0]}?" if near else "."
