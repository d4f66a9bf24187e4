"""The pictures of the experiments: over time, over the varied factor, the three curves at several moments, side by side."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .._support.extras import needs
from .._support.files import write_whole
from .._support.spread import mean, sd
from ..results.figures import COLOURS, FAINT, INK, quiet
from ..results.series_figures import TITLES, as_text, band, draw_curves, draw_moments, label_curves, over_steps
from .experiment import Results, When, at_the_end
from .runs import Run


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
        top.set_title(as_text(condition), fontsize=10, loc="left", color=INK)
        top.set_ylim(-0.03, 1.03)
        if log_measures:
            bottom.set_yscale("log")
        else:
            bottom.set_ylim(bottom=-0.02)
        over_steps(bottom, results.runs[condition][0].steps)
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
            values = np.array([[run[measure][when(run)] for run in results.runs[c]] for c in places]).T
            axis.errorbar(
                x, mean(values), yerr=np.nan_to_num(sd(values)), color=colour, label=as_text(name),
                marker="o", ms=4, lw=1.5, capsize=2.5,
            )  # fmt: skip
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
    conditions = conditions or list(results.runs)
    figure = _figure(10.5, 2.7 * len(conditions) + 0.4)
    axes: Any = figure.subplots(len(conditions), 3, squeeze=False)
    for row, condition in zip(axes, conditions, strict=True):
        run = results.runs[condition][0]
        draw_moments(row, run, range(len(run)), count)
        row[0].set_title(as_text(condition), fontsize=10, loc="left", color=INK)
    _save(figure, path)


def side_by_side(results: Results, path: Path, moments: Mapping[str, tuple[str, When]]) -> None:
    """The three curves of the first seed in one row of panels; a line for each moment: label -> (condition, when)."""
    figure = _figure(11.5, 3.4)
    axes: Any = figure.subplots(1, 3)
    for (label, (condition, when)), colour in zip(moments.items(), COLOURS, strict=False):
        run = results.runs[condition][0]
        place = when(run) % len(run.steps)
        value, accuracy = run["low_rank"][place], run["test_accuracy"][place]
        draw_curves(axes, run.curves(place), colour, f"{as_text(label)}\n$D_{{LR}}$ {value:.3f}, test {100 * accuracy:.1f} %")
    label_curves(axes)
    axes[2].legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    _save(figure, path)


def _band(axis: Any, runs: list[Run], measure: str, colour: str) -> None:
    values = np.array([run[measure] for run in runs])
    if np.isnan(values).all():
        return
    middle, spread = mean(values), np.nan_to_num(sd(values))
    band(axis, runs[0].steps, middle, spread, colour, TITLES.get(measure, measure))


def _figure(width: float, height: float) -> Any:
    needs("matplotlib", "experiments")
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _save(figure: Any, path: Path) -> None:
    whole = io.BytesIO()
    figure.savefig(whole, format="png", dpi=130)
    write_whole(path, lambda file: file.write(whole.getbuffer()))
