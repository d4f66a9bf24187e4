"""The result: what one measurement found, as a table, a file and a picture."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import DataError
from .functional import FeatureSpectrum, NeuralCollapse

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SCHEMA = "lazyrich.richness"
SCHEMA_VERSION = 1


@dataclass(frozen=True, eq=False)
class Richness:
    """How richly a network was trained, as seen at its last layer.

    Attributes:
        low_rank: D_LR as the paper defines it (plug-in), in [0, 1]; 0 is as rich as can be.
        low_rank_corrected, low_rank_stderr: bias removed, and its standard error; None where they cannot be had.
        low_rank_interval: 95 % confidence interval of the corrected value, or None.
        low_rank_band: {rtol: D_LR with weaker output directions left out}.
        output_rank: dimension of the span of the outputs.
        isotropic: D_LR of structureless features of this shape, the mark to hold ``low_rank`` against.
        balanced: the same as ``low_rank`` with the minimum-norm kernel of the outputs as reference.
        output_alignment: the same with the kernel of the outputs as reference; 0 is aligned.
        output_singular_values: of the outputs over √n, descending.
        spectrum: the three curves and each feature's contribution.
        neural_collapse: NC1-NC4, or None without class labels.
        num_samples, num_features, num_outputs: n, p, C.
        head: name of the layer whose input the features are.
        notes: sentences that a reader of the numbers must know.
    """

    low_rank: float
    low_rank_corrected: float | None
    low_rank_stderr: float | None
    low_rank_interval: tuple[float, float] | None
    low_rank_band: dict[float, float]
    output_rank: int
    isotropic: float
    balanced: float
    output_alignment: float
    output_singular_values: tuple[float, ...]
    spectrum: FeatureSpectrum
    neural_collapse: NeuralCollapse | None
    num_samples: int
    num_features: int
    num_outputs: int
    head: str
    notes: tuple[str, ...] = field(default=())

    def __str__(self) -> str:
        return table({"": self})

    def to_dict(self) -> dict[str, Any]:
        """Everything but the eigenvectors as plain values, with the version of the layout."""
        values: dict[str, Any] = {"schema": SCHEMA, "schema_version": SCHEMA_VERSION}
        for f in fields(self):
            value = getattr(self, f.name)
            values[f.name] = value.to_dict() if hasattr(value, "to_dict") else value
        values["low_rank_band"] = {str(rtol): value for rtol, value in self.low_rank_band.items()}
        values["low_rank_interval"] = None if self.low_rank_interval is None else list(self.low_rank_interval)
        values["output_singular_values"] = list(self.output_singular_values)
        values["notes"] = list(self.notes)
        return values

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Richness:
        """The inverse of :meth:`to_dict`.

        Raises:
            DataError: not a result of this library, or of a newer layout.
        """
        if not isinstance(values, dict) or values.get("schema") != SCHEMA:
            raise DataError(f"not a lazyrich result: expected a JSON object with schema {SCHEMA!r}")
        if values.get("schema_version") != SCHEMA_VERSION:
            raise DataError(
                f"schema version {values.get('schema_version')!r}, this release reads {SCHEMA_VERSION}: upgrade lazyrich"
            )
        known = {f.name for f in fields(cls)}
        missing = sorted(known - set(values))
        if missing:
            raise DataError(f"not a whole lazyrich result: {', '.join(missing)} missing")
        given = {name: values[name] for name in known}
        try:
            for name in _NUMBERS:
                if given[name] is not None or name not in ("low_rank_corrected", "low_rank_stderr"):
                    given[name] = _number(name, given[name])
            if given["low_rank_interval"] is not None:
                low, high = given["low_rank_interval"]
                given["low_rank_interval"] = (float(low), float(high))
            given["low_rank_band"] = {float(rtol): float(value) for rtol, value in given["low_rank_band"].items()}
            given["output_singular_values"] = tuple(map(float, given["output_singular_values"]))
            given["notes"] = tuple(map(str, given["notes"]))
            given["spectrum"] = FeatureSpectrum.from_dict(given["spectrum"])
            if given["neural_collapse"] is not None:
                given["neural_collapse"] = NeuralCollapse(**given["neural_collapse"])
        except (TypeError, ValueError, AttributeError) as error:
            raise DataError(f"not a whole lazyrich result: {error}") from error
        return cls(**given)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes JSON; a crash leaves the old file or the new one, never half of one."""
        path = Path(path)
        partial = path.with_name(path.name + ".partial")
        partial.write_text(json.dumps(self.to_dict(), indent=1, allow_nan=False) + "\n", encoding="utf-8")
        partial.replace(path)

    def plot(self, path: str | os.PathLike[str] | None = None) -> Figure:
        """One figure: the three curves, with D_LR, rank and isotropic reference marked. Needs ``lazyrich[plot]``."""
        from .plot import plot_richness

        return plot_richness({f"head {self.head}": self}, path)


