"""Figures of a series (matplotlib): numbers over steps, and the three curves at several steps."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import DataError
from .catalogue import entry
from .curves_panel import draw_moments
from .drawing import COLOURS, FAINT, INK, band, heading, new_figure, over_steps, quiet, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from .series import Series

ACCURACIES = {"train_accuracy": FAINT, "test_accuracy": INK, "accuracy": INK}


def plot_series(series: Series, path: str | os.PathLike[str] | None = None, *, moments: int = 6) -> Figure:
    """Draw one figure: D_LR with its error, the rank and the accuracy over steps; below, the three curves at several steps.

    D_LR is the corrected value within 1.96 standard errors where they are known, and the plug-in value as a dashed line. The loss
    is drawn where no accuracy is known. Curves are drawn where they were stored, from dark (early) to bright (late).

    Args:
        series: of a monitor, a trace or an experiment.
        path: file to write; its ending names the format. None only returns the figure.
        moments: largest number of curves.

    Raises:
        DataError: nothing could be measured in the complete series.
        MissingExtraError: matplotlib is not installed.
    """
    known = np.flatnonzero(~np.isnan(series["low_rank"]))
    if not len(known):
        why = next(iter(series.notes.values()), "it is empty")
        raise DataError(f"the series holds no D_LR to draw: {why}")
    with_curves = [index for index in known.tolist() if series.curves(index)]
    figure = new_figure(11, 6.2 if with_curves else 3.2)
    parts: Any = figure.subfigures(2, 1) if with_curves else [figure]
    training = _present(series, ACCURACIES) or _present(series, ["loss"])
    axes = parts[0].subplots(1, 3 if training else 2)
    _richness(axes[0], series)
    axes[1].plot(*_known(series, "output_rank"), color=COLOURS[2], lw=1.6, marker="o", ms=3)
    axes[1].set_ylim(0, 1.1 * max(1.0, *series["output_rank"][known]))
    axes[1].yaxis.get_major_locator().set_params(integer=True)
    heading(axes[1], entry("output_rank").title)
    for measure in training:
        axes[2].plot(
            *_known(series, measure), color=ACCURACIES.get(measure, INK), lw=1.6, marker="o", ms=3,
            label=entry(measure).title,
        )  # fmt: skip
    for axis in axes:
        over_steps(axis, series.steps)
        quiet(axis)
    if training:
        axes[2].set_ylim(0, None if training == ["loss"] else 1.03)
        heading(axes[2], " · ".join(entry(m).title for m in training))
    if len(training) > 1:
        axes[2].legend(frameon=False, fontsize=8)
    if with_curves:
        draw_moments(parts[1].subplots(1, 3), series, with_curves, moments)
    if path is not None:
        save_figure(figure, path)
    return figure


def _richness(axis: Axes, series: Series) -> None:
    """Draw D_LR with its error, and the value of structureless features."""
    corrected, error = series["low_rank_corrected"], 1.96 * series["low_rank_stderr"]
    if not np.isnan(corrected).all():
        band(axis, series.steps, corrected, error, COLOURS[0], "corrected, 95 %")
    axis.plot(*_known(series, "low_rank"), color=COLOURS[0], lw=1, ls="--", marker="o", ms=3.5, mfc="white", label="plug-in")
    highest = [series["low_rank"]]
    if _present(series, ["isotropic"]):
        axis.plot(*_known(series, "isotropic"), color=FAINT, lw=1, label="isotropic features")
        highest.append(series["isotropic"])
    axis.set_ylim(-0.02, 1.08 * np.nanmax(highest))
    heading(axis, "$D_{LR}$:  0 rich  →  lazy")
    axis.legend(frameon=False, fontsize=8)


def _present(series: Series, measures: Iterable[str]) -> list[str]:
    return [measure for measure in measures if not np.isnan(series[measure]).all()]


def _known(series: Series, measure: str) -> tuple[np.ndarray, np.ndarray]:
    known = ~np.isnan(series[measure])
    return series.steps[known], series[measure][known]
