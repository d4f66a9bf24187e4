"""Pictures of a series (matplotlib): numbers over steps, and the three curves at several moments."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .._support.extras import needs
from .._support.files import write_whole
from ..errors import DataError
from .figures import COLOURS, FAINT, INK, quiet

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from .series import Series

TITLES = {
    "low_rank": "$D_{LR}$", "balanced": "balanced reference", "output_alignment": "output reference",
    "test_accuracy": "test accuracy", "train_accuracy": "training accuracy", "s_init": "$S_{init}$",
    "parameter_norm": "$\\|\\theta\\|^2$", "parameter_distance": "$\\|\\theta-\\theta_0\\|^2$", "nc1": "NC1",
    "nc2_equinorm": "NC2, norms", "nc2_equiangular": "NC2, angles", "nc3": "NC3", "train_loss": "training loss",
    "test_loss": "test loss", "output_condition": "$\\sigma_1/\\sigma_r$ of the outputs", "output_rank": "rank of the outputs",
    "target_alignment": "kernel-target alignment", "loss": "loss",
}  # fmt: skip
CURVES = {
    "relative_eigenvalues": "strength $\\rho_k/\\rho_1$",
    "quality": "cumulative quality $\\Pi^*(k)$",
    "utilization": "cumulative utilization $\\hat\\Pi(k)$",
}
ACCURACIES = {"train_accuracy": FAINT, "test_accuracy": INK, "accuracy": INK}


def plot_series(series: Series, path: str | os.PathLike[str] | None = None, *, moments: int = 6) -> Figure:
    """One figure: D_LR with its error, the rank and how training goes, over steps; below, the three curves at several moments.

    D_LR stands as the corrected value within 1.96 standard errors where they are known, and as the plug-in value dashed. How
    training goes is the accuracy where it is known, or else the loss. Curves are drawn dark to bright, where they were kept.

    Args:
        series: of a monitor, a trace or an experiment.
        path: where to write it (the ending names the format); None only returns the figure.
        moments: how many curves at most.

    Raises:
        DataError: nothing could be measured in the whole series.
        MissingExtraError: matplotlib is not installed.
    """
    known = np.flatnonzero(~np.isnan(series["low_rank"]))
    if not len(known):
        why = next(iter(series.notes.values()), "it is empty")
        raise DataError(f"the series holds no D_LR to draw: {why}")
    needs("matplotlib", "plot")
    from matplotlib.figure import Figure

    with_curves = [place for place in known.tolist() if series.curves(place)]
    figure = Figure(figsize=(11, 6.2 if with_curves else 3.2), layout="constrained")
    parts: Any = figure.subfigures(2, 1) if with_curves else [figure]
    training = _there(series, ACCURACIES) or _there(series, ["loss"])
    axes = parts[0].subplots(1, 3 if training else 2)
    _richness(axes[0], series)
    axes[1].plot(*_known(series, "output_rank"), color=COLOURS[2], lw=1.6, marker="o", ms=3)
    axes[1].set_ylim(0, 1.1 * max(1.0, *series["output_rank"][known]))
    axes[1].yaxis.get_major_locator().set_params(integer=True)
    axes[1].set_title("rank of the outputs", fontsize=9.5, loc="left", color=INK)
    for measure in training:
        axes[2].plot(
            *_known(series, measure), color=ACCURACIES.get(measure, INK), lw=1.6, marker="o", ms=3,
            label=TITLES.get(measure, measure),
        )  # fmt: skip
    for axis in axes:
        over_steps(axis, series.steps)
        quiet(axis)
    if training:
        axes[2].set_ylim(0, None if training == ["loss"] else 1.03)
        axes[2].set_title(" · ".join(TITLES.get(m, m) for m in training), fontsize=9.5, loc="left", color=INK)
    if len(training) > 1:
        axes[2].legend(frameon=False, fontsize=8)
    if with_curves:
        draw_moments(parts[1].subplots(1, 3), series, with_curves, moments)
    if path is not None:
        whole = io.BytesIO()
        figure.savefig(whole, format=Path(path).suffix[1:] or "png", dpi=150)
        write_whole(Path(path), lambda file: file.write(whole.getbuffer()))
    return figure


def _richness(axis: Any, series: Series) -> None:
    """D_LR with its error, and what structureless features would give."""
    corrected, error = series["low_rank_corrected"], 1.96 * series["low_rank_stderr"]
    if not np.isnan(corrected).all():
        band(axis, series.steps, corrected, error, COLOURS[0], "corrected, 95 %")
    axis.plot(*_known(series, "low_rank"), color=COLOURS[0], lw=1, ls="--", marker="o", ms=3.5, mfc="white", label="plug-in")
    highest = [series["low_rank"]]
    if _there(series, ["isotropic"]):
        axis.plot(*_known(series, "isotropic"), color=FAINT, lw=1, label="isotropic features")
        highest.append(series["isotropic"])
    axis.set_ylim(-0.02, 1.08 * np.nanmax(highest))
    axis.set_title("$D_{LR}$:  0 rich  →  lazy", fontsize=9.5, loc="left", color=INK)
    axis.legend(frameon=False, fontsize=8)


def _there(series: Series, measures: Iterable[str]) -> list[str]:
    return [measure for measure in measures if not np.isnan(series[measure]).all()]


def _known(series: Series, measure: str) -> tuple[np.ndarray, np.ndarray]:
    known = ~np.isnan(series[measure])
    return series.steps[known], series[measure][known]


def over_steps(axis: Any, steps: np.ndarray) -> None:
    """Steps on a logarithmic axis that has a place for 0."""
    later = steps[steps > 0]
    if len(later) and len(later) < len(steps):
        axis.set_xscale("symlog", linthresh=later[0])
        axis.set_xlim(left=0)
    elif len(later):
        axis.set_xscale("log")
    axis.set_xlabel("step")


def band(axis: Any, steps: np.ndarray, middle: np.ndarray, half: np.ndarray, colour: str, label: str) -> None:
    """A line with a band of this half width."""
    axis.plot(steps, middle, color=colour, lw=1.6, label=label)
    axis.fill_between(steps, middle - half, middle + half, color=colour, alpha=0.18, lw=0)


def draw_moments(axes: Any, series: Series, places: Sequence[int], count: int) -> None:
    """The three curves at ``count`` of these evaluations, spread evenly, dark to bright."""
    import matplotlib

    shades = matplotlib.colormaps["viridis"]
    chosen = np.unique(np.linspace(0, len(places) - 1, count).round().astype(int))
    for k in chosen:
        place = places[k]
        label = f"step {series.steps[place]:,}:  {series['low_rank'][place]:.3f}"
        draw_curves(axes, series.curves(place), shades(0.92 * k / max(1, chosen[-1])), label)
    label_curves(axes)
    legend = axes[2].legend(frameon=False, fontsize=7.5, loc="center left", bbox_to_anchor=(1, 0.5), title="$D_{LR}$")
    legend.get_title().set_fontsize(8)


def draw_curves(axes: Any, curves: Mapping[str, np.ndarray], colour: Any, label: str) -> None:
    """The three curves of one moment, in three panels."""
    for axis, name in zip(axes, CURVES, strict=True):
        if name in curves:
            curve = curves[name]
            kept = curve[curve > 1e-8] if name == "relative_eigenvalues" else curve
            axis.plot(np.arange(1, len(kept) + 1), kept, color=colour, lw=1.5, label=label)


def label_curves(axes: Any) -> None:
    """Names and scales of the three panels."""
    for axis, name in zip(axes, CURVES, strict=True):
        axis.set_xscale("log")
        axis.set(xlabel="feature $k$, strongest first", ylabel=CURVES[name])
        if name != "relative_eigenvalues":
            axis.set_ylim(-0.03, 1.05)
        quiet(axis)
    axes[0].set_yscale("log")


def as_text(name: str) -> str:
    """A name is text, not a formula."""
    return name.replace("$", r"\$")
