"""``lazyrich demo``: a rich and a lazy network, next to one another."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from tyro.conf import arg

from . import options
from .outputs import check_folder

FILES = ("trained-in-full.json", "last-layer-only.json", "demo.png", "layers.png")


def demo(
    *,
    out: Annotated[Path, arg(help="Folder for the figures and the results.", metavar="DIR")] = Path("lazyrich-demo"),
    seed: Annotated[int, arg(help="Seed of both networks.", metavar="N")] = 0,
    overwrite: options.Overwrite = False,
    progress: options.Progress = True,
) -> None:
    """Train a rich and a lazy network on scikit-learn's digits, and measure both."""
    check_folder(out, FILES, overwrite=overwrite)
    from .digits import run_demo

    run_demo(out, seed=seed, progress=progress)
