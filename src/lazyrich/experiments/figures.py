"""The figures of the experiments: over steps, over the varied factor, and the three curves at several steps or side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np

from .._support.spread import mean_and_sd
from ..results.catalogue import entry
from ..results.curves_panel import draw_curves, draw_moments, evenly, label_curves
from ..results.drawing import (
    COLOURS,
    FAINT,
    INK,
    as_text,
    curve,
    heading,
    new_figure,
    over_steps,
    quiet,
    readable_log,
    save_figure,
)
from .experiment import Results, When, at_the_end
from .fit import comparable, title
from .run_folder import Run
from .setup import Setup

DPI = 130
COLUMNS = 4  # of panels


def over_time(
    results: Results,
    path: Path,
    conditions: Sequence[str] | None = None,
    measures: Sequence[str] = ("low_rank", "balanced"),
    *,
    log_measures: bool = False,
) -> None:
    """Draw each condition with accuracies above and measures below, over steps; bands are one standard deviation over seeds."""
    conditions = conditions or list(results.runs)
    columns = min(len(conditions), COLUMNS)
    rows = -(-len(conditions) // columns)
    figure = new_figure(3.1 * columns + 1.2, 5.2 * rows, "experiments")
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
            bottom.set_ylabel(entry(measures[0]).title if len(measures) == 1 else "measure")
        for measure, colour in zip(("train_accuracy", "test_accuracy"), (FAINT, INK), strict=True):
            _band(top, results.runs[condition], measure, colour)
        for measure, colour in zip(measures, COLOURS, strict=False):
            _band(bottom, results.runs[condition], measure, colour)
        heading(top, as_text(condition), size=10)
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
    save_figure(figure, path, DPI)


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
    """Draw one panel a measure over the varied factor.

    Args:
        lines: name -> {condition: value of the factor}, one line each.
        factor: label of the axis.
        scale: of the axis of the factor, "log" or "linear".
    """
    levels = sorted({level for line in lines.values() for level in line.values()})
    columns = min(len(measures), COLUMNS)
    rows = -(-len(measures) // columns)
    figure = new_figure(2.9 * columns + 0.6, 2.7 * rows + 0.5, "experiments")
    axes: Any = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.flat[len(measures) :]:
        axis.axis("off")
    for axis, measure in zip(axes.flat, measures, strict=False):
        for (name, line), colour in zip(lines.items(), COLOURS, strict=False):
            values = np.array([[run[measure][when(run)] for run in results.runs[condition]] for condition in line]).T
            mean, sd = mean_and_sd(values)
            axis.errorbar(
                np.array(list(line.values()), float), mean, yerr=np.nan_to_num(sd), color=colour,
                label=as_text(name), marker="o", ms=4, lw=1.5, capsize=2.5,
            )  # fmt: skip
        if scale == "log" and levels[0] > 0:
            axis.set_xscale("log")
            axis.set_xticks(levels, [f"{level:,g}" for level in levels])
            axis.minorticks_off()
        elif scale == "log":
            axis.set_xscale("symlog", linthresh=min(level for level in levels if level > 0))
        axis.set_ylim(bottom=min(0.0, axis.dataLim.y0))
        heading(axis, entry(measure).title)
        axis.set_xlabel(factor)
        quiet(axis)
    if len(lines) > 1:
        axes.flat[0].legend(frameon=False, fontsize=8)
    save_figure(figure, path, DPI)


def over_fit(results: Results, path: Path, setups: Mapping[str, Setup]) -> None:
    """Draw D_LR over the training loss, at every evaluation but the start: one panel for each set of comparable conditions.

    A line joins the evaluations of one seed; its last one has the largest mark. Without comparable conditions nothing is drawn.
    """
    groups = comparable(results, setups)
    if not groups:
        return
    columns = min(len(groups), COLUMNS)
    rows = -(-len(groups) // columns)
    figure = new_figure(4.6 * columns + 0.4, 4.4 * rows + 0.3, "experiments")
    axes: Any = figure.subplots(rows, columns, squeeze=False, sharey=True)
    for axis in axes.flat[len(groups) :]:
        axis.axis("off")
    for axis, group in zip(axes.flat, groups, strict=False):
        for name, colour in zip(group, cycle(COLOURS)):
            for k, run in enumerate(results.runs[name]):
                loss, value = run["train_loss"][1:], run["low_rank"][1:]
                axis.plot(loss, value, color=colour, lw=0.7, marker="o", ms=2, alpha=0.6)
                axis.plot(loss[-1:], value[-1:], color=colour, marker="o", ms=6, ls="", label=None if k else as_text(name))
        axis.set_xscale("log")
        readable_log(axis.xaxis)
        axis.set_xlabel("training loss (logarithmic)")
        heading(axis, as_text(title(setups[group[0]])), size=10)
        axis.legend(frameon=False, fontsize=7)
        quiet(axis)
    axes[0, 0].set_ylabel(entry("low_rank").title)
    axes[0, 0].set_ylim(bottom=0)
    save_figure(figure, path, DPI)


def curves_at_moments(results: Results, path: Path, conditions: Sequence[str] | None = None, count: int = 6) -> None:
    """Draw the three curves of the first seed at ``count`` steps, from dark (early) to bright (late); one row a condition."""
    conditions = conditions or list(results.runs)
    figure = new_figure(10.5, 2.7 * len(conditions) + 0.4, "experiments")
    axes: Any = figure.subplots(len(conditions), 3, squeeze=False)
    for row, condition in zip(axes, conditions, strict=True):
        run = results.runs[condition][0]
        chosen = evenly(range(len(run)), count)
        draw_moments(row, [(int(run.steps[k]), run["low_rank"][k], run.curves(k)) for k in chosen])
        heading(row[0], as_text(condition), size=10)
    save_figure(figure, path, DPI)


def side_by_side(results: Results, path: Path, moments: Mapping[str, tuple[str, When]]) -> None:
    """Draw the three curves of the first seed in one row of panels; a line for each moment: label -> (condition, when)."""
    figure = new_figure(11.5, 3.4, "experiments")
    axes: Any = figure.subplots(1, 3)
    for (label, (condition, when)), colour in zip(moments.items(), COLOURS, strict=False):
        run = results.runs[condition][0]
        index = when(run) % len(run.steps)
        value, accuracy = run["low_rank"][index], run["test_accuracy"][index]
        draw_curves(axes, run.curves(index), colour, f"{as_text(label)}\n$D_{{LR}}$ {value:.3f}, test {100 * accuracy:.1f} %")
    label_curves(axes)
    axes[2].legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    save_figure(figure, path, DPI)


def _band(axis: Any, runs: list[Run], measure: str, colour: str) -> None:
    values = np.array([run[measure] for run in runs])
    if not np.isnan(values).all():
        mean, sd = mean_and_sd(values)
        curve(axis, runs[0].steps, mean, np.nan_to_num(sd), color=colour, lw=1.6, label=entry(measure).title)
