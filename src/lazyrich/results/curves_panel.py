"""The panel of the three curves (matplotlib): relative eigenvalues, cumulative quality and cumulative utilization."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .drawing import STYLES, ink, quiet, readable_log

CURVES = {
    "relative_eigenvalues": "relative eigenvalue $\\rho_k/\\rho_1$",
    "quality": "cumulative quality $\\Pi^*(k)$",
    "utilization": "cumulative utilization $\\hat\\Pi(k)$",
}
ON_WHITE, ON_BLACK = (0.0, 0.72), (0.3, 1.0)  # parts of viridis, whose ends are a yellow like white and a purple like black
SMALLEST = 1e-8  # smaller relative eigenvalues of a stored curve are rounding errors


def draw_curves(
    axes: Any, curves: Mapping[str, np.ndarray], colour: Any, label: str, *, rank: int | None = None, style: Any = "-"
) -> None:
    """Draw the three curves of one evaluation, one in each of the three axes.

    Args:
        axes: three, in the order of ``CURVES``.
        curves: name -> values at k = 1, 2, …; a curve that is missing is not drawn.
        rank: number of eigenvalues that are above rounding; None keeps those above ``SMALLEST``.
        style: of the lines, as matplotlib's ``linestyle``.
    """
    for axis, name in zip(axes, CURVES, strict=True):
        if name in curves:
            values = curves[name]
            if name == "relative_eigenvalues":
                values = values[values > SMALLEST] if rank is None else values[:rank]
            axis.plot(np.arange(1, len(values) + 1), values, color=colour, ls=style, lw=1.6, label=label)


def label_curves(axes: Any) -> None:
    """Set labels and scales of the three axes, in which everything is drawn."""
    for axis, (name, label) in zip(axes, CURVES.items(), strict=True):
        axis.set(xscale="log", xlabel="feature $k$, strongest first", ylabel=label)
        if name == "relative_eigenvalues":
            axis.set_yscale("log")
            readable_log(axis.yaxis)
        else:
            axis.set_ylim(-0.03, 1.05)
        readable_log(axis.xaxis)
        quiet(axis)


def evenly(indices: Sequence[int], count: int) -> list[int]:
    """Choose at most ``count`` of the indices, spread evenly, the first and the last among them.

    >>> evenly(range(10), 4)
    [0, 3, 6, 9]
    """
    return [indices[k] for k in np.unique(np.linspace(0, len(indices) - 1, count).round().astype(int))]


def draw_moments(axes: Any, moments: Sequence[tuple[int, float, Mapping[str, np.ndarray]]]) -> None:
    """Draw the three curves of several evaluations, early ones dark, in styles that take turns.

    Args:
        axes: three, in the order of ``CURVES``.
        moments: step, D_LR and curves of each evaluation.
    """
    import matplotlib
    from matplotlib.colors import to_rgb

    shades = matplotlib.colormaps["viridis"]
    first, last = ON_BLACK if sum(to_rgb(ink())) > 1.5 else ON_WHITE
    for k, (step, low_rank, curves) in enumerate(moments):
        shade = shades(first + (last - first) * k / max(1, len(moments) - 1))
        draw_curves(axes, curves, shade, f"step {step:,}:  {low_rank:.3f}", style=STYLES[k % len(STYLES)])
    label_curves(axes)
    legend = axes[2].legend(
        frameon=False, fontsize=7.5, handlelength=3, loc="center left", bbox_to_anchor=(1, 0.5), title="$D_{LR}$"
    )
    legend.get_title().set_fontsize(8)
