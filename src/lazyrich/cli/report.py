"""``lazyrich report``: a page about results that are on disk."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg


def report(
    source: Annotated[
        Positional[Path],
        arg(
            help="What `lazyrich measure --out`, `trace`, `run` or a Monitor wrote: a result, a series, an experiment, or a "
            "folder of several.",
            metavar="DIR",
        ),
    ],
    *,
    out: Annotated[
        Path | None, arg(help="The page to write.", metavar="FILE", help_behavior_hint="(default: DIR/report.html)")
    ] = None,
) -> None:
    """Write one HTML page that needs no network: numbers, curves and all runs."""
    from ..report import write_report

    print(f"Report: {write_report(source, out, generated=datetime.now().astimezone())}")
