"""The zoo as a table for the documentation."""

from __future__ import annotations

from collections.abc import Sequence

from .entries import Answer, Entry, Refusal


def as_markdown(entries: Sequence[Entry]) -> str:
    """One row for each answer of a kind: the networks that have it, what is counted, and the evidence or the error."""
    rows: dict[tuple[str, str, str], list[str]] = {}
    for entry in entries:
        right = entry.build().right
        counted, evidence = _answered(right) if isinstance(right, Answer) else ("nothing", _refused(right))
        rows.setdefault((entry.kind, counted, evidence), []).append(entry.name)
    lines = ["| kind | networks | what is counted | evidence |", "| --- | --- | --- | --- |"]
    previous = ""
    for (kind, counted, evidence), names in rows.items():
        lines.append(f"| {kind if kind != previous else ''} | {'; '.join(names)} | {counted} | {evidence} |")
        previous = kind
    return "\n".join(lines) + "\n"


def _answered(right: Answer) -> tuple[str, str]:
    every = {"sample": "every sample", "position": "every position"}.get(right.row or "", "every row")
    chosen = "the rows that are asked for" if right.left_out is None else "the rows that are chosen"
    counted = right.counted or (every if right.left_out == 0 else chosen)
    if right.labels is not None and "label" not in counted:
        counted += ", with its class label"
    if right.targets is not None:
        counted += ", with its real targets"
    if right.head is None:
        return counted, "no head: `forward=` returns the rows"
    evidence = "linear" if right.linear else "not linear, so measured from its outputs"
    returned = f"returned: {right.returned}" if right.returned else "not compared with what is returned"
    return counted, f"{evidence}; {returned}"


def _refused(right: Refusal) -> str:
    errors = right.error if isinstance(right.error, tuple) else (right.error,)
    candidates = " that lists the candidates" if right.offers else ""
    return f"`{errors[0].__name__}`{candidates}"
