"""What was verified of a network while it was measured: which head, how it is returned, which rows count."""

from __future__ import annotations

from ..results.evidence import Evidence
from .sums import HeadSums


def evidence_of(sums: HeadSums) -> Evidence:
    """The evidence behind a measurement."""
    known = sums.known
    head = None if known is None else known.head
    labels = None if known is None or known.reader.labels is None else known.reader.labels.evidence
    if head is None:
        returned = "features and outputs as forward= returned them"
    elif head.relation is None:
        returned = "named by head=; the returned tensors do not show its outputs"
    else:
        returned = str(head.relation)
    return Evidence(
        head="" if head is None else head.name,
        linear=None if head is None or head.residual is None else head.linear,
        linear_residual=None if head is None else head.residual,
        returned=returned,
        row="position" if sums.per_position else "sample",
        rows_left_out=dict(sums.left_out),
        labels=labels,
    )
