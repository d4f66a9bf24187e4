"""``lazyrich demo``: a rich and a lazy network, next to one another."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from tyro.conf import arg

from . import options


def demo(
    *,
    out: Annotated[Path, arg(help="Folder for the figures and the results.", metavar="DIR")] = Path("lazyrich-demo"),
    seed: Annotated[int, arg(help="Seed of both networks.", metavar="N")] = 0,
    progress: options.Progress = True,
) -> None:
    """Train a rich and a lazy network on scikit-learn's digits, and measure both."""
    from .digits import run_demo

    run_demo(out, seed=seed, progress=progress)
