"""The pictures of the experiments: over time, over the varied factor, the three curves at several moments, side by side."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .._extras import needs
from .._files import write_whole
from ..plot import COLOURS, FAINT, INK, quiet
from .experiment import Results, When, at_the_end
from .runs import Run

TITLES = {
    "low_rank": "$D_{LR}$", "balanced": "balanced reference", "output_alignment": "output reference",
    "test_accuracy": "test accuracy", "train_accuracy": "training accuracy", "s_init": "$S_{init}$",
    "parameter_norm": "$\\|\\theta\\|^2$", "parameter_distance": "$\\|\\theta-\\theta_0\\|^2$", "nc1": "NC1",
    "nc2_equinorm": "NC2, norms", "nc2_equiangular": "NC2, angles", "nc3": "NC3", "train_loss": "training loss",
    "test_loss": "test loss", "output_condition": "$\\sigma_1/\\sigma_r$ of the outputs", "output_rank": "rank of the outputs",
    "target_alignment": "kernel-target alignment",
}  # fmt: skip
CURVES = {
    "relative_eigenvalues": "strength $\\rho_k/\\rho_1$",
    "quality": "cumulative quality $\\Pi^*(k)$",
    "utilization": "cumulative utilization $\\hat\\Pi(k)$",
}


def over_time(
    results: Results,
    path: Path,
    conditions: Sequence[str] | None = None,
    measures: Sequence[str] = ("low_rank", "balanced"),
    *,
    log_measures: bool = False,
) -> None:
    """Each condition with accuracies above and measures below, over steps on a log axis; bands are one sd over seeds."""
    conditions = conditions or list(results.runs)
    columns = min(len(conditions), 4)
    rows = -(-len(conditions) // columns)
    figure = _figure(3.1 * columns + 1.2, 5.2 * rows)
    axes: Any = figure.subplots(2 * rows, columns, squeeze=False)
    for axis in axes.flat:
        axis.set_visible(False)
    for k, condition in enumerate(conditions):
        row, column = divmod(k, columns)
        top, bottom = axes[2 * row : 2 * row + 2, column]
        top.sharex(bottom)
        top.sharey(axes[0, 0])
        bottom.sharey(axes[1, 0])
        top.set_visible(True)
        bottom.set_visible(True)
        if column == 0:
            top.set_ylabel("accuracy")
            bottom.set_ylabel(" · ".join(TITLES.get(m, m) for m in measures) if len(measures) < 3 else "measure")
        for measure, colour in zip(("train_accuracy", "test_accuracy"), (FAINT, INK), strict=True):
            _band(top, results.runs[condition], measure, colour)
        for measure, colour in zip(measures, COLOURS, strict=False):
            _band(bottom, results.runs[condition], measure, colour)
        top.set_title(_text(condition), fontsize=10, loc="left", color=INK)
        top.set_ylim(-0.03, 1.03)
        if log_measures:
            bottom.set_yscale("log")
        else:
            bottom.set_ylim(bottom=-0.02)
        bottom.set_xscale("symlog", linthresh=1)
        bottom.set_xlim(left=0)
        bottom.set_xlabel("step")
        quiet(top)
        quiet(bottom)
    axes[0, 0].legend(frameon=False, fontsize=8)
    axes[1, 0].legend(frameon=False, fontsize=8)
    _save(figure, path)


def over_factor(
    results: Results,
    path: Path,
    lines: Mapping[str, Mapping[str, float]],
    factor: str,
    measures: Sequence[str],
    *,
    when: When = at_the_end,
    scale: str = "log",
) -> None:
    """One panel a measure over the varied factor, on a "log" or "linear" scale; a line for each name -> {condition: factor}."""
    given = {value for places in lines.values() for value in places.values()}
    columns = min(len(measures), 4)
    rows = -(-len(measures) // columns)
    figure = _figure(2.9 * columns + 0.6, 2.7 * rows + 0.5)
    axes: Any = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.flat[len(measures) :]:
        axis.axis("off")
    for axis, measure in zip(axes.flat, measures, strict=False):
        for (name, places), colour in zip(lines.items(), COLOURS, strict=False):
            x = np.array(list(places.values()), float)
            values = np.array([[run[measure][when(run)] for run in results.runs[c]] for c in places])
            axis.errorbar(
                x, _mean(values), yerr=_sd(values), color=colour, marker="o", ms=4, lw=1.5, capsize=2.5, label=_text(name)
            )
        if scale == "log" and min(given) > 0:
            axis.set_xscale("log")
            axis.set_xticks(sorted(given), [f"{value:,g}" for value in sorted(given)])
            axis.minorticks_off()
        elif scale == "log":
            axis.set_xscale("symlog", linthresh=min(value for value in given if value > 0))
        axis.set_ylim(bottom=min(0.0, axis.dataLim.y0))
        axis.set_title(TITLES.get(measure, measure), fontsize=9.5, loc="left", color=INK)
        axis.set_xlabel(factor)
        quiet(axis)
    if len(lines) > 1:
        axes.flat[0].legend(frameon=False, fontsize=8)
    _save(figure, path)


def curves_at_moments(results: Results, path: Path, conditions: Sequence[str] | None = None, count: int = 6) -> None:
    """The three curves of the first seed at moments spread over training, dark to bright; one row a condition."""
    import matplotlib

    conditions = conditions or list(results.runs)
    figure = _figure(10.5, 2.7 * len(conditions) + 0.4)
    axes: Any = figure.subplots(len(conditions), 3, squeeze=False)
    shades = matplotlib.colormaps["viridis"]
    for row, condition in zip(axes, conditions, strict=True):
        run = results.runs[condition][0]
        places = np.unique(np.linspace(0, len(run.steps) - 1, count).round().astype(int))
        for place in places:
            curves = run.curves(int(place))
            colour = shades(0.92 * place / max(1, places[-1]))
            _three(row, curves, colour, f"step {run.steps[place]:,}:  {run['low_rank'][place]:.3f}")
        _label(row, condition)
        legend = row[2].legend(frameon=False, fontsize=7.5, loc="center left", bbox_to_anchor=(1, 0.5), title="$D_{LR}$")
        legend.get_title().set_fontsize(8)
    _save(figure, path)


def side_by_side(results: Results, path: Path, moments: Mapping[str, tuple[str, When]]) -> None:
    """The three curves of the first seed in one row of panels; a line for each moment: label -> (condition, when)."""
    figure = _figure(11.5, 3.4)
    axes: Any = figure.subplots(1, 3)
    for (label, (condition, when)), colour in zip(moments.items(), COLOURS, strict=False):
        run = results.runs[condition][0]
        place = when(run) % len(run.steps)
        value, accuracy = run["low_rank"][place], run["test_accuracy"][place]
        _three(axes, run.curves(place), colour, f"{_text(label)}\n$D_{{LR}}$ {value:.3f}, test {100 * accuracy:.1f} %")
    _label(axes, "")
    axes[2].legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    _save(figure, path)


def _three(axes: Any, curves: Mapping[str, np.ndarray], colour: Any, label: str) -> None:
    for axis, name in zip(axes, CURVES, strict=True):
        if name in curves:
            curve = curves[name]
            kept = curve[curve > 1e-8] if name == "relative_eigenvalues" else curve
            axis.plot(np.arange(1, len(kept) + 1), kept, color=colour, lw=1.5, label=label)


def _label(axes: Any, title: str) -> None:
    for axis, name in zip(axes, CURVES, strict=True):
        axis.set_xscale("log")
        axis.set(xlabel="feature $k$, strongest first", ylabel=CURVES[name])
        if name != "relative_eigenvalues":
            axis.set_ylim(-0.03, 1.05)
        quiet(axis)
    axes[0].set_yscale("log")
    axes[0].set_title(_text(title), fontsize=10, loc="left", color=INK)


def _band(axis: Any, runs: list[Run], measure: str, colour: str) -> None:
    values = np.array([run[measure] for run in runs]).T
    if np.isnan(values).all():
        return
    mean, sd = _mean(values), _sd(values)
    axis.plot(runs[0].steps, mean, color=colour, lw=1.6, label=TITLES.get(measure, measure))
    axis.fill_between(runs[0].steps, mean - sd, mean + sd, color=colour, alpha=0.18, lw=0)


def _mean(values: np.ndarray) -> np.ndarray:
    """Over seeds (the last axis), without what could not be measured."""
    known = ~np.isnan(values)
    return np.where(known, values, 0).sum(-1) / np.where(known.any(-1), known.sum(-1), np.nan)


def _sd(values: np.ndarray) -> np.ndarray:
    known = ~np.isnan(values)
    squares = np.where(known, values - _mean(values)[..., None], 0) ** 2
    return np.sqrt(squares.sum(-1) / np.maximum(known.sum(-1) - 1, 1))


def _figure(width: float, height: float) -> Any:
    needs("matplotlib", "experiments")
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _text(name: str) -> str:
    return name.replace("$", r"\$")  # a name is text, not a formula


def _save(figure: Any, path: Path) -> None:
    whole = io.BytesIO()
    figure.savefig(whole, format="png", dpi=130)
    write_whole(path, lambda file: file.write(whole.getbuffer()))
