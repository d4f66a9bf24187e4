"""Runs compared at equal fit, because D_LR follows how far the training set is fitted."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .run_folder import Run


def first_index(values: np.ndarray, level: float) -> float:
    """Index, between two values by linear interpolation, at which values first reach a level; NaN if they never do.

    >>> first_index(np.array([0.0, 1.0, 3.0]), 2.0)
    1.5
    """
    hits = np.flatnonzero(values >= level)
    if not len(hits):
        return float("nan")
    k = int(hits[0])
    if k == 0 or np.isnan(values[k - 1]):
        return float(k)
    return k - 1 + float((level - values[k - 1]) / (values[k] - values[k - 1]))


def value_at(run: Run, measure: str, index: float) -> float:
    """A measure at an index between two evaluations, by linear interpolation; NaN where the index is."""
    return float(np.interp(index, np.arange(len(run)), run[measure])) if index == index else float("nan")


def at_equal_accuracy(runs: Sequence[Run], measure: str) -> list[float]:
    """A measure of each run where it first has the training accuracy that all of them reach: the lowest of their last ones."""
    level = min(run.last("train_accuracy") for run in runs)
    return [value_at(run, measure, first_index(run["train_accuracy"], level)) for run in runs]


def at_equal_loss(runs: Sequence[Run], measure: str) -> list[float]:
    """A measure of each run where it first has the training loss that all of them reach: the highest of their last ones."""
    level = max(run.last("train_loss") for run in runs)
    return [value_at(run, measure, first_index(-run["train_loss"], -level)) for run in runs]


def rank_correlation(x: Sequence[float] | np.ndarray, y: Sequence[float] | np.ndarray) -> float:
    """Spearman's correlation; equal values share their mean rank. NaN where a value is, or all are equal.

    >>> rank_correlation([1, 2, 3], [10, 100, 1000]), round(rank_correlation([1, 2, 2], [1, 2, 3]), 3)
    (1.0, 0.866)
    """
    if np.isnan([*x, *y]).any() or not (np.ptp(x) and np.ptp(y)):
        return float("nan")
    ranks = [[float(np.mean(np.flatnonzero(np.sort(values) == value))) for value in values] for values in (x, y)]
    return float(np.corrcoef(ranks[0], ranks[1])[0, 1])
