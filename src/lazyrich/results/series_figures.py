"""Figures of a series (matplotlib): numbers over steps, and the three curves at several steps."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import DataError
from .catalogue import entry, ordered
from .curves_panel import draw_moments, evenly
from .drawing import COLOURS, FAINT, STYLES, curve, heading, new_figure, over_steps, quiet, save_figure, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WITH_ERROR = ("low_rank", "laziness")
TRAINING = (["train_accuracy", "test_accuracy", "accuracy"], ["loss"])  # the first that is known is drawn


def plot_series(
    steps: np.ndarray,
    values: Mapping[str, np.ndarray],
    curves: Callable[[int], Mapping[str, np.ndarray]],
    notes: Mapping[int, str],
    path: str | os.PathLike[str] | None = None,
    *,
    moments: int = 6,
    ax: Axes | None = None,
    measure: str = "low_rank",
    style: Any = None,
) -> Figure:
    """Draw one figure: D_LR with its error, λ, the rank and the accuracy over steps; below, the three curves at several steps.

    D_LR and λ are the corrected value within 1.96 standard errors where they are known, and the plug-in value as a dashed line.
    λ is drawn where it is known, and the loss where no accuracy is known. A measure that ``extra`` asked for has its own panel.
    Curves are drawn where they were stored, from dark (early) to bright (late). A line over steps is dotted where nothing was
    measured for a long time.

    Args:
        steps: (evaluations,) steps at which the network was measured.
        values: name -> (evaluations,) one number over training; NaN where it could not be measured.
        curves: returns the curves of an evaluation, given its index.
        notes: step -> why nothing could be measured there.
        path: file to write; its ending names the format. None only returns the figure.
        moments: largest number of curves.
        ax: axes in which to draw ``measure`` alone, with its error where that is known; by default a new figure with all.
        style: a style of matplotlib, such as "dark_background"; see :func:`matplotlib.style.context`.

    Returns:
        The new figure, or that of ``ax``.

    Raises:
        DataError: nothing could be measured in the complete series, or not this measure.
        MissingExtraError: matplotlib is not installed.
    """
    values = {name: of for name, of in values.items() if not np.isnan(of).all()}
    if measure not in values:
        raise DataError(f"the series holds no {entry(measure).symbol} to draw: {next(iter(notes.values()), 'it is empty')}")
    with styled(style):
        if ax is None:
            figure = _complete(steps, values, curves, moments)
        else:
            _panel(ax, steps, values, [measure])
            figure: Any = ax.figure
        if path is not None:
            save_figure(figure, path)
    return figure


def _complete(
    steps: np.ndarray, values: Mapping[str, np.ndarray], curves: Callable[[int], Mapping[str, np.ndarray]], moments: int
) -> Figure:
    """The numbers over steps above and the curves below."""
    known = [index for index in np.flatnonzero(~np.isnan(values["low_rank"])).tolist() if curves(index)]
    training = next((found for names in TRAINING if (found := [name for name in names if name in values])), [])
    added = [[name] for name in ordered(values) if entry(name).compute is not None]
    with_error = [[name] for name in WITH_ERROR if name in values]
    panels = [names for names in (*with_error, ["output_rank"], training, *added) if names]
    figure = new_figure(max(11, 3.6 * len(panels)), 6.2 if known else 3.2)
    parts: Any = figure.subfigures(2, 1) if known else [figure]
    for axis, names in zip(np.atleast_1d(parts[0].subplots(1, len(panels))), panels, strict=True):
        _panel(axis, steps, values, names)
    if known:
        chosen = evenly(known, moments)
        draw_moments(parts[1].subplots(1, 3), [(int(steps[k]), values["low_rank"][k], curves(k)) for k in chosen])
    return figure


def _panel(axis: Axes, steps: np.ndarray, values: Mapping[str, np.ndarray], names: Sequence[str]) -> None:
    """Draw measures over steps."""
    draw = {"low_rank": _richness, "laziness": _laziness}.get(names[0])
    if draw is None:
        _lines(axis, steps, values, names)
    else:
        draw(axis, steps, values)
    over_steps(axis, steps)
    quiet(axis)


def _richness(axis: Axes, steps: np.ndarray, values: Mapping[str, np.ndarray]) -> None:
    """Draw D_LR with its error, and the value of structureless features."""
    _with_error(axis, steps, values, "low_rank")
    highest = [values["low_rank"]]
    if "isotropic" in values:
        curve(axis, steps, values["isotropic"], color=FAINT, lw=1, label="isotropic features")
        highest.append(values["isotropic"])
    axis.set_ylim(-0.02, 1.08 * np.nanmax(highest))
    heading(axis, "$D_{LR}$:  0 rich  →  lazy")
    axis.legend(frameon=False, fontsize=8)


def _laziness(axis: Axes, steps: np.ndarray, values: Mapping[str, np.ndarray]) -> None:
    """Draw λ with its error."""
    _with_error(axis, steps, values, "laziness")
    axis.set_ylim(0, None)
    heading(axis, "λ:  0 rich  →  1 features of the start")
    axis.legend(frameon=False, fontsize=8)


def _with_error(axis: Axes, steps: np.ndarray, values: Mapping[str, np.ndarray], name: str) -> None:
    """Draw the corrected values of a measure within 1.96 standard errors, and its plug-in values."""
    if f"{name}_corrected" in values:
        error = 1.96 * values.get(f"{name}_stderr", np.full(len(steps), np.nan))
        curve(axis, steps, values[f"{name}_corrected"], error, color=COLOURS[0], lw=1.6, label="corrected, 95 %")
    style: dict[str, Any] = {"color": COLOURS[0], "lw": 1, "ls": "--", "marker": "o", "ms": 3.5, "mfc": "white"}
    curve(axis, steps, values[name], label="plug-in", **style)
    axis.set_ylabel(entry(name).title)


def _lines(axis: Any, steps: np.ndarray, values: Mapping[str, np.ndarray], names: Sequence[str]) -> None:
    """Draw one line for each measure; counts, shares and losses start at 0."""
    from matplotlib.ticker import PercentFormatter

    for name, style in zip(names, STYLES, strict=False):
        curve(axis, steps, values[name], color=COLOURS[0], ls=style, lw=1.6, marker="o", ms=3, label=entry(name).title)
    shares = "%" in entry(names[0]).format
    heading(axis, "accuracy" if shares else entry(names[0]).title)
    axis.set_ylabel("share of the samples" if shares else entry(names[0]).title)
    if len(names) > 1:
        axis.legend(frameon=False, fontsize=8, handlelength=3)
    if shares:
        axis.set_ylim(0, 1.03)
        axis.yaxis.set_major_formatter(PercentFormatter(1))
    elif "," in entry(names[0]).format:
        axis.set_ylim(0, 1.1 * max(1.0, np.nanmax(values[names[0]])))
        axis.yaxis.get_major_locator().set_params(integer=True)
    elif names == ["loss"]:
        axis.set_ylim(0, None)
