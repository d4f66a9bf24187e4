"""One self-contained HTML page of results: measurements, series over training, experiments. It reads results, never a model."""

from __future__ import annotations

import os
from datetime import datetime
from pathlib import Path

from .._support.files import write_text
from .found import Found, find, measured
from .page import page

__all__ = ["Found", "measured", "write_report"]


def write_report(
    source: str | os.PathLike[str] | Found, out: str | os.PathLike[str] | None = None, *, generated: datetime | None = None
) -> Path:
    """Write one HTML file that needs no network: D_LR with its error, the curves over time, layers, collapse, all numbers.

    Args:
        source: the JSON file of a result; or a folder with results, a series (``evaluations.jsonl``), several of either in
            folders below it, or the results of an experiment or of several (a ``results.csv`` in each folder), of which the
            page then has an index. Folders ``seed-0``, ``seed-1`` … next to each other are one run.
        out: the file to write; by default ``report.html`` in the folder, or next to the file.
        generated: time to show on the page; None leaves it out, so that equal results give equal pages.

    Returns:
        The path of the file.

    Raises:
        FileNotFoundError: no such folder or file.
        DataError: nothing to report is there, or a file is damaged; names it.
        MissingExtraError: plotly or Jinja2 is not installed.
        OSError: ``out`` cannot be written.
    """
    if isinstance(source, Found):
        found, out = source, Path("report.html") if out is None else Path(out)
    else:
        path = Path(source)
        found = find(path)
        out = (path / "report.html" if path.is_dir() else path.with_suffix(".html")) if out is None else Path(out)
    write_text(out, page(found, None if generated is None else generated.strftime("%Y-%m-%d %H:%M")))
    return out
