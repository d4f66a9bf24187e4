"""Pictures of results (matplotlib): reads results only, touches no global style and opens no window."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np

from .._support.extras import needs

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from .richness import Richness

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")  # Okabe & Ito, safe for colour blindness
INK, FAINT = "#333333", "#999999"


def plot_richness(results: dict[str, Richness], path: str | os.PathLike[str] | None = None) -> Figure:
    """One figure for one or several results: D_LR on its scale above, the three curves below.

    Args:
        results: name -> result; up to six.
        path: where to write it (the ending names the format); None only returns the figure.

    Raises:
        ValueError: no results, or more than six.
        MissingExtraError: matplotlib is not installed.
    """
    if not 1 <= len(results) <= len(COLOURS):
        raise ValueError(f"one figure shows 1 to {len(COLOURS)} results, got {len(results)}")
    needs("matplotlib", "plot")
    from matplotlib.figure import Figure

    height = 0.9 + 0.34 * len(results)
    figure = Figure(figsize=(11, 3.9 + height), layout="constrained")
    subfigures: Any = figure.subfigures(2, 1, height_ratios=[height, 3.9])
    top, bottom = subfigures
    _scale(top.subplots(), results)
    axes = bottom.subplots(1, 3)
    widest = max(r.num_features for r in results.values())
    for (name, r), colour in zip(results.items(), COLOURS, strict=False):
        _curves(axes, name, r, colour)
    titles = {
        "Strength": ("relative eigenvalue $\\rho_k/\\rho_1$", "of the k-th feature"),
        "Quality": ("cumulative quality $\\Pi^*(k)$", "target space in the first k"),
        "Utilization": ("cumulative utilization $\\hat\\Pi(k)$", "learned space in the first k"),
    }
    for axis, (title, (label, meaning)) in zip(axes, titles.items(), strict=True):
        axis.set(xscale="log", xlim=(0.9, widest * 1.1), xlabel="feature $k$, strongest first", ylabel=label)
        axis.set_title(f"{title}: {meaning}" if title != "Strength" else f"{title} {meaning}", fontsize=9, loc="left", color=INK)
        quiet(axis)
    axes[0].set_yscale("log")
    for axis in axes[1:]:
        axis.set_ylim(-0.03, 1.05)
    if all(r.spectrum.quality is None for r in results.values()):
        axes[1].text(0.5, 0.5, "no targets given", transform=axes[1].transAxes, ha="center", color=FAINT)
    for rank in sorted({r.output_rank for r in results.values()}):
        for axis in axes:
            axis.axvline(rank, color=FAINT, lw=0.8, ls="--", zorder=0)
        axes[0].annotate(
            f"output rank {rank}", (rank, 0.02), xycoords=("data", "axes fraction"), rotation=90, ha="right", va="bottom",
            fontsize=7.5, color=FAINT,
        )  # fmt: skip
    if path is not None:
        figure.savefig(path, dpi=150)
    return figure


def plot_layers(results: dict[str, Richness], path: str | os.PathLike[str] | None = None) -> Figure:
    """D_LR of what each layer sees, in the order they ran, for one or several networks with the same layers.

    Args:
        results: name -> result, measured with ``layers=``; up to six.
        path: where to write it (the ending names the format); None only returns the figure.

    Raises:
        ValueError: no results, more than six, or results without the same layers.
        MissingExtraError: matplotlib is not installed.
    """
    if not 1 <= len(results) <= len(COLOURS):
        raise ValueError(f"one figure shows 1 to {len(COLOURS)} results, got {len(results)}")
    names = list(next(iter(results.values())).layers)
    if not names or any(list(r.layers) != names for r in results.values()):
        raise ValueError('the results hold no layers, or unlike ones; measure them with layers="all" or the same names')
    needs("matplotlib", "plot")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(min(24, max(6.5, 2.6 + 0.42 * len(names))), 4.6), layout="constrained")
    axis = figure.subplots()
    depth = np.arange(len(names))
    for (label, r), colour in zip(results.items(), COLOURS, strict=False):
        layers = list(r.layers.values())
        values = [layer.low_rank for layer in layers]
        error = [1.96 * (layer.low_rank_stderr or layer.reduction_stderr or 0.0) for layer in layers]
        name = label.replace("$", r"\$")
        axis.errorbar(depth, values, yerr=error, color=colour, marker="o", ms=5, lw=1.6, capsize=2.5, label=name, zorder=3)
        axis.plot(depth, [layer.balanced for layer in layers], color=colour, lw=1.2, ls="--", marker=".", ms=5, zorder=2)
    for k, layer in enumerate(next(iter(results.values())).layers.values()):
        axis.plot([k - 0.3, k + 0.3], [layer.isotropic] * 2, color=FAINT, lw=1.2, zorder=1)
    axis.plot([], [], color=INK, lw=1.2, ls="--", marker=".", label="balanced reference")
    axis.plot([], [], color=FAINT, lw=1.2, label="isotropic features")
    axis.set_xticks(depth, [name or "(the model)" for name in names], rotation=90 if len(names) > 6 else 0)
    axis.set(ylim=(-0.03, 1.03), xlabel="layer, by what it sees", ylabel="$D_{LR}$ against the outputs:  0 rich  →  lazy")
    quiet(axis)
    axis.legend(frameon=False, fontsize=8, loc="lower left", bbox_to_anchor=(0, 1), ncols=len(results) + 2)
    if path is not None:
        figure.savefig(path, dpi=150)
    return figure


def _curves(axes: Any, name: str, r: Richness, colour: str) -> None:
    k = np.arange(1, len(r.spectrum.eigenvalues) + 1)
    kept = slice(0, r.spectrum.rank)
    style = {"color": colour, "lw": 1.6, "label": name}
    if not r.spectrum.whole:  # a curve that breaks off has to say why
        for axis in axes:
            axis.axvline(k[-1], color=colour, lw=0.8, ls=":", zorder=0)
        axes[0].annotate(
            f"the leading {k[-1]:,} of {r.num_features:,}", (k[-1], 0.98), xycoords=("data", "axes fraction"), rotation=90,
            ha="left", va="top", fontsize=7.5, color=colour,
        )  # fmt: skip
    axes[0].plot(k[kept], r.spectrum.relative_eigenvalues[kept], **style)
    for axis, curve in zip(axes[1:], (r.spectrum.cumulative_quality, r.spectrum.cumulative_utilization), strict=True):
        if curve is not None:
            axis.plot(k, curve, **style)


def _scale(axis: Axes, results: dict[str, Richness]) -> None:
    """D_LR between 0 and 1: the plug-in value, the corrected one with its 95 % interval, the isotropic mark."""
    for row, ((name, r), colour) in enumerate(zip(results.items(), COLOURS, strict=False)):
        y = -row
        name = name.replace("$", r"\$")  # a name is text, not a formula
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
            f"{name}   $D_{{LR}}$ = {text}", (0, y), xytext=(0, 8), textcoords="offset points", fontsize=9, color=colour,
            annotation_clip=False, va="bottom",
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


def quiet(axis: Axes) -> None:
    """No frame but two axes, small type."""
    axis.spines[["top", "right"]].set_visible(False)
    axis.tick_params(labelsize=8)
    for label in (axis.xaxis.label, axis.yaxis.label):
        label.set_fontsize(9)
