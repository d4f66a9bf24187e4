"""``lazyrich report``: a page about results that are on disk."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from .outputs import check_folder


def report(
    source: Annotated[
        Positional[Path],
        arg(
            help="What `lazyrich measure --out`, `trace`, `run` or a Monitor wrote: a result, a series, an experiment, or a "
            "folder of several. A folder of experiments, such as results/quick, becomes one page with an index of them.",
            metavar="DIR",
        ),
    ],
    *,
    out: Annotated[
        Path | None, arg(help="The page to write.", metavar="FILE", help_behavior_hint="(default: DIR/report.html)")
    ] = None,
    overwrite: Annotated[bool, arg(help="Replace FILE also where it is not a page that this command wrote.")] = False,
) -> None:
    """Write one HTML page that needs no network: the verdict, curves, a table of all runs, each chart as a file."""
    if out is not None:
        check_folder(out.parent, [] if _is_page(out) else [out.name], overwrite=overwrite)
    from ..report import write_report

    print(f"Report: {write_report(source, out, generated=datetime.now().astimezone())}")


def _is_page(path: Path) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return b'<meta name="generator" content="lazyrich' in file.read(2**12)
