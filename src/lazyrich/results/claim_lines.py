"""The lines in which the table of an experiment lists its claims, read back."""

from __future__ import annotations

import re
from dataclasses import dataclass

CLAIM = re.compile(r" *(SHOWN|NOT SHOWN|UNDECIDED|EXPLORATORY)  (.*) \((\d+) of (\d+) seeds; (?:because (.*?); )?rule: (.*)\)")


@dataclass(frozen=True)
class ClaimLine:
    """A claim as a table lists it.

    Attributes:
        verdict: in lower case; "exploratory" where the table gives none.
        holds, of: how many seeds support it, of how many.
        why: why it is exploratory, or empty.
    """

    verdict: str
    text: str
    holds: int
    of: int
    why: str
    rule: str


def claim_line(line: str) -> ClaimLine | None:
    """The claim in a line of ``table.txt``; None if it holds none.

    >>> claim_line("  NOT SHOWN  it is rich (1 of 3 seeds; rule: last D_LR < 0.1)")
    ClaimLine(verdict='not shown', text='it is rich', holds=1, of=3, why='', rule='last D_LR < 0.1')
    """
    match = CLAIM.fullmatch(line)
    if match is None:
        return None
    verdict, text, holds, of, why, rule = match.groups()
    return ClaimLine(verdict.lower(), text, int(holds), int(of), why or "", rule)
