"""The figure of a comparison of networks (matplotlib): each value with its error, and the differences with theirs."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from .catalogue import entry
from .drawing import COLOURS, FAINT, as_text, heading, ink, new_figure, quiet, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from .comparison import Difference

MEASURES = {"low_rank": "$D_{LR}$:  0 rich  →  lazy", "laziness": "λ:  0 rich  →  1 features of the start"}


def plot_comparison(
    values: Mapping[str, Mapping[str, float]],
    differences: Mapping[str, Mapping[tuple[str, str], Difference]],
    path: str | os.PathLike[str] | None = None,
) -> Figure:
    """Draw D_LR of each network at the left and the differences of all pairs at the right; below the same of λ where it is known.

    Args:
        values: name of the network -> its numbers, by their names in the catalogue; up to six networks.
        differences: measure -> (first, second) -> difference.
        path: file to write; its ending names the format. None only returns the figure.

    Raises:
        ValueError: more than six networks.
        MissingExtraError: matplotlib is not installed.
    """
    if len(values) > len(COLOURS):
        raise ValueError(f"one figure shows at most {len(COLOURS)} networks, got {len(values)}")
    measures = [measure for measure in MEASURES if measure in differences]
    rows = max(len(values), max(len(differences[measure]) for measure in measures))
    figure = new_figure(11, len(measures) * (1.3 + 0.32 * rows))
    axes: Any = figure.subplots(len(measures), 2, squeeze=False)
    for (left, right), measure in zip(axes, measures, strict=True):
        _networks(left, values, measure)
        _differences(right, differences[measure], entry(measure).math or entry(measure).symbol)
    if path is not None:
        save_figure(figure, path)
    return figure


def _networks(axis: Axes, values: Mapping[str, Mapping[str, float]], measure: str) -> None:
    """Draw the plug-in value of each network, and the corrected one within 1.96 standard errors."""
    for y, ((_, of), colour) in enumerate(zip(values.items(), COLOURS, strict=False)):
        if measure in of:
            axis.plot(of[measure], y, "o", mfc="white", mec=colour, ms=8, mew=1.8, zorder=3)
        if f"{measure}_stderr" in of:
            _bar(axis, of[f"{measure}_corrected"], y, [1.96 * of[f"{measure}_stderr"]] * 2, colour)
    highest = max((of[measure] for of in values.values() if measure in of), default=1.0)
    axis.set_xlim(0, max(1.0, 1.08 * highest))
    axis.set_xlabel("○ plug-in,   ◆ bias-corrected with 95 % interval")
    heading(axis, MEASURES[measure])
    _names(axis, [as_text(name) for name in values])


def _differences(axis: Axes, differences: Mapping[tuple[str, str], Difference], symbol: str) -> None:
    """Draw each difference with its interval; what the data cannot decide is grey."""
    axis.axvline(0, color=FAINT, lw=0.8, zorder=0)
    for y, one in enumerate(differences.values()):
        colour = ink() if one.decided else FAINT
        if one.interval is None:
            axis.plot(one.value, y, "o", mfc="white", mec=FAINT, ms=6, mew=1.5)
        else:
            _bar(axis, one.value, y, [one.value - one.interval[0], one.interval[1] - one.value], colour)
    axis.set_xlabel("◆ with paired 95 % interval;   grey: the data cannot tell which is richer")
    heading(axis, f"Differences of {symbol}:  below 0 the first is richer")
    _names(axis, [f"{as_text(a)} - {as_text(b)}" for a, b in differences])


def _bar(axis: Axes, value: float, y: float, sides: list[float], colour: str) -> None:
    axis.errorbar(value, y, xerr=[[sides[0]], [sides[1]]], fmt="D", color=colour, ms=3.5, capsize=3, lw=1.4, zorder=4)


def _names(axis: Axes, names: list[str]) -> None:
    """Put a name at each row, the first one on top."""
    axis.set_yticks(range(len(names)), names)
    axis.set_ylim(len(names) - 0.4, -0.6)
    quiet(axis)
    axis.spines["left"].set_visible(False)
    axis.tick_params(axis="y", length=0)
