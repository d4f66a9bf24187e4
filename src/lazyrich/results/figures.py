"""Figures of results (matplotlib): D_LR on its scale with the three curves, and D_LR over the layers."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sized
from dataclasses import dataclass
from itertools import cycle
from typing import TYPE_CHECKING, Any

import numpy as np

from .catalogue import entry
from .curves_panel import draw_curves, label_curves
from .drawing import COLOURS, FAINT, STYLES, as_text, heading, ink, new_figure, quiet, save_figure, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MEANINGS = (
    "Strength of the k-th feature",
    "Quality: target space in the first k",
    "Utilization: learned space in the first k",
)


@dataclass(frozen=True, eq=False)
class Shown:
    """What the figure shows of one result.

    Attributes:
        numbers: by their names in the catalogue.
        interval: 95 % interval of the corrected D_LR, or None.
        curves: the three curves by name, for all features or the leading ones.
        rank: how many eigenvalues are above rounding.
    """

    numbers: Mapping[str, float]
    interval: tuple[float, float] | None
    curves: Mapping[str, np.ndarray]
    rank: int


def plot_richness(
    results: Mapping[str, Shown], path: str | os.PathLike[str] | None = None, *, ax: Axes | None = None, style: Any = None
) -> Figure:
    """Draw one figure of one or several results: D_LR on its scale above, the three curves below.

    Args:
        results: name -> what is shown of the result; up to six.
        path: file to write; its ending names the format. None only returns the figure.
        ax: axes in which to draw the scale of D_LR alone; by default a new figure with all.
        style: a style of matplotlib, such as "dark_background"; see :func:`matplotlib.style.context`.

    Returns:
        The new figure, or that of ``ax``.

    Raises:
        ValueError: no results, or more than six.
        MissingExtraError: matplotlib is not installed.
    """
    _check_count(results)
    with styled(style):
        if ax is None:
            figure = _complete(results)
        else:
            _scale(ax, results)
            figure: Any = ax.figure
        if path is not None:
            save_figure(figure, path)
    return figure


def _complete(results: Mapping[str, Shown]) -> Figure:
    """The scale above and the three curves below."""
    height = 0.9 + 0.34 * len(results)
    figure = new_figure(11, 3.9 + height)
    subfigures: Any = figure.subfigures(2, 1, height_ratios=[height, 3.9])
    top, bottom = subfigures
    _scale(top.subplots(), results)
    axes = bottom.subplots(1, 3)
    widest = 0
    for (name, r), colour, style in zip(results.items(), COLOURS, cycle(STYLES), strict=False):
        draw_curves(axes, r.curves, colour, name, rank=r.rank, style=style)
        k, width = len(r.curves["relative_eigenvalues"]), int(r.numbers["num_features"])
        if k < width:
            _mark_leading_part(axes, k, width, colour)
        widest = max(widest, width)
    label_curves(axes)
    for axis, meaning in zip(axes, MEANINGS, strict=True):
        axis.set_xlim(0.9, widest * 1.1)
        heading(axis, meaning, size=9)
    if all("quality" not in r.curves for r in results.values()):
        axes[1].text(0.5, 0.5, "no targets given", transform=axes[1].transAxes, ha="center", color=FAINT)
    for rank in sorted({int(r.numbers["output_rank"]) for r in results.values()}):
        for axis in axes:
            axis.axvline(rank, color=FAINT, lw=0.8, ls="--", zorder=0)
        _upright(axes[0], f"output rank {rank}", (rank, 0.02), FAINT, ha="right", va="bottom")
    return figure


def plot_layers(
    results: Mapping[str, Mapping[str, Mapping[str, float]]],
    path: str | os.PathLike[str] | None = None,
    *,
    ax: Axes | None = None,
    style: Any = None,
) -> Figure:
    """Draw D_LR of the input of each layer, in the order in which they ran, for one or several networks with the same layers.

    Args:
        results: name of the result -> name of the layer -> its numbers, by their names in the catalogue; up to six results.
        path: file to write; its ending names the format. None only returns the figure.
        ax: axes to draw in; by default a new figure.
        style: a style of matplotlib, such as "dark_background"; see :func:`matplotlib.style.context`.

    Returns:
        The new figure, or that of ``ax``.

    Raises:
        ValueError: no results, more than six, or results without the same layers.
        MissingExtraError: matplotlib is not installed.
    """
    _check_count(results)
    first, *_ = results.values()
    names = list(first)
    if not names or any(list(layers) != names for layers in results.values()):
        raise ValueError('the results hold no layers, or different ones; measure them with layers="all" or the same names')
    with styled(style):
        axis: Any = ax or new_figure(min(24, max(6.5, 2.6 + 0.42 * len(names))), 4.6).subplots()
        _draw_layers(axis, results, names)
        if path is not None:
            save_figure(axis.figure, path)
    return axis.figure


def _draw_layers(axis: Axes, results: Mapping[str, Mapping[str, Mapping[str, float]]], names: list[str]) -> None:
    first, *_ = results.values()
    depth = np.arange(len(names))
    for (label, layers), colour, style in zip(results.items(), COLOURS, cycle(STYLES), strict=False):
        values = [layer["low_rank"] for layer in layers.values()]
        error = [1.96 * layer.get("low_rank_stderr", layer.get("reduction_stderr", 0.0)) for layer in layers.values()]
        line: dict[str, Any] = {"color": colour, "ls": style, "lw": 1.6, "marker": "o", "ms": 5}
        axis.errorbar(depth, values, yerr=error, capsize=2.5, label=as_text(label), zorder=3, **line)
        balanced = [layer["balanced"] for layer in layers.values()]
        axis.plot(depth, balanced, color=colour, lw=1.2, ls=":", marker=".", ms=5, zorder=2)
    for k, layer in enumerate(first.values()):
        axis.plot([k - 0.3, k + 0.3], [layer.get("isotropic", np.nan)] * 2, color=FAINT, lw=1.2, zorder=1)
    axis.plot([], [], color=ink(), lw=1.2, ls=":", marker=".", label=entry("balanced").label)
    axis.plot([], [], color=FAINT, lw=1.2, label=entry("isotropic").label)
    axis.set_xticks(depth, [as_text(name) or "(the model)" for name in names], rotation=90 if len(names) > 6 else 0)
    axis.set(ylim=(-0.03, 1.03), xlabel="layer (measured at its input)", ylabel="$D_{LR}$ against the outputs:  0 rich  →  lazy")
    quiet(axis)
    axis.legend(frameon=False, fontsize=8, loc="lower left", bbox_to_anchor=(0, 1), ncols=len(results) + 2)


def _check_count(results: Sized) -> None:
    if not 1 <= len(results) <= len(COLOURS):
        raise ValueError(f"one figure shows 1 to {len(COLOURS)} results, got {len(results)}")


def _mark_leading_part(axes: Any, k: int, num_features: int, colour: str) -> None:
    """Say why a curve ends early: only the leading part of the spectrum was computed."""
    for axis in axes:
        axis.axvline(k, color=colour, lw=0.8, ls=":", zorder=0)
    _upright(axes[0], f"the leading {k:,} of {num_features:,}", (k, 0.98), colour, ha="left", va="top")


def _upright(axis: Axes, text: str, at: tuple[float, float], colour: str, **alignment: Any) -> None:
    """Write next to a vertical line, at a feature and a fraction of the height."""
    axis.annotate(text, at, xycoords=("data", "axes fraction"), rotation=90, fontsize=7.5, color=colour, **alignment)


def _scale(axis: Axes, results: Mapping[str, Shown]) -> None:
    """Draw D_LR between 0 and 1: the plug-in value, the corrected one with its 95 % interval, the isotropic baseline."""
    for row, ((name, r), colour) in enumerate(zip(results.items(), COLOURS, strict=False)):
        y, low_rank, isotropic = -row, r.numbers["low_rank"], r.numbers.get("isotropic", np.nan)
        axis.plot([0, isotropic], [y, y], color=colour, lw=5, alpha=0.18, solid_capstyle="butt", zorder=0)
        axis.plot(isotropic, y, "|", color=ink(), ms=13, mew=1.5)
        axis.plot(low_rank, y, "o", mfc="white", mec=colour, ms=8, mew=1.8, zorder=3)
        text = f"{low_rank:.3f}"
        if "low_rank_stderr" in r.numbers:
            corrected, stderr = r.numbers["low_rank_corrected"], r.numbers["low_rank_stderr"]
            low, high = r.interval or (corrected, corrected)
            error = [[corrected - low], [high - corrected]]
            axis.errorbar(corrected, y, xerr=error, fmt="D", color=colour, ms=3.5, capsize=3, lw=1.2, zorder=4)
            text += f"   (corrected {corrected:.3f} ± {stderr:.3f})"
        axis.annotate(
            f"{as_text(name)}   $D_{{LR}}$ = {text}", (0, y), xytext=(0, 8), textcoords="offset points", fontsize=9,
            color=colour, annotation_clip=False, va="bottom",
        )  # fmt: skip
    *_, last = results.values()
    axis.annotate(
        entry("isotropic").label, (last.numbers.get("isotropic", np.nan), 1 - len(results)), xytext=(0, -10),
        textcoords="offset points", fontsize=7.5, ha="center", va="top", color=ink(), annotation_clip=False,
    )  # fmt: skip
    axis.set(xlim=(-0.01, 1), ylim=(0.45 - len(results), 0.75), yticks=[])
    axis.set_xlabel("$D_{LR}$:   0 rich   →   lazy;   ○ plug-in,   ◆ bias-corrected with 95 % interval", fontsize=9, color=ink())
    quiet(axis)
    axis.spines["left"].set_visible(False)
