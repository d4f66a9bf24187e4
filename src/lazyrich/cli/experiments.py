"""``lazyrich experiments``: what there is to run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._support.text import did_you_mean
from ..errors import DataError

if TYPE_CHECKING:
    from ..experiments.experiment import Experiment


def experiments() -> None:
    """List the experiments: the question of each, and what it varies."""
    from ..experiments import EXPERIMENTS

    for experiment in EXPERIMENTS.values():
        print(f"{experiment.name:<17} {experiment.question}\n{'':<17} varied: {experiment.varied}")
    print("\nRun one with: lazyrich run NAME")


def named(name: str) -> Experiment:
    """The experiment of this name.

    Raises:
        DataError: there is none; the message lists the names.
    """
    from ..experiments import EXPERIMENTS

    if name not in EXPERIMENTS:
        raise DataError(f"no experiment {name!r}{did_you_mean(name, EXPERIMENTS)} There are: {', '.join(EXPERIMENTS)}")
    return EXPERIMENTS[name]
