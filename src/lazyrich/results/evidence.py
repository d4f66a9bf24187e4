"""What a measurement rests on."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Evidence:
    """What was verified, by value and on the data that were measured.

    Attributes:
        head: name of the layer whose input the features are; "" where ``forward=`` returned the rows.
        linear: whether its outputs are φWᵀ + b with its own parameters, to the rounding of their dtype; None where it has none.
        linear_residual: the largest deviation from that, relative to the largest output.
        returned: how the model returns the outputs: "as it is", "softmax", "selected columns" …
        row: what a row is, "sample" or "position".
        rows_left_out: reason -> how many rows do not count.
        labels: what shows how labels belong to rows, or why they are not used; None where there was no question.

    Example:
        >>> print(Evidence("fc", True, 0.02, "softmax", "sample", {"label ignored": 3}))
        head 'fc', linear, outputs returned: softmax; each row is a sample; 3 rows left out: label ignored
    """

    head: str
    linear: bool | None
    linear_residual: float | None
    returned: str
    row: str
    rows_left_out: dict[str, int] = field(default_factory=dict)
    labels: str | None = None

    def __str__(self) -> str:
        kind = {True: ", linear", False: ", not linear in its own weight", None: ""}[self.linear]
        named = f"head {self.head!r}{kind}, " if self.head else ""
        shown = {"as it is": "outputs returned as they are"}.get(self.returned, f"outputs returned: {self.returned}")
        shown = self.returned if self.returned.startswith(("features", "named")) else shown
        parts = [f"{named}{shown}; each row is a {self.row}"]
        parts += [f"{count:,} rows left out: {reason}" for reason, count in self.rows_left_out.items()]
        return "; ".join(parts + ([self.labels] if self.labels else []))