_NUMBERS = {
    "low_rank": float, "low_rank_corrected": float, "low_rank_stderr": float, "isotropic": float, "balanced": float,
    "output_alignment": float, "output_rank": int, "num_samples": int, "num_features": int, "num_outputs": int,
}  # fmt: skip


def _number(name: str, value: Any) -> float | int:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise DataError(f"{name} must be a number, got {value!r}")
    return _NUMBERS[name](value)


def load(path: str | os.PathLike[str]) -> Richness:
    """Reads a result that :meth:`Richness.save` wrote.

    Raises:
        FileNotFoundError: no such file.
        DataError: not such a file, or of a newer version.
    """
    try:
        values = json.loads(Path(path).read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{path} is not JSON: {error}") from error
    try:
        return Richness.from_dict(values)
    except DataError as error:
        raise DataError(f"{path}: {error}") from error


def table(results: dict[str, Richness]) -> str:
    """Results side by side, one column each, as aligned text."""
    rows: list[list[str]] = []
    if any(results):
        rows.append(["", *results])
    for label, read in _ROWS.items():
        cells = [read(r) for r in results.values()]
        if any(cells):
            rows.append([label, *cells])
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    rule = "─" * (sum(widths) + 2 * (len(widths) - 1))
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    lines.insert(1 if any(results) else 0, rule)
    notes = {note: [name for name, r in results.items() if note in r.notes] for r in results.values() for note in r.notes}
    for note, names in notes.items():
        lines.append(f"! {', '.join(filter(None, names))}{': ' if any(names) else ''}{note}")
    return "\n".join(lines)


def _estimate(r: Richness) -> str:
    if r.low_rank_corrected is None or r.low_rank_stderr is None:
        return "-"
    return f"{r.low_rank_corrected:.4f} ± {r.low_rank_stderr:.4f}"


def _collapse(name: str) -> Any:
    def read(r: Richness) -> str:
        value = None if r.neural_collapse is None else getattr(r.neural_collapse, name)
        return "" if value is None else f"{value:.4g}"

    return read


_ROWS: dict[str, Any] = {
    "D_LR (0 = rich)": lambda r: f"{r.low_rank:.4f}",
    "  bias-corrected": _estimate,
    "  isotropic features": lambda r: f"{r.isotropic:.4f}",
    "  at rtol 0.001 / 0.01 / 0.1": lambda r: " / ".join(f"{v:.3f}" for v in r.low_rank_band.values()),
    "balanced reference": lambda r: f"{r.balanced:.4f}",
    "output-kernel reference": lambda r: f"{r.output_alignment:.4f}",
    "output rank": lambda r: f"{r.output_rank} of {r.num_outputs}",
    "feature rank": lambda r: f"{r.spectrum.rank} of {r.num_features}",
    "features for 95 % of the outputs": lambda r: _enough(r.spectrum.cumulative_utilization),
    "features for 95 % of the targets": lambda r: _enough(r.spectrum.cumulative_quality),
    "NC1  within / between classes": _collapse("nc1"),
    "NC2  unequal norms": _collapse("nc2_equinorm"),
    "NC2  unequal angles": _collapse("nc2_equiangular"),
    "NC3  head off class means": _collapse("nc3"),
    "NC4  nearest mean disagrees": _collapse("nc4"),
    "samples": lambda r: f"{r.num_samples:,}",
    "head": lambda r: r.head,
}


def _enough(curve: Any) -> str:
    """How many features reach 95 % of everything, if they do."""
    if curve is None:
        return ""
    return str(int((curve < 0.95).sum()) + 1) if curve[-1] >= 0.95 else f"never ({curve[-1]:.2f})"
