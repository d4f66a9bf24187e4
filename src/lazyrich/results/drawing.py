"""What all figures share (matplotlib): colours, quiet axes, bands over steps, and one way to create and to save a figure."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .._support.extras import needs
from .._support.files import write_whole

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")  # Okabe & Ito, safe for colour blindness
INK, FAINT = "#333333", "#999999"


def new_figure(width: float, height: float, extra: str = "plot") -> Figure:
    """Create a figure of this size in inches; it opens no window and is not registered with pyplot.

    Args:
        extra: the extra that an error names where matplotlib is missing.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    needs("matplotlib", extra)
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def save_figure(figure: Figure, path: str | os.PathLike[str], dpi: int = 150) -> None:
    """Write the figure; a crash leaves the old file or the new one. The ending of the path names the format; without one, PNG.

    Raises:
        ValueError: matplotlib does not know the format.
        OSError: the file cannot be written; names it.
    """
    path, content = Path(path), io.BytesIO()
    figure.savefig(content, format=path.suffix[1:] or "png", dpi=dpi)
    write_whole(path, lambda file: file.write(content.getbuffer()))


def as_text(name: str) -> str:
    r"""Escape a name so that matplotlib draws it as text and not as a formula.

    >>> print(as_text("width $2^5$"))
    width \$2^5\$
    """
    return name.replace("$", r"\$")


def quiet(axis: Axes) -> None:
    """Remove the frame except for two axes, and set small type."""
    axis.spines[["top", "right"]].set_visible(False)
    axis.tick_params(labelsize=8)
    for label in (axis.xaxis.label, axis.yaxis.label):
        label.set_fontsize(9)


def heading(axis: Axes, title: str, size: float = 9.5) -> None:
    """Set the title of a panel, at its left."""
    axis.set_title(title, fontsize=size, loc="left", color=INK)


def over_steps(axis: Axes, steps: np.ndarray) -> None:
    """Put the steps on a logarithmic axis that also shows step 0."""
    later = steps[steps > 0]
    if len(later) and len(later) < len(steps):
        axis.set_xscale("symlog", linthresh=later[0])
        axis.set_xlim(left=0)
    elif len(later):
        axis.set_xscale("log")
    axis.set_xlabel("step")


def readable_log(axis: Axis) -> None:
    """Mark a logarithmic axis with numbers that can be read (0.05, 0.1, 0.2); call it when everything is drawn."""
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

    low, high = axis.get_view_interval()
    decades = np.log10(high / low)
    subs = (1.0, 2.0, 5.0) if decades < 3 else (1.0,)
    axis.set_major_locator(MaxNLocator(5) if decades < 0.8 else LogLocator(subs=subs))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}" if value >= 1e-4 else f"{value:.0e}"))


def band(axis: Axes, steps: np.ndarray, middle: np.ndarray, half: np.ndarray, colour: Any, label: str) -> None:
    """Draw a line inside a band of this half width."""
    axis.plot(steps, middle, color=colour, lw=1.6, label=label)
    axis.fill_between(steps, middle - half, middle + half, color=colour, alpha=0.18, lw=0)
