"""Figures of results (matplotlib): D_LR on its scale with the three curves, and D_LR over the layers."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np

from .curves_panel import draw_curves, label_curves
from .drawing import COLOURS, FAINT, INK, as_text, heading, new_figure, quiet, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from .richness import Richness

MEANINGS = (
    "Strength of the k-th feature",
    "Quality: target space in the first k",
    "Utilization: learned space in the first k",
)


def plot_richness(results: dict[str, Richness], path: str | os.PathLike[str] | None = None) -> Figure:
    """Draw one figure of one or several results: D_LR on its scale above, the three curves below.

    Args:
        results: name -> result; up to six.
        path: file to write; its ending names the format. None only returns the figure.

    Raises:
        ValueError: no results, or more than six.
        MissingExtraError: matplotlib is not installed.
    """
    _check_count(results)
    height = 0.9 + 0.34 * len(results)
    figure = new_figure(11, 3.9 + height)
    subfigures: Any = figure.subfigures(2, 1, height_ratios=[height, 3.9])
    top, bottom = subfigures
    _scale(top.subplots(), results)
    axes = bottom.subplots(1, 3)
    for (name, r), colour in zip(results.items(), COLOURS, strict=False):
        draw_curves(axes, r.curves(), colour, name, rank=r.spectrum.rank)
        if not r.spectrum.whole:
            _mark_leading_part(axes, len(r.spectrum.eigenvalues), r.num_features, colour)
    label_curves(axes)
    widest = max(r.num_features for r in results.values())
    for axis, meaning in zip(axes, MEANINGS, strict=True):
        axis.set_xlim(0.9, widest * 1.1)
        heading(axis, meaning, size=9)
    if all(r.spectrum.quality is None for r in results.values()):
        axes[1].text(0.5, 0.5, "no targets given", transform=axes[1].transAxes, ha="center", color=FAINT)
    for rank in sorted({r.output_rank for r in results.values()}):
        for axis in axes:
            axis.axvline(rank, color=FAINT, lw=0.8, ls="--", zorder=0)
        _upright(axes[0], f"output rank {rank}", (rank, 0.02), FAINT, ha="right", va="bottom")
    if path is not None:
        save_figure(figure, path)
    return figure


def plot_layers(results: dict[str, Richness], path: str | os.PathLike[str] | None = None) -> Figure:
    """Draw D_LR of the input of each layer, in the order in which they ran, for one or several networks with the same layers.

    Args:
        results: name -> result, measured with ``layers=``; up to six.
        path: file to write; its ending names the format. None only returns the figure.

    Raises:
        ValueError: no results, more than six, or results without the same layers.
        MissingExtraError: matplotlib is not installed.
    """
    _check_count(results)
    names = list(next(iter(results.values())).layers)
    if not names or any(list(r.layers) != names for r in results.values()):
        raise ValueError('the results hold no layers, or different ones; measure them with layers="all" or the same names')
    figure = new_figure(min(24, max(6.5, 2.6 + 0.42 * len(names))), 4.6)
    axis = figure.subplots()
    depth = np.arange(len(names))
    for (label, r), colour in zip(results.items(), COLOURS, strict=False):
        layers = list(r.layers.values())
        values = [layer.low_rank for layer in layers]
        error = [1.96 * (layer.low_rank_stderr or layer.reduction_stderr or 0.0) for layer in layers]
        axis.errorbar(
            depth, values, yerr=error, color=colour, marker="o", ms=5, lw=1.6, capsize=2.5, label=as_text(label), zorder=3
        )
        axis.plot(depth, [layer.balanced for layer in layers], color=colour, lw=1.2, ls="--", marker=".", ms=5, zorder=2)
    for k, layer in enumerate(next(iter(results.values())).layers.values()):
        axis.plot([k - 0.3, k + 0.3], [layer.isotropic] * 2, color=FAINT, lw=1.2, zorder=1)
    axis.plot([], [], color=INK, lw=1.2, ls="--", marker=".", label="balanced reference")
    axis.plot([], [], color=FAINT, lw=1.2, label="isotropic features")
    axis.set_xticks(depth, [as_text(name) or "(the model)" for name in names], rotation=90 if len(names) > 6 else 0)
    axis.set(ylim=(-0.03, 1.03), xlabel="layer (measured at its input)", ylabel="$D_{LR}$ against the outputs:  0 rich  →  lazy")
    quiet(axis)
    axis.legend(frameon=False, fontsize=8, loc="lower left", bbox_to_anchor=(0, 1), ncols=len(results) + 2)
    if path is not None:
        save_figure(figure, path)
    return figure


def _check_count(results: dict[str, Richness]) -> None:
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


def _scale(axis: Axes, results: dict[str, Richness]) -> None:
    """Draw D_LR between 0 and 1: the plug-in value, the corrected one with its 95 % interval, the isotropic baseline."""
    for row, ((name, r), colour) in enumerate(zip(results.items(), COLOURS, strict=False)):
        y = -row
        axis.plot([0, r.isotropic], [y, y], color=colour, lw=5, alpha=0.18, solid_capstyle="butt", zorder=0)
        axis.plot(r.isotropic, y, "|", color=INK, ms=13, mew=1.5)
        axis.plot(r.low_rank, y, "o", mfc="white", mec=colour, ms=8, mew=1.8, zorder=3)
        text = f"{r.low_rank:.3f}"
        if r.low_rank_corrected is not None and r.low_rank_stderr is not None:
            low, high = r.low_rank_interval or (r.low_rank_corrected, r.low_rank_corrected)
            error = [[r.low_rank_corrected - low], [high - r.low_rank_corrected]]
            axis.errorbar(r.low_rank_corrected, y, xerr=error, fmt="D", color=colour, ms=3.5, capsize=3, lw=1.2, zorder=4)
            text += f"   (corrected {r.low_rank_corrected:.3f} ± {r.low_rank_stderr:.3f})"
        axis.annotate(
            f"{as_text(name)}   $D_{{LR}}$ = {text}", (0, y), xytext=(0, 8), textcoords="offset points", fontsize=9,
            color=colour, annotation_clip=False, va="bottom",
        )  # fmt: skip
    last = list(results.values())[-1]
    axis.annotate(
        "isotropic features", (last.isotropic, 1 - len(results)), xytext=(0, -10), textcoords="offset points", fontsize=7.5,
        ha="center", va="top", color=INK, annotation_clip=False,
    )  # fmt: skip
    axis.set(xlim=(-0.01, 1), ylim=(0.45 - len(results), 0.75), yticks=[])
    axis.set_xlabel("$D_{LR}$:   0 rich   →   lazy;   ○ plug-in,   ◆ bias-corrected with 95 % interval", fontsize=9, color=INK)
    quiet(axis)
    axis.spines["left"].set_visible(False)
