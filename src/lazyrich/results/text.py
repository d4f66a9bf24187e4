"""Results as aligned text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .._support.text import plain

if TYPE_CHECKING:
    from ..functional import FeatureSpectrum
    from .richness import LayerRichness, Richness
    from .series import Series


def table(results: dict[str, Richness]) -> str:
    """Results side by side, one column each, as aligned text."""
    rows: list[list[str]] = []
    if any(results):
        rows.append(["", *results])
    for label, read in _ROWS.items():
        cells = [read(r) for r in results.values()]
        if any(cells):
            rows.append([label, *cells])
    lines = aligned(rows)
    lines.insert(1 if any(results) else 0, "─" * max(map(len, lines)))
    notes = {note: [name for name, r in results.items() if note in r.notes] for r in results.values() for note in r.notes}
    for note, names in notes.items():
        lines.append(plain(f"! {', '.join(filter(None, names))}{': ' if any(names) else ''}{note}"))
    return "\n".join(lines)


def layer_table(layers: dict[str, LayerRichness]) -> str:
    """One row a layer, in the order they ran, as aligned text."""
    rows = [["layer", "features", "D_LR", "corrected", "isotropic", "balanced", "participation ratio"]]
    for name, layer in layers.items():
        value = f"{layer.low_rank:.4f}" + (f" ± {layer.reduction_stderr:.4f}" if layer.reduction_stderr is not None else "")
        estimate = _with_error(layer.low_rank_corrected, layer.low_rank_stderr) or "-"
        mark = " *" if layer.reduction_stderr is not None else ""
        cells = [name or "(the model)", f"{layer.num_features:,}{mark}", value, estimate]
        rows.append([*cells, f"{layer.isotropic:.4f}", f"{layer.balanced:.4f}", f"{layer.participation_ratio:.1f}"])
    lines = aligned(rows)
    lines.insert(1, "─" * max(map(len, lines)))
    if any(layer.reduction_stderr is not None for layer in layers.values()):
        lines.append("* by a random projection; ± is its standard error")
    return "\n".join(lines)


def series_table(series: Series) -> str:
    """One row an evaluation, as aligned text; what was never measured has no column."""
    columns = {label: name for label, name in _SERIES.items() if name in series.measures}
    rows = [["step", *columns]]
    for place, step in enumerate(series.steps.tolist()):
        cells = [series[name][place] for name in columns.values()]
        rows.append([f"{step:,}", *("-" if value != value else f"{value:.4g}" for value in cells)])
    lines = aligned(rows)
    lines.insert(1, "─" * max(map(len, lines)))
    return "\n".join([*lines, *(f"! step {step:,}: {note}" for step, note in series.notes.items())])


def aligned(rows: list[list[str]]) -> list[str]:
    """Rows of cells as lines, every column as wide as its widest cell; what does not print is written out."""
    rows = [[plain(cell) for cell in row] for row in rows]
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _with_error(value: float | None, error: float | None) -> str:
    return "" if value is None or error is None else f"{value:.4f} ± {error:.4f}"


def _compared(name: str, form: str = ".4g") -> Any:
    def read(r: Richness) -> str:
        value = None if r.comparison is None else getattr(r.comparison, name)
        return "" if value is None else f"{value:{form}}"

    return read


def _collapse(name: str) -> Any:
    def read(r: Richness) -> str:
        value = None if r.neural_collapse is None else getattr(r.neural_collapse, name)
        return "" if value is None else f"{value:.4g}"

    return read


_ROWS: dict[str, Any] = {
    "D_LR (0 = rich)": lambda r: f"{r.low_rank:.4f}",
    "  bias-corrected": lambda r: _with_error(r.low_rank_corrected, r.low_rank_stderr) or "-",
    "  isotropic features": lambda r: f"{r.isotropic:.4f}",
    "  at rtol 0.001 / 0.01 / 0.1": lambda r: " / ".join(f"{v:.3f}" for v in r.low_rank_band.values()),
    "balanced reference": lambda r: f"{r.balanced:.4f}",
    "  bias-corrected ": lambda r: _with_error(r.balanced_corrected, r.balanced_stderr),
    "output-kernel reference": lambda r: f"{r.output_alignment:.4f}",
    "  bias-corrected  ": lambda r: _with_error(r.output_alignment_corrected, r.output_alignment_stderr),
    "output singular values": lambda r: _values(r.output_singular_values),
    "output rank": lambda r: f"{r.output_rank} of {r.num_outputs}",
    "feature rank": lambda r: f"{'at least ' if r.spectrum.rank_is_bound else ''}{r.spectrum.rank} of {r.num_features}",
    "features for 95 % of the outputs": lambda r: _enough(r.spectrum, r.spectrum.cumulative_utilization),
    "features for 95 % of the targets": lambda r: _enough(r.spectrum, r.spectrum.cumulative_quality),
    "NC1  within / between classes": _collapse("nc1"),
    "NC2  unequal norms": _collapse("nc2_equinorm"),
    "NC2  unequal angles": _collapse("nc2_equiangular"),
    "NC3  head off class means": _collapse("nc3"),
    "NC4  nearest mean disagrees": _collapse("nc4"),
    "S_init  alignment with the start": _compared("initial_alignment"),
    "‖θ‖²": _compared("squared_parameter_norm"),
    "‖θ - θ₀‖²": _compared("squared_parameter_distance"),
    "kernel-target alignment": _compared("target_alignment"),
    "participation ratio": _compared("participation_ratio"),
    "effective rank": _compared("effective_rank"),
    "RankMe": _compared("rankme"),
    "stable rank": _compared("stable_rank"),
    "α-ReQ exponent": _compared("spectral_exponent"),
    "samples": lambda r: f"{r.num_samples:,}",
    "head": lambda r: r.head,
}


_SERIES = {
    "D_LR": "low_rank", "corrected": "low_rank_corrected", "± stderr": "low_rank_stderr", "isotropic": "isotropic",
    "balanced": "balanced", "output rank": "output_rank", "S_init": "s_init", "NC1": "nc1", "test accuracy": "test_accuracy",
    "loss": "loss",
}  # fmt: skip


def _enough(spectrum: FeatureSpectrum, curve: Any) -> str:
    """How many features reach 95 % of everything, if they do."""
    if curve is None:
        return ""
    if curve[-1] >= 0.95:
        return str(int((curve < 0.95).sum()) + 1)
    where = f"not in the first {len(curve):,}" if spectrum.rank_is_bound else "never"
    return f"{where} ({curve[-1]:.2f})"


def _values(values: tuple[float, ...]) -> str:
    """The largest, the middle one and the smallest."""
    if len(values) <= 3:
        return " ".join(f"{v:.3g}" for v in values)
    return f"{values[0]:.3g} … {values[len(values) // 2]:.3g} … {values[-1]:.3g}"
