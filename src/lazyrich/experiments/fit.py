"""Runs compared at equal fit, because D_LR follows how far the training set is fitted."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from .experiment import Results
from .run_folder import Run
from .setup import Setup


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


EVALUATIONS = 4  # at least, or the interpolation is between states that are too far apart

Rows = Mapping[str, Mapping[str, np.ndarray]]  # condition -> measure -> (seeds,) values

AT_EQUAL: Mapping[str, Callable[[Sequence[Run], str], list[float]]] = {
    "train_loss": at_equal_loss,
    "train_accuracy": at_equal_accuracy,
}


def equal_fits(results: Results, setups: Mapping[str, Setup], measures: Sequence[str]) -> dict[str, Rows]:
    """Comparable conditions where each of them first is as far in its training as the one that ends least far.

    Each seed by itself, by linear interpolation between evaluations. At equal accuracy the factors of the loss may differ.

    Returns:
        "train_loss" and "train_accuracy" -> the rows; a condition has none if there is nothing to compare it with, or if one of
        the runs has fewer than four evaluations.
    """
    fits: dict[str, Rows] = {}
    for fit, at_equal in AT_EQUAL.items():
        values: dict[str, dict[str, np.ndarray]] = {}
        for group in comparable(results, setups, same_loss=fit == "train_loss"):
            if any(len(run) < EVALUATIONS for name in group for run in results.runs[name]):
                continue
            for measure in measures:
                of_seeds = [at_equal([runs[name] for name in group], measure) for runs in results.by_seed]
                for k, name in enumerate(group):
                    values.setdefault(name, {})[measure] = np.array([of_seed[k] for of_seed in of_seeds])
        if values:
            fits[fit] = {name: values[name] for name in results.runs if name in values}
    return fits


def comparable(results: Results, setups: Mapping[str, Setup], *, same_loss: bool = True) -> list[list[str]]:
    """The conditions with the same data set, kind of network, loss and number of measured samples, two or more of them.

    Args:
        same_loss: whether also the factors of the loss and of its targets are the same.
    """
    groups: dict[object, list[str]] = {}
    for name in results.runs:
        setup = setups[name]
        key = title(setup), setup.measured, setup.loss if same_loss else setup.loss.name
        groups.setdefault(key, []).append(name)
    return [group for group in groups.values() if len(group) > 1]


def title(setup: Setup) -> str:
    """Network, data set and loss."""
    data = getattr(setup.data, "name", type(setup.data).__name__)
    return f"{type(setup.model).__name__}, {data}, {setup.loss.name}"


def correlations(results: Results, setups: Mapping[str, Setup]) -> dict[str, float]:
    """How far D_LR follows the training loss: their rank correlation at the end, where three conditions are comparable.

    Returns:
        Network, data set and loss -> the rank correlation over all runs.
    """
    found = {}
    for group in (group for group in comparable(results, setups) if len(group) > 2):
        ends = [[run.last(measure) for name in group for run in results.runs[name]] for measure in ("low_rank", "train_loss")]
        found[title(setups[group[0]])] = rank_correlation(*ends)
    return found


def remarks(results: Results, setups: Mapping[str, Setup]) -> list[str]:
    """These correlations as lines."""
    words = "rank correlation of the last D_LR with the last training loss"
    return [f"{name}: {words} {value:.2f}" for name, value in correlations(results, setups).items()]
