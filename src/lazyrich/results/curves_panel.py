"""The panel of the three curves (matplotlib): relative eigenvalues, cumulative quality and cumulative utilization."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .drawing import quiet

if TYPE_CHECKING:
    from .series import Series

CURVES = {
    "relative_eigenvalues": "relative eigenvalue $\\rho_k/\\rho_1$",
    "quality": "cumulative quality $\\Pi^*(k)$",
    "utilization": "cumulative utilization $\\hat\\Pi(k)$",
}
SMALLEST = 1e-8  # smaller relative eigenvalues of a stored curve are rounding errors


def draw_curves(axes: Any, curves: Mapping[str, np.ndarray], colour: Any, label: str, *, rank: int | None = None) -> None:
    """Draw the three curves of one evaluation, one in each of the three axes.

    Args:
        axes: three, in the order of ``CURVES``.
        curves: name -> values at k = 1, 2, …; a curve that is missing is not drawn.
        rank: number of eigenvalues that are above rounding; None keeps those above ``SMALLEST``.
    """
    for axis, name in zip(axes, CURVES, strict=True):
        if name in curves:
            values = curves[name]
            if name == "relative_eigenvalues":
                values = values[values > SMALLEST] if rank is None else values[:rank]
            axis.plot(np.arange(1, len(values) + 1), values, color=colour, lw=1.6, label=label)


def label_curves(axes: Any) -> None:
    """Set labels and scales of the three axes."""
    for axis, (name, label) in zip(axes, CURVES.items(), strict=True):
        axis.set(xscale="log", xlabel="feature $k$, strongest first", ylabel=label)
        if name == "relative_eigenvalues":
            axis.set_yscale("log")
        else:
            axis.set_ylim(-0.03, 1.05)
        quiet(axis)


def draw_moments(axes: Any, series: Series, indices: Sequence[int], count: int) -> None:
    """Draw the three curves at ``count`` of the evaluations with these indices, spread evenly, early ones dark."""
    import matplotlib

    shades = matplotlib.colormaps["viridis"]
    chosen = np.unique(np.linspace(0, len(indices) - 1, count).round().astype(int))
    for k in chosen:
        index = indices[k]
        label = f"step {series.steps[index]:,}:  {series['low_rank'][index]:.3f}"
        draw_curves(axes, series.curves(index), shades(0.92 * k / max(1, chosen[-1])), label)
    label_curves(axes)
    legend = axes[2].legend(frameon=False, fontsize=7.5, loc="center left", bbox_to_anchor=(1, 0.5), title="$D_{LR}$")
    legend.get_title().set_fontsize(8)
