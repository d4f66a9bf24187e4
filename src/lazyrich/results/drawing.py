"""What all figures share (matplotlib): colours, quiet axes, bands over steps, and one way to create and to save a figure."""

from __future__ import annotations

import io
import os
from contextlib import AbstractContextManager, nullcontext
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
STYLES = ("-", (0, (5, 2)), (0, (6, 2, 1.5, 2)), (0, (10, 2)))  # of lines side by side; dotted: not measured
INK, FAINT = "#333333", "#999999"
FAR = 0.5  # of the axis of steps: a line is dotted where nothing was measured for longer
START = 0.4  # decades between step 0 and the first step on a logarithmic axis


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


def styled(style: Any) -> AbstractContextManager[None]:
    """A context in which matplotlib uses a style: its name, file or settings, or a list of these; None leaves it as it is.

    Raises:
        MissingExtraError: matplotlib is not installed.
        OSError: matplotlib knows no such style.
    """
    return nullcontext() if style is None else needs("matplotlib.style", "plot").context(style)


def ink() -> str:
    """The colour of text: that of the style in use, or a dark grey where the style leaves it black."""
    colour = needs("matplotlib", "plot").rcParams["text.color"]
    return INK if colour == "black" else colour


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
    axis.set_title(title, fontsize=size, loc="left", color=ink())


def log_steps(steps: np.ndarray) -> bool:
    """Whether steps are spread so that a logarithmic axis shows them better: over more than a decade, most of them early.

    >>> log_steps(np.array([0, 1, 10, 100, 1000])), log_steps(np.array([0, 250, 500, 750, 1000]))
    (True, False)
    """
    later = np.unique(steps[steps > 0])
    return bool(len(later) > 2 and later[-1] >= 20 * later[0] and np.median(later) < 0.35 * later[-1])


def over_steps(axis: Axes, steps: np.ndarray) -> None:
    """Set the axis of the steps: logarithmic where :func:`log_steps` says so, and then also with step 0."""
    axis.set_xlabel("optimizer step")
    if not log_steps(steps):
        return
    first = steps[steps > 0].min()
    axis.set_xscale("symlog", linthresh=first, linscale=START)
    axis.set_xlim(left=0 if steps.min() == 0 else first / 1.2)
    decades = np.log10(steps.max() / first)
    marks = [m * 10.0**e for e in range(20) for m in ((1,) if decades > 2 else (1, 2, 5))]
    axis.set_xticks([0, *(m for m in marks if first <= m <= steps.max())])
    axis.minorticks_off()
    axis.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")


def curve(axis: Axes, steps: np.ndarray, values: np.ndarray, half: np.ndarray | None = None, **style: Any) -> None:
    """Draw values over steps inside a band of this half width, if there is one.

    Where nothing was measured, because a value is NaN or for longer than ``FAR`` of the axis, the line is dotted and has no band.
    """
    known = np.flatnonzero(~np.isnan(values))
    x, y = steps[known].astype(float), values[known]
    gaps = np.flatnonzero((np.diff(known) > 1) | (np.diff(_places(steps)[known]) > FAR)) + 1
    (line,) = axis.plot(np.insert(x, gaps, np.nan), np.insert(y, gaps, np.nan), **style)
    for gap in gaps:
        axis.plot(x[gap - 1 : gap + 1], y[gap - 1 : gap + 1], color=line.get_color(), lw=line.get_linewidth(), ls=":")
    if half is not None:
        for part in np.split(np.arange(len(x)), gaps):
            draw = axis.fill_between if len(part) > 1 else axis.vlines
            error = half[known][part]
            draw(x[part], y[part] - error, y[part] + error, color=line.get_color(), alpha=0.18, lw=0 if len(part) > 1 else 5)


def _places(steps: np.ndarray) -> np.ndarray:
    """(n,) where :func:`over_steps` puts each step, from 0 to 1."""
    places = steps - steps[:1]
    if log_steps(steps):
        first = steps[steps > 0].min()
        places = np.where(steps > 0, np.log10(np.maximum(steps, first) / first) + START * (steps.min() == 0), 0.0)
    return places / max(places.max(initial=0.0), 1e-9)


def readable_log(axis: Axis) -> None:
    """Mark a logarithmic axis with numbers that can be read (0.05, 0.1, 0.2); call it when everything is drawn."""
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

    low, high = axis.get_view_interval()
    decades = np.log10(high / low)
    subs = (1.0, 2.0, 5.0) if decades < 3 else (1.0,)
    axis.set_major_locator(MaxNLocator(5) if decades < 0.8 else LogLocator(subs=subs))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}" if value >= 1e-4 else f"{value:.0e}"))
